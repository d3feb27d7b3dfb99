"""Tables of what was published beside what was found."""

from collections.abc import Hashable, Sequence
from typing import Any

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.published import Published, compare_published
from raypatch.analysis.show.tables.table import Row, Table, text_cells
from raypatch.analysis.wording import percent, points
from raypatch.factors import field_heading


def published_tables(findings: Findings) -> list[Table]:
    """Return a table for each published one and metric that has cells in common with ours."""
    tables = []
    for number, published in enumerate(compare_published(findings), 1):
        if not published.why_not:
            tables.append(_published_table(published, number))
    return tables


def published_notes(findings: Findings) -> list[str]:
    """Say which published tables could not be compared, and why."""
    notes = []
    for published in compare_published(findings):
        if published.why_not:
            notes.append(f"Not compared with {published.source} ({published.metric}): {published.why_not}.")
    return notes


def _published_table(published: Published, number: int) -> Table:
    cells = published.cells
    blocks = []
    for _, block in cells.groupby("dataset", sort=False):
        rows = [_row(record, published.keys) for record in block.to_dict("records")]
        blocks.append(tuple(rows))
    headings = map(field_heading, published.keys)
    difference = cells["difference"]
    return Table(
        name=f"published_{number}",
        title=f"{published.says}: {published.metric}",
        columns=("Dataset", *headings, "Published", "Here", "Seeds", "Difference"),
        blocks=tuple(blocks),
        labels=1 + len(published.keys),
        note=(
            f"Source: {published.source}. Percent on the test split; here the mean ± standard deviation over seeds;"
            f" difference in percentage points, here less published. {len(cells)} of {published.total} published cells"
            f" have a counterpart here: mean difference {points(difference.mean())}, mean size of a difference"
            f" {percent(difference.abs().mean())} points."
        ),
        data=cells,
    )


def _row(record: dict[Hashable, Any], keys: Sequence[str]) -> Row:
    names = [record["dataset_label"], *(record[key] for key in keys)]
    scores = [percent(record["published"]), percent(record["ours"], record["std"])]
    return text_cells([*names, *scores, record["seeds"], points(record["difference"])])
