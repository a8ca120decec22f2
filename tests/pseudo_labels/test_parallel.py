"""Results in order, from one process or several, and what becomes of failures."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.parallel import in_order
from tests.pseudo_labels.distort.rebuild import die_at_three, refuse_at_three, square


@pytest.mark.parametrize("workers", [1, 2])
def test_results_keep_the_order_of_the_tasks(workers: int) -> None:
    assert list(in_order(square, range(10), workers)) == [number * number for number in range(10)]


def test_a_dead_worker_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(PocketiqaError, match=r"one of 2 worker processes died.*fewer workers"):
        list(in_order(die_at_three, range(10), 2))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_comes_after_the_results_before_it(workers: int) -> None:
    results = in_order(refuse_at_three, range(10), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three is refused"):
        next(results)


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
