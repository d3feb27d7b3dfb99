"""Whether a sweep runs in a notebook, where progress and interrupts are another matter than in a terminal."""

import sys


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
