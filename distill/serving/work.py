"""How many requests a server has in work: bounded, so that memory and waiting are, and refused beyond that."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeVar

Result = TypeVar("Result")


class BusyError(Exception):
    """All places are taken: the caller should try again later."""


class Place:
    """A place of one request; it is given back when the request has ended and its last job too.

    A job that has begun cannot be stopped. One that outlives its request, as after a time limit, keeps the place, or a
    client that gives up and tries again could pile up work without end.
    """

    def __init__(self, threads: ThreadPoolExecutor):
        self._threads = threads
        self.job: Future[object] | None = None

    async def run(self, function: Callable[[], Result], seconds: float) -> Result:
        """Run a function in one of the threads and wait for it.

        Raises:
            TimeoutError: it was not done in time, the wait for a thread included.
        """
        job = self._threads.submit(function)
        self.job = job  # type: ignore[assignment]
        return await asyncio.wait_for(asyncio.wrap_future(job), seconds)


class Work:
    """Threads that score, and places for requests.

    Args:
        workers: number of threads.
        queue: number of further requests that may wait for one; a request that waits holds its body in memory.
    """

    def __init__(self, workers: int, queue: int):
        self.places = workers + queue
        self._workers = workers
        self._threads: ThreadPoolExecutor | None = None
        # Counted in the event loop's thread alone.
        self._taken = 0

    @property
    def taken(self) -> int:
        """Places that are taken now."""
        return self._taken

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have threads; at the end what is in work is waited for, and what only waits is dropped."""
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="score")
        try:
            yield
        finally:
            self._threads.shutdown(cancel_futures=True)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """Take a place, before the body of the request is read.

        Raises:
            BusyError: there is none.
        """
        assert self._threads is not None  # the server is running
        if self._taken >= self.places:
            raise BusyError
        self._taken += 1
        place = Place(self._threads)
        try:
            yield place
        finally:
            self._leave(place)

    def _leave(self, place: Place) -> None:
        if place.job is None or place.job.done():
            self._taken -= 1
            return
        loop = asyncio.get_running_loop()

        def ended(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed: the server has ended
                loop.call_soon_threadsafe(self._give_back)

        place.job.add_done_callback(ended)

    def _give_back(self) -> None:
        self._taken -= 1
