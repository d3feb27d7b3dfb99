"""Text for terminals that show ASCII alone, as with LC_ALL=C: readable, and never a UnicodeEncodeError."""

import codecs
import os
import sys
import unicodedata

PLAIN = {
    **{"±": "+-", "–": "-", "−": "-", "—": "-", "×": "x", "→": "->", "≤": "<=", "≥": ">=", "·": "*"},
    # One letter for one: rich has made a column as wide as it can be before it cuts a name.
    **{"…": "~", "†": "!", "“": '"', "”": '"', "‘": "'", "’": "'", "α": "alpha", "χ": "chi", "ß": "ss"},
}


def plain(text: str) -> str:
    """Return `text` in ASCII: signs by their usual stand-ins, letters without accents, ? for the rest."""
    shown = []
    for character in text:
        # Compatible forms are letters and marks of their own: š is s and a caron, ² is 2.
        bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        shown.append(PLAIN.get(character, bare or "?"))
    return "".join(shown)


def fit_terminal() -> None:
    """Let what is printed fit what the terminal shows: ASCII under LC_ALL=C, else what its encoding has."""
    codecs.register_error("raypatch-plain", _replace)
    # Python writes UTF-8 there, which such a terminal shows as garbage; PYTHONIOENCODING says otherwise.
    ascii_only = os.environ.get("LC_ALL") in ("C", "POSIX") and "PYTHONIOENCODING" not in os.environ
    for stream in (sys.stdout, sys.stderr):
        # A notebook or a test may have put something else in their place.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="ascii" if ascii_only else None, errors="raypatch-plain")


def _replace(error: UnicodeError) -> tuple[str, int]:
    """What a codec writes for the characters that it lacks, and where it goes on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end
