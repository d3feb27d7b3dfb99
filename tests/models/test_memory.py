"""Memory estimates: against what a run on made-up tensors allocates, and the micro-batches that follow from them."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raypatch.config import TrialConfig
from raypatch.data.batches.resize import held_size
from raypatch.data.catalog import DatasetInfo, dataset_info
from raypatch.data.source import describe
from raypatch.machine.runtime import Precision
from raypatch.methods import find_method
from raypatch.models.build import construct
from raypatch.models.families import find_family
from raypatch.models.flops import model_facts
from raypatch.models.memory import (
    CONTEXT_BYTES,
    LIBRARY_BYTES,
    WORKSPACES,
    available_bytes,
    choose_micro_batch,
    is_recorded,
    peak_bytes,
    training_bytes,
)
from raypatch.models.prepared import PreparedModel, evaluation_batch
from raypatch.tasks import find_task
from raypatch.training.evaluate import mask_logits
from raypatch.training.mask_loss import make_mask_loss
from raypatch.training.optim import make_optimizer
from raypatch.training.steps import step

BLOCK = 512
"""Bytes to which torch's CUDA allocator rounds."""


class Allocated(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self._live:
                storage = leaf.untyped_storage()
                self._live[storage._cdata] = -(-storage.nbytes() // BLOCK) * BLOCK
                self.now += self._live[storage._cdata]
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._release, storage._cdata)
        return out

    def _release(self, key: int) -> None:
        self.now -= self._live.pop(key)


def _allocated(
    config: TrialConfig, info: DatasetInfo, precision: Precision, *, micro_batch: int, checkpointing: bool
) -> int:
    """Peak bytes of two steps and an evaluation: the program's own code on tensors that have sizes and no values."""
    task = find_task(config.task or "multiclass")
    outputs = task.outputs(info.classes)
    facts = model_facts(config, dimensions=info.dimensions, outputs=outputs)
    method = find_method(config.method)
    with torch.device("meta"):
        model = construct(config, dimensions=info.dimensions, outputs=outputs)
    with FakeTensorMode(allow_non_fake_inputs=True), Allocated() as allocated:
        model.to_empty(device="cpu")
        if checkpointing:
            model.set_grad_checkpointing(True)
        held = held_size(info.size, config.image_size, config.resize)
        shape = (info.channels, *(held,) * info.dimensions)
        splits = [torch.empty(count, *shape, dtype=torch.uint8) for count in info.counts]
        masks = [torch.empty(count, info.size, info.size, dtype=torch.uint8) for count in info.counts]
        if task.reads == "labels":
            masks.clear()
        mean = std = torch.empty(3)
        family, cpu = find_family(config.model), torch.device("cpu")
        prepared = PreparedModel(
            model,
            family,
            facts,
            mean=mean,
            std=std,
            device=cpu,
            precision=precision,
            image_size=config.image_size,
            resize=config.resize,
        )
        method.prepare(prepared)
        train = step.TrainingStep(
            prepared,
            make_optimizer(model, config, prepared.head),
            task.loss if task.reads == "labels" else make_mask_loss(config.mask_loss, task),
            config,
            micro_batch=micro_batch,
        )
        for _ in range(2):
            method.set_training_mode(prepared)
            parameters = (
                torch.empty(config.batch_size, 10)
                if info.dimensions == 2
                else torch.empty(config.batch_size, 4, dtype=torch.int64)
            )
            labels = masks[0][: config.batch_size] if masks else torch.empty(config.batch_size, dtype=torch.int64)
            train(splits[0][: config.batch_size], labels, parameters)
            images = max(splits[1:], key=len)[: 2 * evaluation_batch(facts.tokens, config.image_size**info.dimensions)]
            for _ in mask_logits(prepared, images, info.size) if masks else [prepared.logits(images)]:
                pass
    return allocated.peak


@pytest.mark.parametrize(
    ("dataset", "patch_size", "precision", "micro_batch", "checkpointing", "fields"),
    [
        ("derma", 28, "bfloat16", 8, False, {}),
        ("derma", 14, "float32", 8, False, {}),
        ("derma", 7, "bfloat16", 8, False, {"optimizer": "sgd"}),
        ("derma", 4, "bfloat16", 2, False, {}),
        ("derma", 1, "bfloat16", 8, False, {}),
        ("path", 14, "bfloat16", 8, False, {}),
        ("derma", 7, "bfloat16", 8, False, {"model": "vit_base_patch16_224"}),
        ("derma", 4, "float32", 8, False, {"method": "linear_probe"}),
        ("derma", 14, "float32", 8, False, {"image_size": 112, "resize": "bicubic", "clip_norm": 1.0}),
        ("derma", 14, "float32", 8, False, {"image_size": 112, "resize": "pad_mean", "head_lr": 1e-2}),
        ("adrenal", 28, "bfloat16", 8, False, {}),
        ("adrenal", 28, "float32", 4, False, {}),
        ("organ3d", 14, "float32", 8, False, {}),
        ("adrenal", 7, "bfloat16", 8, False, {}),
        ("adrenal", 4, "float32", 8, False, {}),
        ("adrenal", 2, "bfloat16", 8, False, {}),
        ("adrenal", 2, "bfloat16", 8, True, {}),
    ],
)
def test_estimate_is_never_under_what_is_allocated_and_at_most_a_quarter_over(
    dataset: str,
    patch_size: int,
    precision: Precision,
    micro_batch: int,
    checkpointing: bool,
    fields: dict[str, Any],
) -> None:
    """The program's own code on tensors without values, which also fails if a step or an evaluation looks at one.

    With what a CUDA device's libraries take.
    """
    config = TrialConfig(dataset=dataset, patch_size=patch_size, **fields)
    info = dataset_info(dataset)
    how = {"micro_batch": micro_batch, "checkpointing": checkpointing}
    facts = model_facts(config, dimensions=info.dimensions, outputs=len(info.classes))
    estimated = peak_bytes(config, info, facts, precision, **how)
    allocated = _allocated(config, info, precision, **how) + WORKSPACES * LIBRARY_BYTES
    assert allocated <= estimated <= 1.25 * allocated


@pytest.mark.parametrize(
    ("model", "precision"),
    [("resnet18", "float32"), ("resnet18", "bfloat16"), ("test_convnext", "bfloat16"), ("test_mambaout", "float32")],
)
def test_networks_whose_memory_is_measured_are_allocated_as_estimated(model: str, precision: Precision) -> None:
    fields = {"image_size": 64, "batch_size": 16, "weights": "random"}
    config = TrialConfig(dataset="breast", model=model, **fields)
    info = dataset_info("breast")
    facts = model_facts(config, dimensions=2, outputs=2)
    how = {"micro_batch": 16, "checkpointing": False}
    allocated = _allocated(config, info, precision, **how) + WORKSPACES * LIBRARY_BYTES
    assert allocated <= peak_bytes(config, info, facts, precision, **how) <= 1.4 * allocated


@pytest.mark.parametrize(
    ("fields", "precision"),
    [
        ({"model": "deit_tiny_patch16_224", "patch_size": 8}, "bfloat16"),
        ({"model": "deit_tiny_patch16_224", "patch_size": 16, "image_size": 224}, "float32"),
        ({"model": "test_vit", "patch_size": 4}, "float32"),
        ({"model": "resnet18", "output_stride": 8}, "bfloat16"),
        ({"model": "resnet18", "batch_size": 4}, "float32"),
    ],
)
def test_masks_and_their_head_are_allocated_as_estimated(fields: dict[str, Any], precision: Precision) -> None:
    config = TrialConfig.model_validate(
        {"dataset": "phantom2d", "task": "segmentation", "weights": "random", "image_size": 64, "mask_loss": "both"}
        | fields
    )
    info = replace(describe("phantom2d", masks=True), size=128, counts=(40, 40, 40))
    facts = model_facts(config, dimensions=2, outputs=1)
    how = {"micro_batch": config.batch_size, "checkpointing": False}
    allocated = _allocated(config, info, precision, **how) + LIBRARY_BYTES
    assert allocated <= peak_bytes(config, info, facts, precision, **how) <= 1.6 * allocated


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_volume_of_patch_1_is_allocated_as_estimated(checkpointing: bool) -> None:
    config = TrialConfig(dataset="vessel", patch_size=1, batch_size=2)
    info = dataset_info("vessel")
    facts = model_facts(config, dimensions=3, outputs=2)
    how = {"micro_batch": 1, "checkpointing": checkpointing}
    allocated = _allocated(config, info, "bfloat16", **how) + WORKSPACES * LIBRARY_BYTES
    assert allocated <= peak_bytes(config, info, facts, "bfloat16", **how) <= 1.25 * allocated
    assert allocated < 23 * 2**30


@pytest.mark.parametrize(
    ("dataset", "patch_size", "reserved"),
    [
        ("derma", 28, 704),
        ("derma", 7, 892),
        ("derma", 4, 928),
        ("derma", 1, 3118),
        ("adrenal", 28, 1254),
        ("adrenal", 14, 840),
        ("adrenal", 4, 1632),
        ("adrenal", 2, 4520),
        ("vessel", 1, 30272),
    ],
)
def test_the_plan_covers_what_torchs_allocator_reserves(dataset: str, patch_size: int, reserved: int) -> None:
    """MiB that torch 2.14's own allocator reserved for steps, a short batch and an evaluation, recording included, on
    a CUDA runtime whose kernels do nothing.
    """
    config = TrialConfig(dataset=dataset, patch_size=patch_size)
    info = dataset_info(dataset)
    facts = model_facts(config, dimensions=info.dimensions, outputs=len(info.classes))
    recorded = is_recorded(config, facts, config.batch_size)
    planned = peak_bytes(config, info, facts, "bfloat16", micro_batch=config.batch_size, recorded=recorded)
    assert reserved <= planned / 2**20 <= 1.25 * reserved


def test_long_steps_and_those_of_several_passes_are_not_recorded() -> None:
    found = []
    for dataset, patch_size, micro_batch in (("derma", 1, 8), ("derma", 1, 4), ("adrenal", 2, 8)):
        config = TrialConfig(dataset=dataset, patch_size=patch_size)
        facts = model_facts(config, dimensions=dataset_info(dataset).dimensions, outputs=2)
        found.append(is_recorded(config, facts, micro_batch))
    assert found == [True, False, False]


def test_a_trial_plans_with_its_share_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beside it may have taken nothing yet; what others hold is not free all the same."""
    gib = 2**30
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (79 * gib, 80 * gib))
    assert available_bytes(device) == 79 * gib
    assert available_bytes(device, 0.25) == 20 * gib - CONTEXT_BYTES
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * gib, 80 * gib))
    assert available_bytes(device, 0.25) == 5 * gib


def test_a_volume_of_patch_1_trains_on_a_24_gb_card() -> None:
    config = TrialConfig(dataset="vessel", patch_size=1)
    facts = model_facts(config, dimensions=3, outputs=2)
    micro_batch, checkpointing = choose_micro_batch(config, facts, "bfloat16", 23 * 2**30)
    assert micro_batch >= 1
    assert training_bytes(config, facts, "bfloat16", micro_batch=micro_batch, checkpointing=checkpointing) < 23 * 2**30


def test_less_memory_halves_the_micro_batch_and_at_last_checkpoints() -> None:
    config = TrialConfig(dataset="vessel", patch_size=1)
    facts = model_facts(config, dimensions=3, outputs=2)
    found = [choose_micro_batch(config, facts, "bfloat16", gib * 2**30) for gib in (80, 40, 16, 4, 2, 0)]
    assert found == sorted(found, key=lambda each: (each[1], -each[0]))
    assert found[0] == (8, False)
    assert found[-1] == (1, True)


def test_enlarged_images_are_held_in_the_size_of_their_file() -> None:
    config = TrialConfig(dataset="derma", patch_size=56, image_size=224)
    facts = model_facts(config, dimensions=2, outputs=7)
    few, many = (replace(dataset_info("derma"), counts=(count, 10, 10)) for count in (10, 1_000_010))
    peaks = [peak_bytes(config, info, facts, "float32", micro_batch=8) for info in (few, many)]
    assert peaks[1] - peaks[0] == 1_000_000 * 3 * 28**2
