"""Work that tests run in other processes; a module of its own, so that they can import it."""

import os
import time
from pathlib import Path

from pseudo_labels.distort import build_synthetic_pool
from pseudo_labels.parallel import in_order
from pseudo_labels.pool import Pool


def rebuild(pool: str, out: str) -> None:
    """The synthetic pool that a test kills and resumes."""
    build_synthetic_pool(Pool.open(Path(pool)), Path(out), per_image=3, names=["all"], seed=4, max_side=80)


def square(number: int) -> int:
    """Slower for small numbers, so that results come out of order."""
    time.sleep(0.002 * max(10 - number, 0))
    return number * number


def die_at_three(number: int) -> int:
    """A worker that the system kills."""
    if number == 3:
        os._exit(9)
    return number


def refuse_at_three(number: int) -> int:
    """A worker whose task fails."""
    if number == 3:
        raise ValueError("three is refused")
    return number


def own_process(number: int) -> int:
    """The number of the worker process, after long enough that another task goes to another worker."""
    time.sleep(0.5)
    return os.getpid()


def main() -> None:
    """Say which processes work, then keep them waiting."""
    seen: set[int] = set()
    for process in in_order(own_process, range(1000), 2, processes=True):
        if process not in seen:
            print(process, flush=True)
        seen.add(process)


if __name__ == "__main__":
    main()
