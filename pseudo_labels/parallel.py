"""Work in several processes, with results in the order of the tasks and only a few of them in flight."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from pseudo_labels.errors import PocketiqaError


def usable_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Task = TypeVar("Task")
Result = TypeVar("Result")

_AHEAD = 4
# The function of this worker process, set once when it starts.
_work: Callable[[Any], Any] | None = None


def in_order(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """Results of ``function`` for each task, in order; with one worker in this process, else in fresh ones.

    Fresh processes (spawn) inherit no thread and no lock, so this works whatever the caller has imported.

    Args:
        function: pickled once for each worker.
        tasks: taken as they are needed.
        workers: at least 1.

    Raises:
        PocketiqaError: a worker died; and whatever ``function`` raises.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    source, waiting = iter(tasks), deque[Future[Result]]()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(function,)) as executor:
        try:
            waiting.extend(executor.submit(_run, task) for task in islice(source, _AHEAD * workers))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(executor.submit(_run, task) for task in islice(source, 1))
        except BrokenProcessPool as error:
            raise PocketiqaError(
                f"one of {workers} worker processes died (out of memory?): what was made so far is kept, "
                "run the same command again with fewer workers"
            ) from error
        finally:
            # What is in work ends first: nobody may still be writing once the caller has heard of an error.
            executor.shutdown(wait=True, cancel_futures=True)


def _begin(function: Callable[[Any], Any]) -> None:
    global _work
    _work = function
    # Ctrl-C reaches every process of the terminal; stopping is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End with the parent, even if it was killed and could tell nobody; a waiting worker would stay for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(task: Any) -> Any:
    if _work is None:
        raise RuntimeError("the worker process was not set up")
    return _work(task)
