"""Which family a model belongs to, by its name."""

import difflib
import itertools
from collections.abc import Iterator

from raypatch.models.families.protocol import Family
from raypatch.registry import ADDRESS, Registry

FAMILIES: Registry[Family] = Registry(
    "model family",
    Family,
    group="raypatch.families",
    shipped={
        "plain_vit": "raypatch.models.families.plain_vit:PlainViT",
        "torchvision_image": "raypatch.models.families.torchvision_image:TorchvisionImage",
        # After the plain ones: it takes whatever else timm has.
        "timm_image": "raypatch.models.families.timm_image:TimmImage",
    },
)

EXAMPLES = (
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "deit_small_patch16_224",
)


def find_family(model: str) -> Family:
    """Return the family of a model: of module:NAME that one, else the first that takes the name.

    Raises ValueError with near names for a model that no family takes.
    """
    if ADDRESS.fullmatch(model):
        return FAMILIES.find(model)
    # The shipped ones first, and those of other packages where none of these takes it: to ask what is
    # installed reads every package's metadata.
    for name in itertools.chain(FAMILIES.shipped, _other_families()):
        family = FAMILIES.find(name)
        if family.takes(model):
            return family
    raise _refused(model)


def _other_families() -> Iterator[str]:
    """The families of other packages, asked for when the first one is needed."""
    for name in FAMILIES.names():
        if name not in FAMILIES.shipped:
            yield name


def _refused(model: str) -> ValueError:
    # Here, and not above: timm takes a second, and this is asked for a wrong name alone.
    import timm

    architecture = model.partition(".")[0]
    known = timm.list_models()
    # A name that was cut short, such as vit_base, is none that is close by spelling.
    near = [name for name in known if name.startswith(architecture)][:3]
    near = near or difflib.get_close_matches(architecture, known, n=3) or list(EXAMPLES)
    return ValueError(f"unknown model {model!r}: did you mean {', '.join(near)}? `raypatch models` lists what fits")


def unfit(model: str, patch_size: int) -> ValueError:
    """What is said of a patch size for a model that cannot vary it."""
    return ValueError(
        f"model {model} cannot take any patch size: that needs a plain Vision Transformer"
        " with one convolution as patch embedding, learned absolute positions and one head."
        " timm's vit_* and deit* are such, but for hybrid, relative-position, rotary and"
        f" distilled ones: {', '.join(EXAMPLES)} ... Leave patch_size={patch_size} out, or use one of these"
    )
