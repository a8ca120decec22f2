"""Places and threads: how many are in work, and when a place is given back."""

import asyncio
import threading
import time

import pytest

from distill.serving.work import BusyError, Work


def test_places_are_taken_and_given_back():
    async def scenario() -> None:
        work = Work(workers=1, queue=1)
        with work.running():
            async with work.place() as first, work.place():
                assert work.taken == work.places == 2
                with pytest.raises(BusyError):
                    async with work.place():
                        pass
                assert await first.run(lambda: 6 * 7, 5) == 42
            assert work.taken == 0

    asyncio.run(scenario())


def test_a_place_whose_job_outlives_its_request_is_kept():
    async def scenario() -> None:
        work, opened = Work(workers=1, queue=0), threading.Event()
        with work.running():
            with pytest.raises(TimeoutError):
                async with work.place() as place:
                    await place.run(lambda: opened.wait(10), 0.05)
            assert work.taken == 1
            opened.set()
            deadline = time.monotonic() + 10
            while work.taken and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            assert work.taken == 0

    asyncio.run(scenario())


def test_an_error_of_a_job_is_that_of_the_request():
    async def scenario() -> None:
        work = Work(workers=1, queue=0)
        with work.running(), pytest.raises(ZeroDivisionError):
            async with work.place() as place:
                await place.run(lambda: 1 // 0, 5)
        assert work.taken == 0

    asyncio.run(scenario())
