"""What a trial's model costs: its family's facts, and fvcore's count for comparison."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.models.build import architecture_key, construct
from raypatch.models.families import find_family
from raypatch.models.heads import HeadedModel, bare_model, feature_shape, head_of
from raypatch.models.mask_head import is_mask_head
from raypatch.results import ModelFacts
from raypatch.tasks import find_task
from raypatch.tasks.seen import describe_seen

_KNOWN: dict[tuple[object, ...], ModelFacts] = {}
"""Facts by architecture, dimensions and outputs:
a sweep asks for the same ones for each of its trials.
"""


_FIRST: dict[tuple[object, ...], "_Counted"] = {}
"""By architecture and dimensions the first model that was counted: datasets differ in the outputs alone."""

_BODIES: dict[ModelFacts, ModelFacts] = {}
"""By the facts of a model under another head those that its family gave it."""

_MASK_HEADS: dict[ModelFacts, tuple[nn.Module, tuple[int, ...]]] = {}
"""By the facts of a model of masks its head, without values, and the shape of what that is given."""


def model_facts(config: TrialConfig, *, dimensions: int, outputs: int) -> ModelFacts:
    """Return the cost of the config's model without its weights or memory for them.

    Raises ValueError as construct.
    """
    key = (*architecture_key(config), dimensions, outputs)
    if key not in _KNOWN:
        first = _FIRST.get(key[:-1])
        if first is None:
            _KNOWN[key] = _count(config, dimensions=dimensions, outputs=outputs)
        else:
            _KNOWN[key] = first.with_outputs(outputs)
    return _KNOWN[key]


def _count(config: TrialConfig, *, dimensions: int, outputs: int) -> ModelFacts:
    """Count a model that is made for this, without values."""
    family = find_family(config.model)
    with torch.device("meta"):
        model = construct(config, dimensions=dimensions, outputs=outputs)
    facts = family.facts(bare_model(model), config, dimensions=dimensions)
    if isinstance(model, HeadedModel):
        return _add_head(facts, model.head, config, dimensions=dimensions, outputs=outputs)
    head = head_of(model, family)
    if isinstance(head, nn.Linear):
        _FIRST[*architecture_key(config), dimensions] = _Counted(facts, head)
    return facts


@dataclass(frozen=True)
class _Counted:
    """A model that was counted with some number of outputs, whose head is one linear layer."""

    facts: ModelFacts
    head: nn.Linear

    def with_outputs(self, outputs: int) -> ModelFacts:
        """The facts of the same model with other outputs: each is a product with every feature, and a bias."""
        more = outputs - self.head.out_features
        width = self.head.in_features
        weights = width if self.head.bias is None else width + 1
        facts = self.facts.model_copy(
            update={
                "parameters": self.facts.parameters + more * weights,
                "gflops": _add_flops(self.facts.gflops, 2 * more * width),
                "gflops_without_attention": _add_flops(self.facts.gflops_without_attention, 2 * more * width),
            }
        )
        # A row of the head more or less changes no memory to speak of: that is measured once.
        _BODIES.setdefault(facts, self.facts)
        return facts


def _add_flops(gflops: float, flops: int) -> float:
    """The sum in 1e9, without the rounding that a sum of large and small floats has."""
    return 1e-9 * (round(1e9 * gflops) + flops)


def _add_head(body: ModelFacts, head: nn.Module, config: TrialConfig, *, dimensions: int, outputs: int) -> ModelFacts:
    """The facts of a body without its own head, and those of another head together."""
    shape = feature_shape(config, find_family(config.model), dimensions=dimensions, outputs=outputs)
    features = torch.zeros(1, *shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        head.to("meta")(features)
    gflops = 1e-9 * counter.get_total_flops()
    facts = body.model_copy(
        update={
            "parameters": body.parameters + sum(parameter.numel() for parameter in head.parameters()),
            "gflops": body.gflops + gflops,
            "gflops_without_attention": body.gflops_without_attention + gflops,
        }
    )
    _BODIES[facts] = body
    if is_mask_head(head):
        _MASK_HEADS[facts] = head, shape
    return facts


def body_facts(facts: ModelFacts) -> ModelFacts:
    """Return what the family counted of a model, whose facts this process made with `model_facts`."""
    return _BODIES.get(facts, facts)


def mask_head_of(facts: ModelFacts) -> tuple[nn.Module, tuple[int, ...]] | None:
    """Return the head of a model of masks, without values, and the shape of one image's features.

    Of facts that this process made with `model_facts`; None for another model.
    """
    return _MASK_HEADS.get(facts)


def trial_facts(config: TrialConfig, options: RunOptions) -> tuple[DatasetInfo, ModelFacts]:
    """What is known of a trial's dataset and of its model.

    Raises ValueError as describe and construct.
    """
    info = describe_seen(config, options)
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
