"""Batches made ahead of time by one background thread."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Batch = TypeVar("Batch")


@contextmanager
def prefetched(make: Callable[[int], Batch], start: int, stop: int, depth: int = 3) -> Iterator[Iterator[Batch]]:
    """Make batches ``start`` to ``stop`` in a background thread, at most ``depth`` ahead; errors come in their turn."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def offer(item: Batch | BaseException) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for number in range(start, stop):
                if not offer(make(number)):
                    return
        except BaseException as error:  # noqa: BLE001, RUF100 - whatever it was belongs to the consumer
            offer(error)

    def consume() -> Iterator[Batch]:
        for _ in range(start, stop):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=work, name="pocketiqa-batches", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stopped.set()
        thread.join()
