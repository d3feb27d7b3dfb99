"""Names that are safe as folder names."""

import re

LONGEST_NAME = 64


def check_name(name: str) -> str:
    """Return a run name that is safe as a folder name. Raises ValueError for path characters."""
    if len(name) > LONGEST_NAME or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(
            f"name {name!r} must be letters, digits, '.', '_', '-', at most {LONGEST_NAME},"
            " starting with one of the first two"
        )
    return name
