"""What a model keeps in memory, seen on a pass over tensors that have sizes and no values."""

import copy
import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raypatch.machine.runtime import Precision
from raypatch.models.families.protocol import Activations

IMAGES = 16
"""Images of a pass: enough that a layer's gradient, which is there once for all, hardly counts."""

SMALL = 2**30
"""Bytes of an image's activations below which nobody has to compute them again."""


def measure_activations(
    model: nn.Module, spatial: Sequence[int], precision: Precision, *, channels: int = 3
) -> Activations:
    """Return what an image of the edges `spatial` takes in the model, which may lie on `meta`.

    The peak of a pass forward and back, and of one forward alone, as an allocator would see it but
    for weights and their gradients: those lie there once for all images. In bfloat16 as autocast
    casts. The model stays as it is.
    """
    bare = copy.deepcopy(model).to("meta")
    with FakeTensorMode(allow_non_fake_inputs=True):
        bare.to_empty(device="cpu")
        image = (channels, *spatial)
        kept = _peak(bare, image, precision, training=True)
        passing = _peak(bare, image, precision, training=False)
        checkpointed = None
        checkpoint = getattr(bare, "set_grad_checkpointing", None)
        if kept >= SMALL and checkpoint is not None:
            checkpoint(True)
            checkpointed = _peak(bare, image, precision, training=True)
    return Activations(
        kept=kept,
        checkpointed=checkpointed,
        passing=passing,
        largest_gradient=max(parameter.numel() for parameter in model.parameters()),
    )


def _peak(model: nn.Module, image: Sequence[int], precision: Precision, *, training: bool) -> int:
    """Peak bytes per image, of the shape (channels, *spatial), of one pass."""
    model.train(training)
    model.requires_grad_(training)
    hooks = []
    for parameter in model.parameters():
        if training:
            # A gradient goes as soon as it is there: it is counted by whoever trains.
            hooks.append(parameter.register_post_accumulate_grad_hook(_drop_gradient))
    allocated = _Allocated(model)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    with allocated, cast, torch.set_grad_enabled(training):
        logits = model(torch.empty(IMAGES, *image))
        if training:
            logits.sum().backward()
    for hook in hooks:
        hook.remove()
    return math.ceil(allocated.peak / IMAGES)


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


class _Allocated(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, as long as they live.

    Not counted are the model's own, and weights as autocast casts them. peak: the most at a time.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.peak = 0
        self._now = 0
        self._live: dict[int, int] = {}
        self._weights: set[int] = set()
        for tensor in (*model.parameters(), *model.buffers()):
            self._weights.add(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        casts_weight = func is torch.ops.aten._to_copy.default and self._is_weight(args[0])
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and not self._is_weight(tensor):
                self._note(tensor, counted=not casts_weight)
        return made

    def _is_weight(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._weights

    def _note(self, tensor: Tensor, *, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        self._live[key] = storage.nbytes() if counted else 0
        self._now += self._live[key]
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self._now -= self._live.pop(key)
