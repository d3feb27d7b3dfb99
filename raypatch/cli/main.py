"""The command line: parse, call one function, print where the result is.

Heavy imports wait until a command needs them, inside its function: --help answers at once.
"""

import errno
import functools
import sys
from typing import Annotated

import typer

import raypatch
from raypatch.cli.commands import data, explaining, folders, models, results, sharing, studies, sweeps
from raypatch.cli.pipes import to_nowhere
from raypatch.cli.plain_text import fit_terminal
from raypatch.machine.environment import prepare_environment
from raypatch.storage.progress import ProgressLines
from raypatch.storage.reading import tell_reading

WRONG_INPUT = 2

# A place that cannot be written to, or a disk or quota that is full: the user can mend these.
PLACE_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"raypatch {raypatch.__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Which patch size, model or method suits small medical images, what does it cost, and is the difference real?

    To begin: `raypatch spaces` lists the studies, `raypatch study NAME` shows one, `raypatch run
    NAME` runs it, `raypatch report runs/NAME` answers. Completion of commands, studies, datasets
    and fields in your shell: `raypatch --install-completion`.
    """


# One list of commands, in the order of use.
for part in (studies.app, sweeps.app, results.app, explaining.app, sharing.app, folders.app, models.app, data.app):
    app.add_typer(part)


def main() -> None:
    """Entry point: a user's mistake is one message and exit code 2, never a traceback."""
    prepare_environment()
    fit_terminal()
    tell_reading(_lines)
    try:
        app()
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        message = _explain_place(error) if isinstance(error, OSError) else str(error)
        if message and isinstance(error, (*_user_errors(), OSError)):
            print(f"raypatch: {message}", file=sys.stderr)
            sys.exit(WRONG_INPUT)
        raise
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # who read it has gone, as `head` does
            to_nowhere(sys.stdout)


def _lines() -> ProgressLines:
    # To stderr: what a command answers may be read by a script.
    return ProgressLines(functools.partial(print, file=sys.stderr, flush=True))


def _explain_place(error: OSError) -> str | None:
    """What is said where a place cannot be written to or is full; None for errors of another kind."""
    if error.errno in PLACE_ERRORS:
        file = error.filename or "a file"
        return f"cannot write to {file}: {error.strerror}; give a place that can be written to"
    if "temporary" in str(error):
        return f"there is no folder for temporary files ({error}); set TMPDIR to one that can be written to"
    return None


def _user_errors() -> tuple[type[Exception], ...]:
    from raypatch.storage.files import LockedError

    return (ValueError, LockedError)
