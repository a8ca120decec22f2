"""What a person sees: progress bars, one-line errors, exit status."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars

from pseudo_labels.errors import PocketiqaError, RenamedWarning, read_renamed
from pseudo_labels.parallel import Progress

# Results go to standard output; progress and errors to standard error, so that pipes stay clean.
# Soft wrap: rich would break long lines, and with them paths that are to be copied.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

# Old names of options, which are read in this release only.
_RENAMED_OPTIONS = {
    "--near-distance": "--near-duplicate-distance",
    "--max-bad-share": "--max-bad-fraction",
    "--max-failed-share": "--max-failed-fraction",
}

# Kept from the start: ``run_cli`` puts its own in this place.
_SHOW_WARNING = warnings.showwarning

# What Typer returns for Ctrl-C, without a word.
_INTERRUPTED = 130


@contextmanager
def progress(title: str, *, visible: bool = True) -> Iterator[Progress]:
    """Show one bar for a long step; yields the ``(done, total)`` callback that moves it."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with ProgressBars(*columns, console=err, disable=not visible) as bars:
        task = bars.add_task(title, total=None)

        def report(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield report


def is_main_process() -> bool:
    """Whether this process speaks for all that ``accelerate launch`` or ``torchrun`` started; true when alone."""
    # The variable that both launchers set; asking torch would mean importing it.
    return int(os.environ.get("RANK") or 0) == 0


def warn(text: str) -> None:
    """Say something the user should know, without stopping."""
    err.print(f"note: {text}", style="yellow", markup=False)


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any) -> None:
    if issubclass(category, RenamedWarning):
        warn(str(message))
    else:
        _SHOW_WARNING(message, category, *rest)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def run_cli(app: Callable[..., object], argv: list[str]) -> int:
    """Run the command line and turn whatever happens into an exit status and at most one line.

    ``--debug`` anywhere in ``argv`` shows the traceback of an error as well.
    """
    # Here, for this module also serves code that never starts the command line.
    import typer

    debug = "--debug" in argv
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            arguments = [_todays_option(word) for word in argv if word != "--debug"]
            # Without a word, the help is the answer and no error.
            # Not standalone: Typer would print errors in its own form and end the process.
            status = app(args=arguments or ["--help"], prog_name="pocketiqa", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except PocketiqaError as error:
        return _fail(_one_line(error), 1, debug)
    except BrokenPipeError:
        # The reader of our output (head, less) has seen enough. Python flushes standard output at its end and would
        # complain about it on standard error.
        sys.stderr.close()
        return 1
    except Exception as error:
        return _fail(_describe(error), 1, debug)
    if status == _INTERRUPTED:
        return _fail("interrupted; run the same command again to resume", _INTERRUPTED)
    return status if isinstance(status, int) else 0


def _todays_option(word: str) -> str:
    """A word of the command line, with the old name of an option replaced by its new one."""
    name, equals, value = word.partition("=")
    (today,) = read_renamed({name: value}, _RENAMED_OPTIONS)
    return f"{today}{equals}{value}"


def _describe(error: Exception) -> str:
    # Errors in the use of a command are Click's; known by this method, so that Click need not be imported.
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "pocketiqa"
        return f"{_one_line(Exception(usage()))} (see: {command} --help)"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"this needs the package {error.name!r}, which is not installed: "
            "install pocketiqa[train], or pocketiqa[all] for every teacher"
        )
    return f"unexpected {type(error).__name__}: {_one_line(error)} (add --debug for the traceback)"


def _fail(message: str, status: int, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    err.print(f"error: {message}", style="red", markup=False)
    return status
