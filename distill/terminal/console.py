"""What a person sees: progress bars, one-line errors, exit status."""

import io
import os
import re
import select
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as ProgressBars
from rich.text import Text

from pseudo_labels.errors import PocketiqaError, RenamedWarning, install_command, read_renamed, system_words
from pseudo_labels.files import explain_write_errors
from pseudo_labels.parallel import Progress

# Control characters (C0, DEL, C1), line and paragraph ends, marks that turn the direction of text, and surrogates,
# which stand for bytes that are not UTF-8. In names of files they could rewrite the screen, or hide what is printed.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF  # PEP 383: the byte is the low half
_PIPE_WIDTH = 100_000  # columns; a table in a pipe or file is as wide as its content


def shown(text: str) -> str:
    r"""Text on one line of a terminal, with control characters as escapes such as ``\x1b``."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if _FIRST_BYTE <= number <= _LAST_BYTE:
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


class _PlainConsole(Console):
    """Prints text as it is: no markup, no emoji names, control characters escaped, and whole tables into pipes."""

    def __init__(self, *, stderr: bool = False, file: IO[str] | None = None):
        # Soft wrap: rich would break long lines, and with them paths that are to be copied.
        super().__init__(stderr=stderr, file=file, markup=False, emoji=False, highlight=False, soft_wrap=True)

    @property
    def size(self) -> ConsoleDimensions:
        # The variable COLUMNS says nothing of a pipe: GNU readline exports 80 to every process that a shell of Python
        # starts, and tables would be folded there.
        if self.is_terminal:
            return super().size
        return ConsoleDimensions(_PIPE_WIDTH, super().size.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def render_str(self, text: str, **options: Any) -> Text:
        # Line ends are of our own making here; those in names are escaped by ``shown`` before.
        return super().render_str("\n".join(map(shown, text.split("\n"))), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        with explain_write_errors(Path("standard error" if self.stderr else "standard output")):
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        # The reader of our output (head, less) has read enough; work that was asked for goes on without it.
        self.quiet = True
        _discard(self.file)


# Results go to standard output; progress and errors to standard error, so that pipes stay clean.
out = _PlainConsole()
err = _PlainConsole(stderr=True)


def as_text(renderable: RenderableType) -> str:
    """What a table looks like in a file: never cut or folded."""
    file = io.StringIO()
    _PlainConsole(file=file).print(renderable)
    return file.getvalue()


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
# Packages of the extra ``teachers``, by the name that Python imports; all others are in ``train``.
_OF_TEACHERS = frozenset({"piq", "diffusers", "transformers", "segment_anything"})
# What torch and ONNX Runtime say, which raise no MemoryError.
_NO_MEMORY = re.compile(
    "can(not|'t) allocate memory|out of memory|bad_alloc|failed to (allocate memory|map segment)", re.I
)

# Speed is that of the last minutes: of slow steps, half a minute would hold none.
_SPEED_PERIOD_S = 300.0
# Into a log file goes a line a minute in place of a bar, which only a terminal can move.
_LINE_EVERY_S = 60.0


class _Speed(ProgressColumn):
    """Units of work a second, such as training steps."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed_words(speed)}/s", style="progress.data.speed")


def speed_words(speed: float) -> str:
    """A number a second with two digits that mean something: ``120``, ``4.2``, ``0.046``."""
    return f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"


