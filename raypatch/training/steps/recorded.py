"""A training step recorded once as a CUDA graph and replayed on buffers of fixed addresses."""

import functools
from collections.abc import Callable

import torch

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""uint8 images (B, C, *spatial), of any size, their labels and the parameters of
their augmentation, None for none.
"""

TakeStep = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""A step on a batch that returns its mean loss."""

OUT_OF_MEMORY = (torch.OutOfMemoryError, torch.AcceleratorError)
"""What may be raised without memory for a recording: the second by CUDA itself,
when a graph cannot be instantiated.
"""


class RecordedStep:
    """A step on buffers of fixed addresses: a CUDA graph of it, or on a CPU the step itself.

    It keeps no reference to the step: two that hold each other would hold the recording's memory
    until Python collects them.
    """

    def __init__(self, take: TakeStep, batch: Batch) -> None:
        """Record `take`. Raises one of OUT_OF_MEMORY."""
        images, labels, parameters = batch
        self._images, self._labels = images.clone(), labels.clone()
        self._parameters = None if parameters is None else parameters.clone()
        self._graph = torch.cuda.CUDAGraph() if images.is_cuda else None
        if self._graph is not None:
            self._loss = self._capture(self._graph, take)

    def __call__(self, batch: Batch, take: TakeStep) -> torch.Tensor:
        """Copy the batch into the buffers and take the step;
        the loss lies in the same memory every time.
        """
        images, labels, parameters = batch
        self._images.copy_(images)
        self._labels.copy_(labels)
        if self._parameters is not None and parameters is not None:
            self._parameters.copy_(parameters)
        if self._graph is None:
            return take(self._images, self._labels, self._parameters)
        self._graph.replay()
        return self._loss

    def _capture(self, graph: torch.cuda.CUDAGraph, take: TakeStep) -> torch.Tensor:
        """Record; nothing runs meanwhile, so that weights and optimizer state stay as they are."""
        device = self._images.device
        torch.cuda.synchronize(device)
        before = torch.cuda.current_stream(device)
        try:
            # The device too: torch records on the current one, which may be another than the trial's.
            with torch.cuda.device(device), torch.cuda.graph(graph, stream=_capture_stream(device)):
                return take(self._images, self._labels, self._parameters)
        finally:
            # Where ending the recording fails, torch leaves its stream the current one.
            torch.cuda.set_stream(before)


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings on a device: cuBLAS keeps a workspace for each stream."""
    return torch.cuda.Stream(device)
