"""A user's own teachers, as a user would write them: no base class, named as ``tests.helpers.own_teacher:function``."""

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import TeacherStamp
from teachers.base import TeacherOutput


class Contrast:
    """Scores the contrast of the green channel; its feature is that channel in 4 x 4 cells.

    Args:
        memory_images: a batch of more than this many runs out of memory.
        refuse_wide: images wider than this are refused.
        nan_below: mean brightness below which the score is NaN.
    """

    needs_reference = False
    feature_names = ("cells",)

    def __init__(self, memory_images: int = 1000, refuse_wide: int = 100_000, nan_below: float = 0.0):
        self.stamp = TeacherStamp("contrast", 1, "none", {"nan_below": nan_below})
        self.batches: list[int] = []
        self._memory_images, self._refuse_wide, self._nan_below = memory_images, refuse_wide, nan_below

    def to(self, device: torch.device) -> "Contrast":
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Tensor:
        if image.shape[1] > self._refuse_wide:
            raise PocketiqaError(f"{image.shape[1]} pixels are too wide for me")
        return torch.from_numpy(image[:, :, 1].copy())

    def __call__(self, batch: list[Tensor]) -> TeacherOutput:
        if len(batch) > self._memory_images:
            raise torch.OutOfMemoryError(f"tried to allocate {len(batch)} images")
        self.batches.append(len(batch))
        green = torch.stack(batch).float()[:, None] / 255
        score = (green.std((1, 2, 3)) * 2).clamp(0, 1)
        score[green.mean((1, 2, 3)) < self._nan_below] = math.nan
        return TeacherOutput(score, torch.full_like(score, 0.1), {"cells": torch.nn.AdaptiveAvgPool2d(4)(green)})


def build(memory_images: int = 1000, refuse_wide: int = 100_000, nan_below: float = 0.0) -> Contrast:
    """Builder of ``Contrast``."""
    return Contrast(memory_images, refuse_wide, nan_below)


class _Wrong(Contrast):
    """Says whatever it is given."""

    def __init__(self, output: object):
        super().__init__()
        self._output = output

    def __call__(self, batch: list[Tensor]) -> TeacherOutput:
        return self._output(len(batch))  # type: ignore[operator]


def percent() -> Contrast:
    """Gives scores in percent."""
    return _Wrong(lambda size: TeacherOutput(torch.full((size,), 55.0)))


def matrix() -> Contrast:
    """Gives a score of shape [B, 1]."""
    return _Wrong(lambda size: TeacherOutput(torch.zeros(size, 1)))


def bare() -> Contrast:
    """Gives a tensor instead of a TeacherOutput."""
    return _Wrong(lambda size: torch.zeros(size))


def featureless() -> Contrast:
    """Declares a feature and does not give it."""
    return _Wrong(lambda size: TeacherOutput(torch.zeros(size)))


def negative_spread() -> Contrast:
    """Gives a negative standard deviation."""
    return _Wrong(lambda size: TeacherOutput(torch.zeros(size), torch.full((size,), -1.0)))


def always_nan() -> Contrast:
    """Never gives a finite score."""
    return _Wrong(lambda size: TeacherOutput(torch.full((size,), math.nan), None, {"cells": torch.zeros(size, 1)}))


def no_stamp() -> object:
    """Builds something that is no teacher at all."""
    return object()


def stamp_as_text() -> Contrast:
    """Has a stamp of the wrong type."""
    teacher = Contrast()
    teacher.stamp = "contrast"  # type: ignore[assignment]
    return teacher


class _Before(Contrast):
    """``Contrast`` that does something before it scores a batch; its stamp, and so its labels, are the same.

    Args:
        act: is given the number of batches scored before, and of images in this one.
    """

    def __init__(self, act: Callable[[int, int], None]):
        super().__init__()
        self._act = act

    def __call__(self, batch: list[Tensor]) -> TeacherOutput:
        self._act(len(self.batches), len(batch))
        return super().__call__(batch)


def stuck(at_batch: int, mark: str) -> Contrast:
    """Makes the file ``mark`` at one of its batches, and stops for ever."""

    def stop(done: int, _size: int) -> None:
        if done == at_batch:
            Path(mark).touch()
            time.sleep(3600)

    return _Before(stop)


def dying(mark: str) -> Contrast:
    """Kills its process, once: the first that makes the file ``mark``."""

    def die(_done: int, _size: int) -> None:
        with suppress(FileExistsError):
            Path(mark).touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)

    return _Before(die)


def late(folder: str) -> Contrast:
    """Makes the file ``scoring`` in a folder and waits for the file ``go`` there, before each batch."""

    def wait(_done: int, _size: int) -> None:
        (Path(folder) / "scoring").touch()
        while not (Path(folder) / "go").exists():
            time.sleep(0.01)

    return _Before(wait)


def sleeping(image_s: float, workers: str = "") -> Contrast:
    """Sleeps for each image; with ``workers``, a folder, each process makes a file there with its number as name."""
    if workers:
        (Path(workers) / str(os.getpid())).touch()
    return _Before(lambda _done, size: time.sleep(image_s * size))


NOT_A_FUNCTION = 3
