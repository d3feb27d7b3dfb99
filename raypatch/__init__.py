"""raypatch: which patch size, model or method suits small medical images, what does it cost,
is the difference real?

In Python as on the command line: `raypatch.run`, `resume`, `load`, `report`; see raypatch.api.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raypatch.api import load as load
    from raypatch.api import report as report
    from raypatch.api import resume as resume
    from raypatch.api import run as run

__version__ = "0.1.0"
__all__ = ["load", "report", "resume", "run"]


def __getattr__(name: str) -> Any:
    """Import raypatch.api once something of it is asked for: `import raypatch` itself stays light."""
    if name in __all__:
        return getattr(importlib.import_module("raypatch.api"), name)
    raise AttributeError(f"module 'raypatch' has no attribute {name!r}")
