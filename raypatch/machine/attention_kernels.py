"""The kernels by which torch computes attention on a CUDA device."""

import functools
import importlib.util
import logging

import torch
from torch.nn import attention
from torch.nn.functional import scaled_dot_product_attention

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


@functools.cache
def use_flash_attention_3(device: torch.device) -> None:
    """Offer FlashAttention 3 to torch on a Hopper card, where its package is installed; once in a process.

    torch brings FlashAttention 2 itself; of the third it can call the kernels of the package flash_attn_interface
    (torch.nn.attention). Which kernel it takes then is its own choice. What cannot train in bfloat16 here is taken
    back, and said in the log.
    """
    is_hopper = torch.cuda.get_device_capability(device)[0] == 9
    if not is_hopper or importlib.util.find_spec("flash_attn_interface") is None:
        return
    try:
        attention.activate_flash_attention_impl(FLASH_3)
        _try_flash(device)
    # Of a torch that does not offer it, or for inference in 8 bits alone, and of a package built for another torch.
    except (AttributeError, ImportError, RuntimeError, ValueError) as error:
        if _current_flash() == FLASH_3:
            attention.restore_flash_attention_impl()
        logger.warning("FlashAttention 3 is installed and cannot be used: %s", error)


def _try_flash(device: torch.device) -> None:
    """Compute attention and its gradient by the implementation that was chosen. Raises RuntimeError."""
    heads = torch.zeros(1, 1, 8, 64, dtype=torch.bfloat16, device=device, requires_grad=True)
    with attention.sdpa_kernel(attention.SDPBackend.FLASH_ATTENTION):
        scaled_dot_product_attention(heads, heads, heads).sum().backward()


def _current_flash() -> str | None:
    """The implementation that was chosen in this process; None for torch's own."""
    # Older versions of torch have no choice.
    current = getattr(attention, "current_flash_attention_impl", None)
    return None if current is None else current()
