"""Which models there are: what timm and torchvision say of each, and how large it is."""

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import timm

from raypatch.models.families import find_family, torchvision_image
from raypatch.models.families.plain_vit import PlainViT
from raypatch.models.families.timm_image import TimmImage, published_parameters, refusal_by_name
from raypatch.models.families.timm_names import architecture_of, choice_of_tag, named_weights, pretrained_source
from raypatch.models.families.timm_sizes import native_size
from raypatch.models.families.torchvision_image import (
    PREFIX,
    TorchvisionImage,
    list_names,
    published_weights,
)

COUNTED = 60
"""Most models whose parameters are counted for a list: each takes a twentieth of a second."""

SMALL_IMAGE = 28
"""The edge at which a model of one's own is shown, pixels."""

KNOWN_NORMALISATIONS: dict[tuple[tuple[float, ...], tuple[float, ...]], str] = {
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "ImageNet",
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "0.5",
    ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)): "CLIP",
}
"""Names of the pairs of mean and standard deviation that most weights expect."""


@dataclass(frozen=True)
class ListedModel:
    """A model under the name of its weights.

    parameters: of the network as it was published, its head included; None where not counted.
    patch_size: whether it takes any; None where not asked. taken: whether the name without a tag
    means these weights. licence: empty where it is not stated.
    """

    name: str
    parameters: int | None
    image_size: int
    patch_size: bool | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    taken: bool

    @property
    def normalisation(self) -> str:
        """Mean and standard deviation in one word, or as numbers."""
        return KNOWN_NORMALISATIONS.get((self.mean, self.std)) or f"{self.mean} {self.std}"


def list_models(pattern: str = "") -> list[ListedModel]:
    """The models whose name has `pattern` in it, or is matched by it where it has a * or a ?.

    Of a short list the parameters are counted, and models that do not fit are left out; of a long
    one a model may be left out later, when it is asked for. Raises ValueError where nothing matches.
    """
    wanted = pattern if set("*?[") & set(pattern) else f"*{pattern}*"
    names = [name for name in _timm_names(wanted) if not refusal_by_name(name)]
    if len(names) <= COUNTED:
        # By architecture: whatever its weights, it is constructed once.
        names = [name for name in names if not refusal_by_name(architecture_of(name), construct=True)]
    listed = [_describe_timm(name, count=len(names) <= COUNTED) for name in names]
    listed += [_describe_torchvision(name) for name in fnmatch.filter(_torchvision_names(), wanted)]
    if not listed:
        raise ValueError(f"no model is called {pattern!r}; give a part of a name, such as resnet or 'vit_small*dino*'")
    return listed


def word_models(listed: Sequence[ListedModel]) -> Iterator[str]:
    """A table of models, one line each."""
    width = max(len(each.name) for each in listed)
    yield f"{'model':{width}}   {'parameters':>12} {'size':>5} {'patch size':10} {'normalisation':13} licence"
    for each in listed:
        counted = "" if each.parameters is None else f"{each.parameters:,}"
        patches = {True: "any", False: "its own", None: ""}[each.patch_size]
        mark = "*" if each.taken else " "
        line = f"{each.name:{width}} {mark} {counted:>12} {each.image_size:>5} {patches:10} {each.normalisation:13}"
        yield f"{line} {each.licence}".rstrip()
    yield f"{len(listed)} models; * is taken where a name has no tag"
    if any(each.parameters is None for each in listed):
        yield f"parameters are counted for up to {COUNTED}: give a part of a name"


def own_size(model: str) -> int | None:
    """The edge of the images that a model's weights were made for; None for one that takes any patch size,
    which has none of its own. Raises ValueError for an unknown model.
    """
    family = find_family(model)
    if isinstance(family, PlainViT):
        return None
    if isinstance(family, TimmImage):
        return native_size(model)
    if isinstance(family, TorchvisionImage):
        family.check_name(model)
        return torchvision_image.native_size(model)
    # What nobody says of a model of one's own.
    return SMALL_IMAGE


def weights_in_words(model: str) -> list[str]:
    """One sentence on which weights a name without a tag means, where there are several."""
    choice = choice_of_tag(model)
    return [choice] if choice else []


def _timm_names(wanted: str) -> list[str]:
    """Every architecture of timm under each tag of its weights; an architecture without any by itself."""
    return fnmatch.filter(timm.list_models(include_tags=True), wanted)


def _torchvision_names() -> list[str]:
    return [PREFIX + name for name in list_names()]


def _describe_timm(name: str, *, count: bool) -> ListedModel:
    source = pretrained_source(name)
    return ListedModel(
        name=name,
        parameters=published_parameters(name) if count else None,
        image_size=native_size(name),
        patch_size=PlainViT().takes(name) if count else None,
        mean=tuple(source.mean),
        std=tuple(source.std),
        licence=source.license or "",
        taken=named_weights(name.partition(".")[0]) == name,
    )


def _describe_torchvision(name: str) -> ListedModel:
    weights = published_weights(name)
    transforms = weights.transforms()
    return ListedModel(
        name=name,
        parameters=int(weights.meta["num_params"]),
        image_size=int(transforms.crop_size[0]),
        patch_size=False,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        licence="",
        taken=True,
    )
