"""Commands about models: which there are, and what one costs."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated

import typer

from raypatch.cli import options as cli_options

app = typer.Typer()
MOST_COUNTED_TOKENS = 4096
PATCH_SIZES = "28,14,7,4,2,1"
SMALL_IMAGE = 28


@app.command()
def models(
    pattern: Annotated[
        str,
        typer.Argument(help="Part of a name, or one with * and ?; without it all of them."),
    ] = "",
    json_: cli_options.Json = False,
) -> None:
    """List the models that fit: parameters, native image size, normalisation, licence where it is stated."""
    from raypatch.models.listing import list_models, word_models

    listed = list_models(pattern)
    if json_:
        print(json.dumps([dataclasses.asdict(each) for each in listed], indent=1))
        return
    for line in word_models(listed):
        print(line)


@app.command()
def model(
    name: Annotated[str, typer.Argument(help="A name of timm's, torchvision/NAME, or module:NAME.")],
    patch_size: Annotated[
        str | None,
        typer.Option(help=f"Patch sizes in pixels, by commas; for a plain Vision Transformer {PATCH_SIZES}."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Edge of the image or volume, pixels; default 28 with a patch size, else the model's own."),
    ] = None,
    volumes: Annotated[
        bool,
        typer.Option("--volumes", help="For 3D volumes instead of 2D images."),
    ] = False,
    classes: Annotated[int, typer.Option(min=1, help="Outputs of the head.")] = 2,
    count: Annotated[
        bool,
        typer.Option("--count", help="Also count with fvcore, up to 4096 tokens."),
    ] = False,
) -> None:
    """Show what a model costs, at each patch size: tokens, parameters, GFLOPs per image."""
    from raypatch.config import make_config
    from raypatch.models.build import build_model
    from raypatch.models.flops import count_with_fvcore, model_facts
    from raypatch.models.listing import own_size, weights_in_words

    # A trial needs some dataset: any of these dimensions will do.
    dimensions, dataset = (3, "phantom3d") if volumes else (2, "phantom2d")
    native = own_size(name)
    patches: Sequence[str | None] = [None]
    if patch_size is not None or native is None:
        patches = (patch_size or PATCH_SIZES).split(",")
    lines = []
    for patch in patches:
        fields = {
            "patch_size": patch,
            "model": name,
            "image_size": image_size or (native if patch is None else SMALL_IMAGE),
            "dataset": dataset,
            "weights": "random",
        }
        config = make_config(fields)
        facts = model_facts(config, dimensions=dimensions, outputs=classes)
        tokens = "–" if facts.tokens is None else f"{facts.tokens:,}"
        line = f"{patch or '–':>5} {tokens:>7} {facts.parameters:12,} {facts.gflops:10.4g}"
        line += f" {facts.gflops_without_attention:18.4g}"
        # fvcore runs the model: with more tokens that takes minutes, and all of the memory.
        if count and (facts.tokens or 0) <= MOST_COUNTED_TOKENS:
            built = build_model(config, dimensions=dimensions, outputs=classes, files={})
            shape = (3, *(config.image_size,) * dimensions)
            line += f" {count_with_fvcore(built.model, shape):10.4g}"
        lines.append(line)
    heading = f"{'patch':>5} {'tokens':>7} {'parameters':>12} {'GFLOPs':>10} {'without attention':>18}"
    if count:
        heading += f" {'by fvcore':>10}"
    print("\n".join([heading, *lines, *weights_in_words(name)]))
