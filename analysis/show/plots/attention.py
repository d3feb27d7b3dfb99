"""The plot of attention distances: layers across, heads as points."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raypatch.analysis.show.plots.figure import Plot
from raypatch.analysis.show.plots.style import style_of


def attention_plot(distances: pd.DataFrame) -> Plot:
    """Return the plot of every head's distance by layer; distances: as `Explained`, not empty."""
    levels = list(distances["level"].unique())
    data = distances.assign(panel=distances["dataset_label"], place=distances["level"].map(levels.index))
    sizes = " and ".join(str(size) for size in sorted(data["image_size"].unique()))
    return Plot(
        name="attention_distance",
        title="How far attention looks",
        caption=(
            "Mean distance between a patch and what it attends to, in pixels (of volumes voxels) of the model's input"
            f" of {sizes}, over {data['images'].max()} test images at most; each point a head, the lines their mean."
        ),
        data=data,
        draw=draw_attention,
        lines=tuple((level, *style_of(place)) for place, level in enumerate(levels)),
    )


def draw_attention(axes: Axes, data: pd.DataFrame) -> None:
    """Distance against the layer. Columns: place (of the level), layer, head, distance."""
    places = sorted(data["place"].unique())
    for offset, place in enumerate(places):
        own = data[data["place"] == place]
        colour, marker = style_of(int(place))
        # A little beside each other, so that the heads of two levels can be told apart.
        beside = 0.5 * (offset + 0.5) / len(places) - 0.25
        axes.plot(own["layer"] + beside, own["distance"], color=colour, marker=marker, linestyle="none", markersize=3)
        mean = own.groupby("layer")["distance"].mean()
        axes.plot(mean.index + beside, mean, color=colour, linewidth=0.9, alpha=0.7)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer")
    axes.set_ylabel("attention distance, px")
