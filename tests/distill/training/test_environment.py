"""Batches that are made ahead, signals, threads and precision of a run."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.data.examples import Collected, Source, collect
from distill.data.pixel_cache import PixelCache
from distill.recipe.training import ImageSettings, LoopSettings
from distill.training.batches import BatchMaker, Sampler
from distill.training.environment import (
    choose_threads,
    fastest,
    interruption,
    prefetched,
    time_threads,
    training_environment,
)
from pseudo_labels.errors import PocketiqaError
from tests.helpers.campaign import WHOLE
from tests.helpers.imports import ROOT

CROPS = ImageSettings(crop_size=64)


def maker(measured: Collected, caches: list[PixelCache], images: ImageSettings = CROPS, **options: Any) -> BatchMaker:
    defaults: dict[str, Any] = {"per_process": 4, "rank": 0, "world": 1, "seed": 7}
    weights = options.pop("weights", [1.0] * len(caches))
    order = Sampler(measured.examples, weights, options.get("seed", 7))
    return BatchMaker(measured.examples, caches, order, images, **{**defaults, **options})


def test_prefetching_is_bounded_in_order_and_ends(source: Source, cache: PixelCache):
    batches = maker(collect([source], [cache]), [cache])
    made: list[int] = []
    enough = threading.Event()

    def make(number: int) -> Any:
        made.append(number)
        if len(made) >= 4:
            enough.set()
        return batches.make(number)

    with prefetched(make, 2, 1000, depth=3) as ready:
        assert (next(ready).pixels == batches.make(2).pixels).all()
        assert (next(ready).pixels == batches.make(3).pixels).all()
        assert enough.wait(10)
    assert made == list(range(2, 2 + len(made)))
    assert len(made) <= 2 + 3 + 1  # taken, waiting, in hand
    assert not any(thread.name == "pocketiqa-batches" for thread in threading.enumerate())


def test_an_error_in_the_background_reaches_the_loop_after_the_batches_before_it(source: Source, cache: PixelCache):
    batches = maker(collect([source], [cache]), [cache])

    def make(number: int) -> Any:
        if number == 2:
            raise PocketiqaError("the pixel cache ends early")
        return batches.make(number)

    with prefetched(make, 0, 10) as ready:
        next(ready)
        next(ready)
        with pytest.raises(PocketiqaError, match="ends early"):
            next(ready)


def test_the_first_signal_is_noted_and_the_second_acts_as_before():
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with interruption() as asked:
            assert asked.wish == ""
            os.kill(os.getpid(), signal.SIGTERM)
            assert (asked.wish, seen) == ("SIGTERM", [])
            os.kill(os.getpid(), signal.SIGTERM)
            assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_nothing_is_caught():
    wishes: list[str] = []

    def work() -> None:
        with interruption() as asked:
            wishes.append(asked.wish)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert wishes == [""]


def test_threads_and_random_numbers_are_as_before_afterwards(tmp_path: Path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with training_environment(LoopSettings(device="cpu", threads=1, tracker="none"), tmp_path) as accelerator:
        assert accelerator.device.type == "cpu"
        assert torch.get_num_threads() == 1
        torch.manual_seed(99)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tracker": "tensorbord"}, "tracker 'tensorbord' is unknown: choose none or one of"),
        ({"mixed_precision": "fp16"}, "mixed_precision 'fp16' needs a GPU"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(settings: dict[str, str], message: str, tmp_path: Path):
    config = LoopSettings.model_validate({"device": "cpu", "tracker": "none", **settings})
    with pytest.raises(PocketiqaError, match=message), training_environment(config, tmp_path):
        pass


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        ({1: 1.0, 2: 0.55, 4: 0.3}, 4),  # nobody else is there
        ({1: 1.0, 2: 0.95}, 1),  # the second core is busy: hardly a gain
        ({1: 1.0, 2: 12.0}, 1),  # both are
        ({1: 1.0, 2: 0.6, 4: 0.58, 6: 0.57}, 2),
    ],
)
def test_a_larger_number_of_threads_must_be_worth_it(seconds: dict[int, float], number: int):
    assert fastest(seconds) == number


def test_threads_are_tried_until_more_are_no_longer_faster():
    tried: list[int] = []

    def seconds_with(threads: int) -> float:
        tried.append(threads)
        return max(1 / threads, 1 / 3)  # three cores are free

    assert fastest(time_threads(12, seconds_with)) == 4
    assert tried == [1, 2, 4, 8]
    assert list(time_threads(6, lambda threads: 1 / threads)) == [1, 2, 4, 6]
    assert list(time_threads(1, lambda threads: 1.0)) == [1]


@pytest.mark.skipif(not WHOLE, reason="a campaign: it measures times, which a busy machine disturbs")
def test_on_one_core_for_two_threads_a_real_measurement_takes_one():
    """A process that is held on one core is as badly off as one beside another busy process on two."""
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from distill.training.environment import _measured\n"
        "print(_measured(2).number)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two usable cores and no wish of the user; torch's number of threads is restored."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("distill.training.environment.usable_cores", lambda: 2)
    before = torch.get_num_threads()
    yield monkeypatch
    torch.set_num_threads(before)


def test_settings_and_the_users_variable_leave_nothing_to_choose(two_cores: pytest.MonkeyPatch, tmp_path: Path):
    free = LoopSettings(device="cpu", tracker="none")
    with training_environment(free, tmp_path) as accelerator:
        state = torch.get_rng_state()
        choice = choose_threads(free, accelerator, None)
        assert torch.equal(torch.get_rng_state(), state)
        assert choice is not None
        assert choice.number == torch.get_num_threads() <= 2
        assert f"training with {choice.number} CPU thread" in choice.words
        assert choose_threads(LoopSettings(device="cpu", threads=2, tracker="none"), accelerator, 1) is None
        two_cores.setenv("OMP_NUM_THREADS", "2")
        assert choose_threads(free, accelerator, None) is None
        two_cores.delenv("OMP_NUM_THREADS")
        two_cores.setattr("distill.training.environment.usable_cores", lambda: 1)
        assert choose_threads(free, accelerator, None) is None


def test_a_resumed_run_keeps_its_threads_and_hears_what_would_be_faster(two_cores: pytest.MonkeyPatch, tmp_path: Path):
    free = LoopSettings(device="cpu", tracker="none")
    with training_environment(free, tmp_path) as accelerator:
        same, more = (choose_threads(free, accelerator, earlier) for earlier in (2, 3))
        assert torch.get_num_threads() == 3
    assert same is not None
    assert same.words == "training with 2 CPU threads, as this run began"
    assert more is not None
    assert "there are cores for 2 now" in more.words
