"""Device, precision, processes and threads of a training run."""

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, LoggerType

from distill.recipe.training import LoopSettings
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.parallel import usable_cores
from students.runtime import MOST_BYTES, keep_freed_memory
from teachers.launch import leave_group_at_exit

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Whether the program was asked to end.

    Attributes:
        wish: name of the first signal that came; empty before.
    """

    def __init__(self) -> None:
        self.wish = ""


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Catch the first SIGTERM or SIGINT; a second one acts as it did before.

    Outside the main thread, where Python sets no handlers, nothing is caught.
    """
    asked = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            # None: set by a program in C; it cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, _: FrameType | None) -> None:
        asked.wish = signal.Signals(number).name
        restore()

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        restore()


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


# The main process may decode a large pool while the others wait; one that dies does not leave them waiting.
_PATIENCE = timedelta(hours=12)


@contextmanager
def training_environment(config: LoopSettings, trackers: Path) -> Iterator[Accelerator]:
    """An Accelerator, the run's own threads and random numbers; all as it was before, afterwards.

    Args:
        config: settings of the run.
        trackers: folder of trackers that write files.

    Raises:
        PocketiqaError: an unknown tracker, or a precision or device that this machine does not have.
    """
    with _accelerator_of(config, trackers) as accelerator, _threads_of(config, accelerator):
        devices = [accelerator.device] if accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            yield accelerator


@contextmanager
def _accelerator_of(config: LoopSettings, trackers: Path) -> Iterator[Accelerator]:
    """An Accelerator for one run, whose settings are forgotten afterwards."""
    known = [str(kind) for kind in LoggerType if kind != LoggerType.ALL]
    if config.tracker not in ("none", *known):
        raise PocketiqaError(f"tracker {config.tracker!r} is unknown: choose none or one of {', '.join(sorted(known))}")
    try:
        accelerator = Accelerator(
            # Explicit where there is no GPU: otherwise several processes would not form one group.
            cpu=config.device == "cpu" or not torch.accelerator.is_available(),
            mixed_precision=config.mixed_precision,
            gradient_accumulation_steps=config.accumulation_steps,
            log_with=None if config.tracker == "none" else config.tracker,
            project_dir=trackers,
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False),
                InitProcessGroupKwargs(timeout=_PATIENCE),
            ],
        )
    except (ValueError, ImportError) as error:
        raise PocketiqaError(f"Accelerate cannot set up this run: {error}") from error
    leave_group_at_exit()
    try:
        if config.mixed_precision == "fp16" and accelerator.device.type == "cpu":
            raise PocketiqaError("mixed_precision 'fp16' needs a GPU: choose 'bf16' or 'no' on this machine")
        yield accelerator
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        # Accelerate keeps precision and accumulation for the life of the process; the next run may want others.
        AcceleratorState._reset_state()


@contextmanager
def _threads_of(config: LoopSettings, accelerator: Accelerator) -> Iterator[None]:
    """Divide the cores among the processes of this machine while training on the CPU."""
    before = torch.get_num_threads()
    if accelerator.device.type == "cpu":
        # The next step needs as much as this one.
        keep_freed_memory(MOST_BYTES, MOST_BYTES)
        torch.set_num_threads(config.threads or _fraction_of_cores(accelerator))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fraction_of_cores(accelerator: Accelerator) -> int:
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or accelerator.num_processes)
    # Launchers set the variable to 1 for each of several processes by themselves; for a single one, the user set it.
    asked = os.environ.get("OMP_NUM_THREADS", "") if here == 1 else ""
    return int(asked) if asked.isdigit() and int(asked) > 0 else max(1, usable_cores() // here)
