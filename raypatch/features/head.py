"""A trial on stored features: its head is the model, and features stand in for images."""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.batches.resident import ResidentSplit, device_has_room, load_resident, used_rows
from raypatch.data.catalog import DatasetInfo, Split
from raypatch.data.source import load_labels
from raypatch.features.extract import extract_features
from raypatch.features.identity import backbone_key, feature_fields, feature_key
from raypatch.features.store import FeatureStore
from raypatch.machine.runtime import Precision, resolve_device, resolve_precision
from raypatch.methods import FeatureMethod
from raypatch.models.build import BuiltModel
from raypatch.models.flops import count_outputs, model_facts
from raypatch.models.heads import bare_model, feature_kind
from raypatch.models.prepared import PreparedModel, place_model, prepare_model
from raypatch.models.weights import without_head
from raypatch.results import TrialPaths
from raypatch.training.loop import Interrupted

logger = logging.getLogger(__name__)

VALUES_PER_BATCH = 2**24
"""Numbers of one evaluation batch of features: enough to fill a device."""


@dataclass(frozen=True)
class PreparedHead(PreparedModel):
    """A head on stored features (N, ...), which it takes as a whole model takes images.

    model: the head. precision: float32, in which heads work, as they cost next to nothing.
    features_in: the precision of the pass that made the features.
    """

    features_in: Precision = "float32"

    @property
    def head(self) -> nn.Module:
        return self.model

    @property
    def stated_precision(self) -> Precision:
        return self.features_in

    def inputs(self, images: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Leave features as they are."""
        return images

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, outputs) float32 on the device of features (N, ...), batch by batch."""
        self.model.eval()
        rows = max(1, VALUES_PER_BATCH // math.prod(images.shape[1:]))
        logits = [self.model(part.to(self.device)).float() for part in images.split(rows)]
        return torch.cat(logits)


def place_head(head: nn.Module, prepared: PreparedModel) -> PreparedHead:
    """Bring a head to where the model is that makes its features."""
    return PreparedHead(
        model=head.to(prepared.device),
        family=prepared.family,
        facts=prepared.facts,
        mean=prepared.mean,
        std=prepared.std,
        device=prepared.device,
        precision="float32",
        image_size=prepared.image_size,
        features_in=prepared.precision,
    )


@dataclass(frozen=True)
class FeatureSplit(ResidentSplit):
    """Features of the images that a trial sees, float32 (N, ...), in the place of images.

    whole: those of all images of the split, which trials with other shares and seeds have too.
    """

    whole: Tensor


@dataclass
class FeatureSource:
    """The features of trials that share them and have heads of one kind: read from the store, or made and stored.

    config: of one of these trials. should_stop: asked before every batch of a pass.
    """

    config: TrialConfig
    options: RunOptions
    info: DatasetInfo
    store: FeatureStore
    should_stop: Callable[[], bool]
    _loaded: dict[Split, Tensor] = field(default_factory=dict)
    _heads: dict[int, nn.Module] = field(default_factory=dict)
    _backbone: PreparedModel | None = None

    @property
    def device(self) -> torch.device:
        return resolve_device(self.options.device)

    @property
    def precision(self) -> Precision:
        return resolve_precision(self.config.precision, self.device)

    def load(self, config: TrialConfig, split: Split) -> FeatureSplit:
        """Return a split as a trial sees it. Raises Interrupted when asked to stop."""
        options = self.options
        labels = load_labels(config.source, split, fold=config.fold, data_dir=options.data_dir, files=options.files)
        index = torch.from_numpy(used_rows(config, split, labels))
        whole = self._whole(split)
        chosen = torch.from_numpy(labels)[index].to(whole.device)
        features = whole if len(index) == len(whole) else whole[index.to(whole.device)]
        return FeatureSplit(features, chosen, index, self.device, whole)

    def prepare_head(self, method: FeatureMethod, config: TrialConfig) -> PreparedHead:
        """Build the head of a trial where its features are; the backbone is not needed for that."""
        info = self.info
        outputs = count_outputs(config, info)
        # Trials of one seed start from the same head, which random backbones take seconds to draw.
        if config.seed not in self._heads:
            self._heads[config.seed] = method.build_head(config, dimensions=info.dimensions, outputs=outputs)
        head = copy.deepcopy(self._heads[config.seed])
        facts = model_facts(config, dimensions=info.dimensions, outputs=outputs)
        absent = BuiltModel(nn.Identity(), mean=(0.0,), std=(1.0,))
        return place_head(head, place_model(config, absent, facts, self.device, self.precision))

    def forget_backbone(self) -> None:
        """Free the backbone's memory: the passes that are needed now are done."""
        self._backbone = None

    def _whole(self, split: Split) -> Tensor:
        """The features of all images of a split, on the device if there is room."""
        if split not in self._loaded:
            features = self._read_or_make(split)
            if device_has_room(self.device, features.nbytes):
                features = features.to(self.device)
            self._loaded[split] = features
        return self._loaded[split]

    def _read_or_make(self, split: Split) -> Tensor:
        found = self.store.read(split)
        if found is not None:
            return found
        with self.store.locked():
            # Another worker may have made them while this one waited.
            found = self.store.read(split)
            if found is None:
                self._make(split)
                found = self.store.read(split)
        assert found is not None, "made under the lock"
        return found

    def _make(self, split: Split) -> None:
        """Pass all images of a split through the backbone, and store what comes."""
        whole = self.config.model_copy(update={"train_fraction": 1.0})
        if self._backbone is None:
            self._backbone = prepare_model(whole, self.info, self.options)
            body, family = bare_model(self._backbone.model), self._backbone.family
            self.store.keep_backbone(without_head(body.state_dict(), family.head_name(body)))
        images = load_resident(whole, split, self.info, self.options, self.device).images
        started = time.perf_counter()
        parts = extract_features(self._backbone, images, feature_kind(whole), self._stop_if_asked)
        self.store.write(split, parts, len(images))
        seconds = time.perf_counter() - started
        self.store.describe(feature_fields(whole, self.precision), split, images=len(images), seconds=seconds)
        logger.info("features of %s: %d images of %s in %.1f s", self.store.folder.name, len(images), split, seconds)

    def _stop_if_asked(self) -> None:
        if self.should_stop():
            raise Interrupted


def feature_store(config: TrialConfig, paths: TrialPaths, precision: Precision, *, dimensions: int) -> FeatureStore:
    """Return where the features of a trial lie."""
    backbone = f"{backbone_key(config, dimensions=dimensions)}.safetensors"
    return FeatureStore(paths.features / feature_key(config, precision), paths.features / "backbones" / backbone)


def open_source(
    config: TrialConfig,
    paths: TrialPaths,
    options: RunOptions,
    info: DatasetInfo,
    should_stop: Callable[[], bool],
) -> FeatureSource:
    """Return the features that a trial, and all that share them, are fitted on."""
    precision = resolve_precision(config.precision, resolve_device(options.device))
    store = feature_store(config, paths, precision, dimensions=info.dimensions)
    return FeatureSource(config, options, info, store, should_stop)
