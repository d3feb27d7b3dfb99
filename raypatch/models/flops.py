"""What a trial's model costs: its family's facts, and fvcore's count for comparison."""

import math
import warnings
from typing import Any

import torch
from torch import nn

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.data.source import describe
from raypatch.models.build import architecture_key, construct
from raypatch.models.families import find_family
from raypatch.results import ModelFacts
from raypatch.tasks import find_task

_KNOWN: dict[tuple[object, ...], ModelFacts] = {}
"""Facts by architecture, dimensions and outputs:
a sweep asks for the same ones for each of its trials.
"""


def model_facts(config: TrialConfig, *, dimensions: int, outputs: int) -> ModelFacts:
    """Return the cost of the config's model without its weights or memory for them.

    Raises ValueError as construct.
    """
    key = (*architecture_key(config), dimensions, outputs)
    if key not in _KNOWN:
        with torch.device("meta"):
            model = construct(config, dimensions=dimensions, outputs=outputs)
        _KNOWN[key] = find_family(config.model).facts(model, config, dimensions=dimensions)
    return _KNOWN[key]


def trial_facts(config: TrialConfig, options: RunOptions) -> tuple[DatasetInfo, ModelFacts]:
    """What is known of a trial's dataset and of its model.

    Raises ValueError as describe and construct.
    """
    info = describe(config.source, data_dir=options.data_dir, files=options.files)
    outputs = count_outputs(config, info)
    return info, model_facts(config, dimensions=info.dimensions, outputs=outputs)


def count_outputs(config: TrialConfig, info: DatasetInfo) -> int:
    """How many logits a trial's model gives, which its task says."""
    return find_task(config.task or info.task).outputs(info.classes)


def count_with_fvcore(model: nn.Module, image: tuple[int, ...]) -> float:
    """Return 2 x multiply-accumulates in 1e9 as fvcore counts them in one forward pass over an
    image (3, *spatial).

    fvcore knows no scaled_dot_product_attention, which is added here, and counts five per element
    of a layer norm, which is no product and left out. The model is run, so this takes its time and
    memory, unlike the formula.
    """
    with warnings.catch_warnings():
        # fvcore stands on TorchScript, which newer versions of torch call deprecated at every use.
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, torch.zeros(1, *image))
        analysis.set_op_handle("aten::scaled_dot_product_attention", _count_attention)
        # It would warn of every operation that it leaves out.
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        counts = analysis.by_operator()
    return 2e-9 * float(counts.total() - counts["layer_norm"])


def _count_attention(inputs: list[Any], _outputs: list[Any]) -> int:
    """Multiply-accumulates of attention by the traced query (B, heads, N, d),
    key (B, heads, M, d) and value.
    """
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    pairs = math.prod(query[:-1]) * key[-2]
    return int(pairs * (query[-1] + value[-1]))
