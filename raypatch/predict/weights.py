"""The weights of a finished trial: of one model, or of a head on a backbone that many trials share."""

import torch
from torch import nn

from raypatch.features.head import feature_store
from raypatch.features.store import FeatureStore
from raypatch.machine.runtime import Precision, resolve_device, resolve_precision
from raypatch.methods import FeatureMethod, feature_method
from raypatch.models.attention import choose_attention
from raypatch.models.build import BuiltModel, construct_finished
from raypatch.models.families import find_family
from raypatch.models.heads import bare_model, head_of
from raypatch.models.prepared import PreparedModel, place_model
from raypatch.predict.choose import FinishedTrial
from raypatch.tasks import find_task
from raypatch.training.checkpoints.checkpoint import Tensors, load_tensors


def load_model(member: FinishedTrial) -> nn.Module:
    """Return the trial's model with its best weights, on the CPU.

    Raises ValueError when the weights are damaged or missing, and for a trial that is no network.
    """
    model, head = load_parts(member)
    if head is None:
        return model
    if not list(head.parameters()):
        raise ValueError(
            f"trial {member.result.trial_id} is no network: its method, {member.config.method}, looks new images up"
            " among those of the training; `raypatch predict` does that with the run folder"
        )
    own = head_of(model, find_family(member.config.model))
    own.load_state_dict(head.state_dict())
    return model


def prepare_member(member: FinishedTrial, device_name: str) -> tuple[PreparedModel, nn.Module | None]:
    """Return the trial's model ready to be used, and its head as `load_parts`."""
    device = resolve_device(device_name)
    # torch divides its sums by its threads, which shows in the last bits.
    threads = member.result.provenance.get("threads", "")
    if device.type == "cpu" and threads.isdigit():
        torch.set_num_threads(int(threads))
    means, deviations = find_family(member.config.model).normalisation(member.config)
    precision = resolve_precision(member.result.precision, device)
    model, head = load_parts(member)
    prepared = place_model(member.config, BuiltModel(model, means, deviations), member.model, device, precision)
    if head is None:
        # As in its training, for the same rounding.
        choose_attention(prepared, member.config.batch_size)
    return prepared, head


def load_parts(member: FinishedTrial) -> tuple[nn.Module, nn.Module | None]:
    """Return the trial's model on the CPU, and its head where that was fitted on stored features.

    With such a head, the model has the weights of the backbone alone. Raises ValueError when the
    weights are damaged or missing.
    """
    best = load_tensors(member.paths.best_weights)
    if best is None:
        raise ValueError(f"{member.paths.best_weights} is missing or damaged; remove the trial folder and run it again")
    facts = member.dataset
    outputs = find_task(facts.task).outputs(facts.classes)
    model = construct_finished(member.config, dimensions=facts.dimensions, outputs=outputs).eval()
    method = feature_method(member.config)
    # An earlier version stored the whole model for such a trial too.
    if method is None or best[0].keys() == model.state_dict().keys():
        model.load_state_dict(best[0])
        return model, None
    precision: Precision = "bfloat16" if member.result.precision == "bfloat16" else "float32"
    store = feature_store(member.config, member.paths, precision, dimensions=facts.dimensions)
    # Not strict: the head is another's matter.
    bare_model(model).load_state_dict(store.read_backbone(), strict=False)
    return model, _load_head(member, method, store, best[0], outputs)


def _load_head(
    member: FinishedTrial, method: FeatureMethod, store: FeatureStore, stored: Tensors, outputs: int
) -> nn.Module:
    # What the head starts from does not matter, so that no weights are looked for.
    config = member.config.model_copy(update={"weights": "random"})
    head = method.build_head(config, dimensions=member.dataset.dimensions, outputs=outputs)
    method.restore_head(head, stored, lambda: store.require("train"), outputs)
    return head.eval()
