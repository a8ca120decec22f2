"""One run in a process of its own: its memory can be measured, and what kills it does not kill the study."""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from distill.recipe.recipe import Recipe
from distill.study.run import walk_run
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import write_atomic

FAILURE = "failure.txt"


@dataclass(frozen=True)
class RunOrder:
    """The work of one process.

    Attributes:
        recipe: recipe of the run as JSON values; its ``out`` is the run's folder.
        shared: folder of the outputs that several runs use.
        command: command line that repeats the run.
        overwrite: redo stages whose settings or inputs changed.
    """

    recipe: dict[str, Any]
    shared: str
    command: str
    overwrite: bool

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path(self.recipe["out"])


def run_apart(order: RunOrder) -> str:
    """Walk a run in a process of its own and wait for it.

    The process is forked from one that has imported all modules and done nothing else (where the system can fork), so
    that it has no threads to inherit and starts at once.

    Returns:
        Why it failed, in one line; empty if it is done.
    """
    # An old failure must not be told as that of this try.
    (order.folder / FAILURE).unlink(missing_ok=True)
    process = _process(order)
    process.start()
    process.join()
    if process.exitcode == 0:
        return ""
    # A process that was killed could not write why: the signal is all that is known.
    if process.exitcode is not None and process.exitcode < 0:
        name = signal.Signals(-process.exitcode).name
        _write(order.folder, f"its process was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}")
    return read_failure(order.folder) or "its process ended without a message"


def read_failure(folder: Path) -> str:
    """Why a run failed when it was last tried; empty if it did not."""
    with contextlib.suppress(OSError):
        # The first line is the reason; the traceback follows.
        return (folder / FAILURE).read_text(encoding="utf-8").partition("\n")[0]
    return ""


def _write(folder: Path, words: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / FAILURE, words.encode())


def _process(order: RunOrder) -> BaseProcess:
    name = order.recipe["name"]
    # The server that processes are forked from may be older than today's environment variables.
    arguments = (order, dict(os.environ))
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn").Process(target=_begin, args=arguments, name=name)
    context = multiprocessing.get_context("forkserver")
    # torch and the rest are imported once, by the server, and not again for each run.
    context.set_forkserver_preload([walk_run.__module__])
    return context.Process(target=_begin, args=arguments, name=name)


def _begin(order: RunOrder, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    # A daemon, or its waiting would keep this process alive after its work.
    threading.Thread(target=_follow_parent, daemon=True).start()
    recipe = Recipe.model_validate(order.recipe)
    try:
        walk_run(recipe, Path(order.shared), order.command, overwrite=order.overwrite)
    except KeyboardInterrupt:  # the study gets the same signal and reports it
        raise SystemExit(130) from None
    except Exception as error:  # whatever it was, the study continues with the next run
        _write_failure(order.folder, error)
        raise SystemExit(1) from None


def _write_failure(folder: Path, error: Exception) -> None:
    # One line, as ``read_failure`` takes the first line for the whole reason.
    words = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, PocketiqaError):
        words = f"unexpected {type(error).__name__}: {words} (traceback in {folder / FAILURE})"
    _write(folder, f"{words}\n\n{traceback.format_exc()}")


def _follow_parent() -> None:
    """End with the study, even if it was killed without a signal to us: when it is started again it resumes the run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # Not sys.exit, which would end this thread alone. What was committed is whole, so nothing needs tidying up.
        os._exit(1)
