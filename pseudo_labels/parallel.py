"""The ordered worker pool of the project: threads or processes, results in order, a bounded number in work."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from pseudo_labels.errors import PocketiqaError

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Told how much of a longer work is done, and how much there is in total, in the unit of that work."""
InOrder = Callable[[Callable[[Any], Any], Iterable[Any]], Generator[Any, None, None]]
"""Something that does as ``in_order``: function and items in, results in the order of the items out."""
Cluster = Callable[[], AbstractContextManager[InOrder]]
"""Other machines: connects to them, or raises, and gives what works on them while it is entered."""
# The function of this worker process, set once when it starts.
_work: Callable[[Any], Any] | None = None


def usable_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    *,
    ahead: int | None = None,
    processes: bool = False,
    size: Callable[[Item], int] | None = None,
    size_ahead: int = 0,
) -> Generator[Result, None, None]:
    """Results of ``function`` for each item, in the order of the items, with a bounded number in work or waiting.

    Closing the generator, or an error, cancels what has not begun and waits for what has: nobody is still writing once
    the caller goes on.

    Args:
        function: what is done; with ``processes`` it is pickled once for each worker.
        items: taken one by one, as room becomes free.
        workers: threads or processes; 0 works in the caller's own thread.
        ahead: most results in work or waiting to be taken; None is four a worker.
        processes: fresh processes (spawn), which inherit no thread and no lock, in place of threads.
        size: gives the size of an item, in any unit; with it, items are also held back while more than ``size_ahead``
            would be in work or waiting. A single larger item is let through.
        size_ahead: see ``size``.

    Raises:
        PocketiqaError: a worker process died; and whatever ``function`` raises.
    """
    if workers == 0:
        yield from map(function, items)
        return
    executor = _process_pool(workers, function) if processes else ThreadPoolExecutor(workers, "pocketiqa-worker")
    work = _run if processes else function
    most = 4 * workers if ahead is None else ahead
    waiting, size_waiting = deque[tuple[int, Future[Result]]](), 0
    try:
        for item in items:
            item_size = size(item) if size else 0
            while waiting and (len(waiting) >= most or (size and size_waiting + item_size > size_ahead)):
                # From the front alone: a slow item makes finished ones wait, but the order stays and memory is bounded.
                done_size, future = waiting.popleft()
                size_waiting -= done_size
                yield future.result()
            waiting.append((item_size, executor.submit(work, item)))
            size_waiting += item_size
        while waiting:
            yield waiting.popleft()[1].result()
    except BrokenProcessPool as error:
        raise PocketiqaError(
            f"one of {workers} worker processes died (out of memory?): what was made so far is kept, "
            "run the same command again with fewer workers"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _process_pool(workers: int, function: Callable[[Any], Any]) -> ProcessPoolExecutor:
    # Not ``fork``: the child would have copies of locks that threads of the parent hold, which nobody in it ever
    # releases.
    context = multiprocessing.get_context("spawn")
    # As ``initargs`` the function is sent once to each worker; with each task, a large one would travel again and
    # again.
    return ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(function,))


def _begin(function: Callable[[Any], Any]) -> None:
    global _work
    _work = function
    # Ctrl-C reaches every process of the terminal; stopping is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A daemon, so that it does not keep a worker alive that has nothing left to do.
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End with the parent, even if it was killed and could tell nobody; a waiting worker would stay for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # Not ``sys.exit``, which would end only this thread.
        os._exit(1)


def _run(task: Any) -> Any:
    if _work is None:
        raise RuntimeError("the worker process was not set up")
    return _work(task)
