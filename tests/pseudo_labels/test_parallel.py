"""Results in order, from one process or several, and what becomes of failures."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.parallel import in_order
from tests.pseudo_labels.distort.rebuild import die_at_three, refuse_at_three, square


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_keep_the_order_of_the_tasks(workers: int) -> None:
    assert list(in_order(square, range(10), workers, processes=True)) == [number * number for number in range(10)]


def test_a_dead_worker_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(PocketiqaError, match=r"one of 2 worker processes died.*fewer workers"):
        list(in_order(die_at_three, range(10), 2, processes=True))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_error_of_a_task_comes_after_the_results_before_it(workers: int) -> None:
    results = in_order(refuse_at_three, range(10), workers, processes=True)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three is refused"):
        next(results)


def test_threads_keep_the_order_and_only_a_few_items_are_taken_ahead() -> None:
    taken: list[int] = []
    results = in_order(square, (taken.append(number) or number for number in range(50)), 2, ahead=3)
    assert next(results) == 0
    assert len(taken) <= 4
    assert list(results) == [number * number for number in range(1, 50)]


def test_large_items_wait_until_there_is_room_for_them() -> None:
    taken: list[int] = []
    results = in_order(
        square, (taken.append(number) or number for number in range(9)), 2, size=lambda _: 10, size_ahead=20
    )
    assert next(results) == 0
    assert len(taken) == 3  # two in work, and the one that found no room
    assert list(in_order(square, [7], 1, size=lambda _: 10, size_ahead=5)) == [49]  # a lone large one is let through


def test_a_caller_that_stops_early_cancels_what_has_not_begun() -> None:
    done: list[int] = []
    gate = threading.Event()

    def work(number: int) -> int:
        gate.wait(10)
        done.append(number)
        return number

    results = in_order(work, range(100), 1, ahead=8)
    gate.set()
    assert next(results) == 0
    results.close()
    assert len(done) < 12


def test_workers_end_with_a_parent_that_was_killed() -> None:
    """SIGKILL lets the parent tell nobody; the workers must see it themselves, though one of them is waiting."""
    command = [sys.executable, "-m", "tests.pseudo_labels.distort.rebuild"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(_is_alive(worker) for worker in workers)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(_is_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_is_alive(worker) for worker in workers)


def _is_alive(process: int) -> bool:
    """Neither gone nor a zombie that nobody has reaped."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
