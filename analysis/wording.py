"""Numbers as people read them: scores, differences, times, p-values; used by sentences, tables and plots."""

import re
from collections.abc import Sequence

import pandas as pd

from raypatch.factors import Factor

UNDEFINED = "–"


def percent(mean: float, spread: float = float("nan")) -> str:
    """Show a score of 0 to 1 in percent, `86.3 ± 1.2`; no spread where it is NaN, a dash where the mean is."""
    if pd.isna(mean):
        return UNDEFINED
    if pd.isna(spread):
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} ± {100 * spread:.1f}"


def score_with_interval(mean: float, spread: float, low: float, high: float) -> str:
    """Show a score of 0 to 1 with its spread over the seeds and its interval, `86.3 ± 1.2 (80.1–90.9)`."""
    shown = percent(mean, spread)
    if pd.isna(low):
        return shown
    return f"{shown} ({100 * low:.1f}–{100 * high:.1f})"


def points(difference: float) -> str:
    """Show a difference of scores in percentage points with its sign, +9.3; one that rounds to nothing has none."""
    if pd.isna(difference):
        return UNDEFINED
    shown = f"{100 * difference:+.1f}"
    if float(shown) == 0:
        return "0.0"
    # The minus sign of print, as wide as the plus.
    return shown.replace("-", "−")


def interval(low: float, high: float) -> str:
    """Show the bounds of a difference of scores in percentage points: +0.9 to +18.5."""
    return UNDEFINED if pd.isna(low) else f"{points(low)} to {points(high)}"


def duration(seconds: float) -> str:
    """Show a time in the unit that suits it: 42 s, 12 min, 5.3 h."""
    if pd.isna(seconds):
        return UNDEFINED
    # From two of a unit on: 90 min says more than 1.5 h.
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{significant(seconds / length, 2)} {unit}"
    return f"{significant(seconds, 2)} s"


def significant(value: float, digits: int = 3) -> str:
    """Show a number with at least so many significant digits, the integer part whole: 0.0868, 9.08, 9815."""
    if pd.isna(value):
        return UNDEFINED
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def p_value(value: float) -> str:
    """Show a p-value: three decimals, `<0.001` below."""
    if pd.isna(value):
        return UNDEFINED
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def p_equals(value: float) -> str:
    """Show a p-value within a sentence: p = 0.012, p < 0.001."""
    shown = p_value(value)
    return f"p < {shown[1:]}" if shown.startswith("<") else f"p = {shown}"


def times(value: float) -> str:
    """Show a ratio with three significant digits: 8.37 times, 72400 times."""
    if pd.isna(value):
        return UNDEFINED
    # Rounded first: `significant` leaves an integer part whole, and 72412 times says more than is known.
    rounded = float(f"{value:.3g}")
    return f"{significant(rounded)} times"


def capitalize(label: str) -> str:
    """Return a label at the start of a sentence; unlike str.capitalize, which would make AUC into Auc."""
    return label[:1].upper() + label[1:]


def plural(label: str) -> str:
    """Return a label in the plural where its last word takes an s: patch sizes; else levels of it."""
    # English endings that take no s, or would read oddly with one: classes, training, resolution, data.
    plain = label.isascii() and " of " not in label and not label.endswith(("s", "ing", "ion", "data"))
    return f"{label}s" if plain else f"levels of {label}"


def list_names(names: Sequence[str]) -> str:
    """Return names one after another, between commas, or semicolons where a name holds a comma itself."""
    has_comma = any("," in name for name in names)
    return ("; " if has_comma else ", ").join(names)


def start_sentence(factor: Factor, level: str) -> str:
    """Return a level at the start of a sentence: with a capital, unless it is a name that is written as it is."""
    phrase = factor.phrase(level)
    return phrase if phrase == level else capitalize(phrase)


def shorten(name: str, length: int = 12) -> str:
    """Return the name, cut to so many characters with an ellipsis."""
    return name if len(name) <= length else name[: length - 1] + "…"


def file_stem(label: str) -> str:
    """Return a label as part of a file's name: 2d_linear_probe."""
    # What is no letter or digit (an underscore is none either) separates words.
    words = re.split(r"[\W_]+", label.lower())
    return "_".join(filter(None, words))
