"""Device, precision, processes and threads of a training run."""

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, LoggerType
from torch import nn

from distill.recipe.training import LoopSettings
from distill.training.distributed import sum_of_ints
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


def check_machine(config: LoopSettings) -> None:
    """Refuse settings that this machine cannot follow.

    Raises:
        PocketiqaError: an unknown tracker, or a precision that needs another device.
    """
    known = [str(kind) for kind in LoggerType if kind != LoggerType.ALL]
    if config.tracker not in ("none", *known):
        raise PocketiqaError(f"tracker {config.tracker!r} is unknown: choose none or one of {', '.join(sorted(known))}")
    if config.mixed_precision == "fp16" and (config.device == "cpu" or not torch.accelerator.is_available()):
        raise PocketiqaError("mixed_precision 'fp16' needs a GPU: choose 'bf16' or 'no' on this machine")


@contextmanager
def _accelerator_of(config: LoopSettings, trackers: Path) -> Iterator[Accelerator]:
    """An Accelerator for one run, whose settings are forgotten afterwards."""
    check_machine(config)
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
    return _asked_for(accelerator) or max(1, usable_cores() // _processes_here(accelerator))


def _processes_here(accelerator: Accelerator) -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE") or accelerator.num_processes)


def _asked_for(accelerator: Accelerator) -> int:
    """The number in OMP_NUM_THREADS, if the user set it; else 0."""
    # Launchers set the variable to 1 for each of several processes by themselves; for a single one, the user set it.
    asked = os.environ.get("OMP_NUM_THREADS", "") if _processes_here(accelerator) == 1 else ""
    return int(asked) if asked.isdigit() else 0


@dataclass(frozen=True)
class ThreadChoice:
    """The CPU threads of a run whose settings name none.

    Attributes:
        number: of threads of each process.
        words: what a person should know of the choice.
    """

    number: int
    words: str


def choose_threads(config: LoopSettings, accelerator: Accelerator, earlier: int | None) -> ThreadChoice | None:
    """Let the machine decide how many threads torch uses from now on: as many as make it faster at this moment.

    A thread that waits for a core keeps all others waiting, many times in each step: on a busy machine, one thread for
    each core is slower than one thread by a factor of ten and more. All processes must call this together.

    Args:
        config: of the run.
        accelerator: of the run.
        earlier: number with which the run began, if it is resumed: another one would round otherwise.

    Returns:
        The number that was set; None where there is nothing to choose: the settings or OMP_NUM_THREADS name a number,
        there is one core, or a GPU computes.
    """
    if accelerator.device.type != "cpu" or config.threads is not None:
        return None
    # The main process decides for all: the others wait here, and do not disturb what it measures.
    choice = _own_choice(accelerator, earlier) if accelerator.is_main_process else None
    number = sum_of_ints(0 if choice is None else choice.number, accelerator.device)
    if number == 0:
        return None
    torch.set_num_threads(number)
    return choice or ThreadChoice(number, "")


def _own_choice(accelerator: Accelerator, earlier: int | None) -> ThreadChoice | None:
    most = max(1, usable_cores() // _processes_here(accelerator))
    if _asked_for(accelerator):
        return None
    if earlier is not None:
        return _as_before(earlier, most)
    return None if most == 1 else _measured(most)


def _as_before(number: int, most: int) -> ThreadChoice:
    words = f"training with {_threads_words(number)}, as this run began"
    if number > most:
        words += (
            f": there are cores for {most} now, and with 'threads: {most}' the rest is faster, and rounds otherwise"
        )
    return ThreadChoice(number, words)


def _measured(most: int) -> ThreadChoice:
    seconds = time_threads(most, _Calibration().seconds_with)
    number = fastest(seconds)
    others = ", ".join(
        f"with {other} {seconds[number] / taken:.1f} times as fast"
        for other, taken in seconds.items()
        if other != number
    )
    return ThreadChoice(
        number,
        f"training with {_threads_words(number)} of at most {most}, by a measurement just now ({others}); the key "
        "'threads' sets another number",
    )


def _threads_words(number: int) -> str:
    return f"{number} CPU thread{'s' if number > 1 else ''}"


# A number of threads must be faster by so much than a smaller one: more of them disturb others, and are disturbed.
_WORTH = 1.15
_CALIBRATION_S = 0.15


def time_threads(most: int, seconds_with: Callable[[int], float]) -> dict[int, float]:
    """Seconds of a piece of work by number of threads: 1, 2, 4 ... and ``most``, until more are no longer faster.

    Args:
        most: largest number.
        seconds_with: seconds of the work with so many threads.
    """
    seconds: dict[int, float] = {}
    for number in sorted({most, *(1 << power for power in range(most.bit_length()) if 1 << power <= most)}):
        seconds[number] = seconds_with(number)
        if fastest(seconds) != number:
            break
    return seconds


def fastest(seconds: Mapping[int, float]) -> int:
    """The smallest number of threads that hardly any larger one beats; ``seconds`` of the same work, by number."""
    best, *larger = sorted(seconds)
    for number in larger:
        if seconds[number] * _WORTH < seconds[best]:
            best = number
    return best


class _Calibration:
    """A piece of work like that of a training step: two convolutions and a normalisation, forward and backward."""

    def __init__(self) -> None:
        # Of its own generator: the run's random numbers are as they would be without it.
        with torch.random.fork_rng(devices=[]):
            self._net = nn.Sequential(
                nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 1)
            )
            self._images = torch.rand(8, 32, 56, 56)

    def seconds_with(self, threads: int) -> float:
        """Mean seconds of one pass, over a moment that is long enough to meet the other programs of the machine."""
        torch.set_num_threads(threads)
        self._once()  # starts the threads
        started, seconds, passes = time.perf_counter(), 0.0, 0
        # Three passes at least, unless they are so slow that the answer is plain.
        while seconds < _CALIBRATION_S or (passes < 3 and seconds < 4 * _CALIBRATION_S):
            self._once()
            passes += 1
            seconds = time.perf_counter() - started
        return seconds / passes

    def _once(self) -> None:
        self._net.zero_grad()
        self._net(self._images).square().mean().backward()
