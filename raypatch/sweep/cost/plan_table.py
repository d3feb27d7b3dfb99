"""What a plan costs, as a table and as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from raypatch.factors import field_label
from raypatch.sweep.cost.estimate import PlanRow
from raypatch.words import align_columns, counted


def as_table(rows: Sequence[PlanRow]) -> str:
    """Rows as text, with the sum in hours beneath; the estimates are marked with ~."""
    named = [*rows[0].levels, *rows[0].settings]
    stacks = any(row.cost.stack > 1 for row in rows)
    numbers = ["trials", "tokens", "parameters", "GFLOPs", "micro-batch", "~GiB", "~hours"]
    if stacks:
        numbers.insert(1, "stack")
    table = [["dataset", *map(field_label, named), *numbers]]
    for row in rows:
        names = [row.dataset, *row.levels.values(), *row.settings.values()]
        cells = _number_cells(row)
        if stacks:
            cells.insert(1, str(row.cost.stack))
        table.append(names + cells)
    lines = align_columns(table, left=1 + len(named))
    trials, hours = _total(rows)
    lines.append(f"{counted(trials, 'trial')}, about {hours:.2f} hours")
    passes = sum(row.passes for row in rows)
    if passes:
        through = f"{counted(passes, 'pass', 'passes')} through a frozen backbone among them"
        lines.append(f"{through}, whose features all heads and neighbours share")
    scaled = sum(row.cost.scaled for row in rows)
    if scaled:
        lines.append(f"hours of {scaled} of {len(rows)} rows are scaled, by arithmetic, from other kinds of steps")
    if stacks:
        lines.append("stack: so many seeds train as one model (--stack), whose memory is stated")
    if any(row.cost.checkpointing for row in rows):
        lines.append("* with activation checkpointing")
    return "\n".join(lines)


def _number_cells(row: PlanRow) -> list[str]:
    """The numbers of a row as text, in the order of the table's headings."""
    cost = row.cost
    # A network without tokens has a dash there.
    tokens = "–" if cost.tokens is None else f"{cost.tokens:,}"
    mark = "*" if cost.checkpointing else ""
    return [
        str(row.trials),
        tokens,
        f"{cost.parameters:,}",
        f"{cost.gflops:.4g}",
        f"{cost.micro_batch}{mark}",
        f"{cost.memory_bytes / 2**30:.2f}",
        f"{row.seconds / 3600:.3f}",
    ]


def _total(rows: Sequence[PlanRow]) -> tuple[int, float]:
    """Trials and hours of all rows."""
    trials = sum(row.trials for row in rows)
    return trials, sum(row.seconds for row in rows) / 3600


def as_json(rows: Sequence[PlanRow], **more: object) -> str:
    """Rows and sums as JSON, and what else is to stand beside them."""
    listed: list[dict[str, Any]] = []
    for row in rows:
        content = row.model_dump()
        cost = content.pop("cost")
        cost["seconds_per_trial"] = cost.pop("seconds")
        listed.append(content | cost)
    trials, hours = _total(rows)
    return json.dumps({"rows": listed, "trials": trials, "hours": hours, **more}, indent=1)
