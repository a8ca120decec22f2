"""Batches that are made ahead, signals, threads and precision of a run."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.data.examples import Collected, Source, collect
from distill.data.pixel_cache import PixelCache
from distill.recipe.training import ImageSettings, LoopSettings
from distill.training.batches import BatchMaker, Sampler
from distill.training.environment import interruption, prefetched, training_environment
from pseudo_labels.errors import PocketiqaError

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
