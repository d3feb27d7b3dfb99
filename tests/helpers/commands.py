"""What a test of the command line gets to run commands with."""

from collections.abc import Callable

Command = Callable[..., tuple[int, str, str]]
"""A command's words -> its exit code, output and errors."""