@contextmanager
def progress(title: str, *, visible: bool = True) -> Iterator[Progress]:
    """Show one bar for a long step; yields the ``(done, total)`` callback that moves it."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    lines = _Lines(shown(title.strip())) if visible and not err.is_terminal else None
    with ProgressBars(*columns, console=err, disable=not visible, speed_estimate_period=_SPEED_PERIOD_S) as bars:
        task = bars.add_task(shown(title), total=None)

        def report(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)
            if lines is not None:
                lines.report(done, total)

        yield report


class _Lines:
    """Progress as lines of text, for a log file.

    Args:
        title: of the work.
        clock: seconds, from any beginning.
    """

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic):
        self._title, self._clock = title, clock
        self._total, self._first_done = -1, 0
        self._first_s = self._last_s = clock()

    def report(self, done: int, total: int) -> None:
        """Print how far the work is, how fast and how long it will take, unless that was done a moment ago."""
        now_s = self._clock()
        if total != self._total:  # another part of the work, in other units
            self._total, self._first_done = total, done
            self._first_s = self._last_s = now_s
        if now_s - self._last_s < _LINE_EVERY_S:
            return
        self._last_s = now_s
        speed = (done - self._first_done) / (now_s - self._first_s)
        left = f", {max(total - done, 0) / speed / 60:.0f} min left" if total else ""
        err.print(f"{self._title} {done}/{total or '?'}, {speed_words(speed)}/s{left}", markup=False)


def is_main_process() -> bool:
    """Whether this process speaks for all that ``accelerate launch`` or ``torchrun`` started; true when alone."""
    # The variable that both launchers set; asking torch would mean importing it.
    return int(os.environ.get("RANK") or 0) == 0


def warn(text: str) -> None:
    """Say something the user should know, without stopping."""
    err.print(f"note: {text}", style="yellow")


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any) -> None:
    if issubclass(category, RenamedWarning):
        warn(str(message))
    else:
        _SHOW_WARNING(message, category, *rest)


def _one_line(error: BaseException) -> str:
    # Only line ends are joined: names keep their spaces, and other control characters are escaped when printed.
    return " ".join(filter(None, map(str.strip, str(error).split("\n")))) or type(error).__name__


def run_cli(app: Callable[..., object], argv: list[str]) -> int:
    """Run the command line and turn whatever happens into an exit status and at most one line.

    ``--debug`` anywhere in ``argv`` shows the traceback of an error as well.

    Returns:
        0 for success, 1 for what went wrong, 2 for a command line that cannot be read, 130 after Ctrl-C.
    """
    # Here, for this module also serves code that never starts the command line.
    import typer

    debug = "--debug" in argv
    _prepare_streams()
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
    except (BrokenPipeError, SystemExit) as error:  # Click turns the first into the second
        if _is_broken(sys.stdout):
            # The reader of our output (head, less) has read enough: no error. Python flushes standard output at its end
            # and would complain about it on standard error.
            _discard(sys.stdout)
            return 0
        if not isinstance(error, SystemExit):
            return _fail(_describe(error), 1, debug)
        status = 1 if isinstance(error.code, str) else error.code  # what Typer prints for a shell ends so
    except Exception as error:
        return _fail(_describe(error), _status(error), debug)
    if status == _INTERRUPTED:
        return _fail("interrupted; run the same command again to resume", _INTERRUPTED)
    return _flushed(status if isinstance(status, int) else 0)


def _prepare_streams() -> None:
    """Let names that the terminal's encoding lacks be escaped, and streams that were closed take what is printed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell, as in ``>&-``
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _is_broken(stream: IO[str]) -> bool:
    """Whether the stream is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def _discard(stream: IO[str]) -> None:
    """Send what is still printed to nowhere: the stream is flushed once more when Python ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _flushed(status: int) -> int:
    """The status, unless what was printed cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as error:
        _discard(sys.stdout)
        return _fail(f"standard output cannot be written: {'; '.join(system_words(error))}", 1)
    return status


def _todays_option(word: str) -> str:
    """A word of the command line, with the old name of an option replaced by its new one."""
    name, equals, value = word.partition("=")
    (today,) = read_renamed({name: value}, _RENAMED_OPTIONS)
    return f"{today}{equals}{value}"


def _status(error: Exception) -> int:
    """2 for a usage error of Typer (or of the click that it was built on), as in other programs; else 1."""
    return int(getattr(error, "exit_code", 1)) if hasattr(error, "format_message") else 1


def _describe(error: Exception) -> str:
    # Errors in the use of a command are Click's; known by this method, so that Click need not be imported.
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "pocketiqa"
        return f"{_one_line(Exception(usage())).replace(': Value error, ', ': ')} (see: {command} --help)"
    if isinstance(error, ModuleNotFoundError) and error.name:
        extras = ("train", "teachers") if error.name.partition(".")[0] in _OF_TEACHERS else ("train",)
        return f"this needs the package {error.name!r}, which is not installed: {install_command(*extras)}"
    if isinstance(error, OSError) and error.errno is not None:
        refused, step = system_words(error)
        named = isinstance(error.filename, str | bytes) and error.filename not in (".", b".")
        where = f" at {os.fsdecode(error.filename)}" if named else ""
        return f"{refused}{where}: {step}, then run the same command again"
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and _NO_MEMORY.search(str(error))
    ):
        return "not enough memory: close other programs, or use fewer workers, smaller batches or smaller images"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return (
            "no memory or number left for another thread: use fewer workers, or raise the limits (ulimit -u, ulimit -v)"
        )
    return f"unexpected {type(error).__name__}: {_one_line(error)} (add --debug for the traceback)"


def _fail(message: str, status: int, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    err.print(f"error: {message}", style="red")
    return status
