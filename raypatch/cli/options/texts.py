"""How the text of an option is read. Each raises ValueError, with the option's name, for a wrong one."""

from typing import Any, Literal


def split_commas(text: str) -> list[str]:
    """Return the parts of a list by commas, without empty ones."""
    parts = map(str.strip, text.split(","))
    return [part for part in parts if part]


def read_seeds(text: str) -> list[Any]:
    """Return the seeds of `0,3,7` or `0-4`. Raises ValueError for a range that runs backwards."""
    seeds: list[Any] = []
    for part in split_commas(text):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and last.isdecimal()):
            # A single seed. What is no number at all is refused with the other fields.
            seeds.append(part)
            continue
        if int(first) > int(last):
            raise ValueError(f"--seed {part!r} runs backwards; write it as {last}-{first}")
        seeds += range(int(first), int(last) + 1)
    return seeds


def metric_of(text: str) -> str:
    """Read --metric. Raises ValueError for a score of the test split."""
    if not text.startswith("val_"):
        rule = "must be val_loss or val_ and a metric; the test set never chooses"
        raise ValueError(f"--metric {text!r} {rule}")
    return text


def micro_batch_of(text: str) -> int | Literal["auto"]:
    """Read --micro-batch. Raises ValueError."""
    if text == "auto":
        return "auto"
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"--micro-batch {text!r} must be auto or a number of at least 1")
    return int(text)


def stack_of(text: str) -> int | Literal["auto", "off"]:
    """Read --stack. Raises ValueError."""
    if text == "auto":
        return "auto"
    if text == "off":
        return "off"
    if not text.isdigit() or int(text) < 2:
        raise ValueError(f"--stack {text!r} must be auto, off or a number of at least 2")
    return int(text)


def seconds_of(text: str | None) -> float | None:
    """Read a time such as 90s, 30m, 8h or 1.5d; plain numbers are seconds. Raises ValueError."""
    if text is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    factor = units.get(text[-1:])
    number = text if factor is None else text[:-1]
    try:
        seconds = float(number) * (factor or 1)
    except ValueError:
        # No number: refused below, with the times that are not positive.
        seconds = -1.0
    # float reads inf and nan too.
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--time-limit {text!r} must be a positive time such as 90s, 30m or 8h")
    return seconds
