"""The options of `raypatch data pack`: how images are read, what their table says, how they are split."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from raypatch.cli.options.texts import split_commas


@dataclass(frozen=True)
class Reading:
    """How images are brought to one size and 256 levels."""

    size: Annotated[
        int | None,
        typer.Option(help="Edge in pixels or voxels; default the images' own, else 224 or 64.", show_default=False),
    ] = None
    shape: Annotated[
        Literal["pad", "squeeze"], typer.Option(help="Keep the aspect and pad with black, or squeeze.")
    ] = "pad"
    intensity: Annotated[
        str | None,
        typer.Option(
            help="display, window:LOW,HIGH or percentile:LOW,HIGH; default by modality and type.", show_default=False
        ),
    ] = None
    channels: Annotated[int | None, typer.Option(help="1 grey or 3 RGB, where they differ.", show_default=False)] = None
    dimensions: Annotated[
        int | None,
        typer.Option(help="2: each DICOM file a picture; 3: each series a volume.", show_default=False),
    ] = None
    spacing: Annotated[
        float | None,
        typer.Option(help="Millimetres per voxel for all; default each fills the size.", show_default=False),
    ] = None
    frame: Annotated[
        int | None, typer.Option(help="Which volume, time or frame of several, from 0.", show_default=False)
    ] = None
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out what is missing or cannot be read, and list it.")
    ] = False

    def settings(self) -> dict[str, Any]:
        """As PackOptions takes them."""
        from raypatch.data.pack import parse_intensity

        _require("--channels", self.channels, (1, 3))
        _require("--dimensions", self.dimensions, (2, 3))
        return dataclasses.asdict(self) | {"intensity": parse_intensity(self.intensity)}


@dataclass(frozen=True)
class Labelling:
    """What is true of the images."""

    columns: Annotated[
        str | None,
        typer.Option(
            help="Of a table: image=A,label=B,patient=C,split=D,mask=E; label=A+B for several, - for none.",
            show_default=False,
        ),
    ] = None
    uncertain: Annotated[
        str | None, typer.Option(help="What a label of -1 means: zero, one or drop.", show_default=False)
    ] = None
    ordinal: Annotated[bool, typer.Option("--ordinal", help="Classes are grades, ordered by name.")] = False
    mirror_safe: Annotated[bool, typer.Option("--mirror-safe", help="A mirror image keeps its label.")] = False

    def settings(self) -> dict[str, Any]:
        """As PackOptions takes them."""
        from raypatch.data.pack import parse_columns

        return dataclasses.asdict(self) | {"columns": parse_columns(self.columns)}


@dataclass(frozen=True)
class Splitting:
    """Which image goes to train, val or test."""

    split: Annotated[
        Literal["auto", "given", "mended", "patient", "image"],
        typer.Option(help="As given, with torn patients mended, or dealt anew by patient or image."),
    ] = "auto"
    shares: Annotated[str, typer.Option(help="Of train, val and test.")] = ".7,.1,.2"
    folds: Annotated[
        int,
        typer.Option(help="Folds for cross-validation; --set fold=0,1,... runs them, the one after the test as val."),
    ] = 0
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0

    def settings(self) -> dict[str, Any]:
        """As PackOptions takes them."""
        return dataclasses.asdict(self) | {"shares": _shares(self.shares)}


def _require(option: str, value: int | None, known: tuple[int, int]) -> None:
    if value is not None and value not in known:
        raise ValueError(f"{option} {value} must be {known[0]} or {known[1]}")


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, val, test = map(float, split_commas(text))
    except ValueError as error:
        raise ValueError(f"--shares {text!r} must be three numbers whose sum is 1, such as .7,.1,.2") from error
    return train, val, test
