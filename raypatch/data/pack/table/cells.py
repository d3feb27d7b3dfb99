"""What the cells of a table say of labels: one class, several labels, uncertain ones, gaps."""

from collections import Counter
from collections.abc import Mapping, Sequence

from raypatch.data.layout.archive import DataError
from raypatch.words import agree, counted, first_of

Label = str | tuple[int, ...] | None
NO_LABEL = "no finding"
"""What ChestX-ray14 writes where none of its labels holds."""

_GAPS = {"", "nan", "na", "n/a", "none", "null", "?"}
_YES = {"1", "1.0", "true", "yes", "y"}
_NO = {"0", "0.0", "false", "no", "n"}
_UNCERTAIN = {"-1", "-1.0"}


def is_gap(cell: str) -> bool:
    """Whether a cell says nothing."""
    return cell.strip().lower() in _GAPS


def read_labels(
    rows: Sequence[Mapping[str, str]], column: str | None, uncertain: str | None, notes: list[str]
) -> tuple[list[Label], tuple[str, ...]]:
    """Return the label of each row, None where it has none, and the names of labels that go together.

    column: one, whose cells are classes or several labels joined by |; or several joined by +, with
    0 and 1 in each, gaps being 0; or several joined by /, of which each row has a 1 in one alone,
    its class. uncertain: what -1 beside 0 and 1 means: zero, one, or drop the
    row. What is left out is added to `notes`. Raises DataError.
    """
    if column is None:
        return [None] * len(rows), ()
    if "+" in column and column not in rows[0]:
        names = tuple(column.split("+"))
        cells = [[row[name].strip().lower() for name in names] for row in rows]
        return _several_columns(cells, names, uncertain, notes), names
    if "/" in column and column not in rows[0]:
        return _one_of(rows, column.split("/"), notes), ()
    cells_of_one = [row[column].strip() for row in rows]
    if any("|" in cell for cell in cells_of_one):
        return _joined(cells_of_one, notes)
    return _one_class(cells_of_one, column, uncertain, notes), ()


def _several_columns(
    cells: Sequence[Sequence[str]], names: Sequence[str], uncertain: str | None, notes: list[str]
) -> list[Label]:
    labels: list[Label] = []
    counts: Counter[str] = Counter()
    for row in cells:
        values: list[int | None] = []
        for name, cell in zip(names, row, strict=True):
            if cell in _UNCERTAIN:
                counts["uncertain"] += 1
                values.append(_decide(uncertain, name))
            elif cell in _YES:
                values.append(1)
            elif cell in _NO or is_gap(cell):
                counts["gaps"] += is_gap(cell)
                values.append(0)
            else:
                raise DataError(f"the label column {name} holds {cell!r}; labels that go together are 0 or 1")
        known = [value for value in values if value is not None]
        labels.append(tuple(known) if len(known) == len(values) else None)
    dropped = labels.count(None)
    if counts["uncertain"]:
        notes.append(f"{counted(counts['uncertain'], 'uncertain label')} (-1): --uncertain {uncertain}")
    if counts["gaps"]:
        are = agree(counts["gaps"], "is", "are")
        notes.append(f"{counted(counts['gaps'], 'gap')} in label columns {are} taken as 0")
    if dropped:
        notes.append(_left_out(dropped, "with an uncertain label"))
    return labels


def _one_of(rows: Sequence[Mapping[str, str]], names: Sequence[str], notes: list[str]) -> list[Label]:
    """The column that holds 1, as ISIC writes classes; a row without any has no label."""
    labels: list[Label] = []
    for row in rows:
        held = [name for name in names if row[name].strip().lower() in _YES]
        if len(held) > 1:
            raise DataError(
                f"a row has 1 in {first_of(held)}, which exclude each other;"
                " join the columns with + where they go together"
            )
        labels.append(held[0] if held else None)
    if labels.count(None):
        notes.append(_left_out(labels.count(None), "without a label"))
    return labels


def _left_out(rows: int, which: str) -> str:
    return f"{counted(rows, 'row')} {which} {agree(rows, 'is', 'are')} left out"


def _decide(uncertain: str | None, column: str) -> int | None:
    """What -1 becomes; None drops the row."""
    if uncertain is None:
        raise DataError(
            f"the label column {column} holds -1, uncertain: say what that means with --uncertain zero, one or drop"
        )
    return {"zero": 0, "one": 1, "drop": None}[uncertain]


def _joined(cells: Sequence[str], notes: list[str]) -> tuple[list[Label], tuple[str, ...]]:
    """Cells such as Cardiomegaly|Effusion."""
    parts = [[part.strip() for part in cell.split("|") if not is_gap(part)] for cell in cells]
    names = tuple(sorted({part for row in parts for part in row if part.lower() != NO_LABEL}))
    labels: list[Label] = []
    for row in parts:
        labels.append(tuple(int(name in row) for name in names) if row else None)
    if labels.count(None):
        notes.append(_left_out(labels.count(None), "without a label"))
    return labels, names


def _one_class(cells: Sequence[str], column: str, uncertain: str | None, notes: list[str]) -> list[Label]:
    said = {cell.lower() for cell in cells if not is_gap(cell)}
    # 0, 1 and -1: a finding that may be uncertain, as in CheXpert.
    may_be_uncertain = bool(said & _UNCERTAIN) and said <= _UNCERTAIN | _YES | _NO
    labels: list[Label] = []
    gaps = dropped = 0
    for cell in cells:
        if is_gap(cell):
            gaps += 1
            labels.append(None)
        elif may_be_uncertain and cell in _UNCERTAIN:
            value = _decide(uncertain, column)
            dropped += value is None
            labels.append(None if value is None else str(value))
        else:
            labels.append(_plain_number(cell))
    if gaps:
        notes.append(_left_out(gaps, f"without a label in {column}"))
    if dropped:
        notes.append(_left_out(dropped, "with an uncertain label"))
    classes = sorted({str(label) for label in labels if label is not None})
    if len(classes) < 2:
        raise DataError(f"the label column {column} holds {first_of(classes) or 'nothing'}; two classes are needed")
    return labels


def _plain_number(cell: str) -> str:
    """1.0 as 1, which gaps in a column of whole numbers turn to it; anything else as it is."""
    head, _, tail = cell.partition(".")
    is_whole = head.lstrip("-").isdecimal() and tail.strip("0") == ""
    return head if is_whole and tail else cell
