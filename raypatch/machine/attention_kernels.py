"""The kernels by which torch computes attention on a CUDA device."""

import importlib.util
import logging

import torch
from torch.nn import attention

logger = logging.getLogger(__name__)

FLASH_3 = "FA3"
"""FlashAttention 3, as torch calls it."""


def attention_kernels() -> list[str]:
    """The kernels of scaled_dot_product_attention that torch may take, its first choice unknown."""
    allowed = {
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "flash 3": _current_flash() == FLASH_3,
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
    }
    return [name for name, on in allowed.items() if on]


def use_flash_attention_3(device: torch.device) -> None:
    """Let torch compute attention by FlashAttention 3 on a Hopper card, where its package is installed.

    The setting is the process's. torch brings FlashAttention 2 itself; of the third it offers to call the kernels of
    the package flash_attn_interface (torch.nn.attention). What cannot be used is said in the log.
    """
    is_hopper = torch.cuda.get_device_capability(device)[0] == 9
    if not is_hopper or importlib.util.find_spec("flash_attn_interface") is None or _current_flash() == FLASH_3:
        return
    try:
        attention.activate_flash_attention_impl(FLASH_3)
    # Of a torch that does not offer it, and of a package that was built for another one.
    except (AttributeError, ImportError, RuntimeError, ValueError) as error:
        logger.warning("FlashAttention 3 is installed and cannot be used: %s", error)


def _current_flash() -> str | None:
    """The implementation that was chosen in this process; None for torch's own."""
    # Older versions of torch have no choice.
    current = getattr(attention, "current_flash_attention_impl", None)
    return None if current is None else current()
