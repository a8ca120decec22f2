"""Regions of small pools, distorted copies of them, and a user's own teacher of regions."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distill.data.examples import LabelTable, Source
from distill.data.regions import RegionTable
from pseudo_labels.distort import build_synthetic_pool
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import build_pool
from pseudo_labels.records import Status, TeacherStamp
from pseudo_labels.regions.make import build_regions
from pseudo_labels.regions.readers import TableSource
from pseudo_labels.regions.sources import Grid
from teachers.regions import label_regions
from tests.helpers.pools import clean_pool
from tests.helpers.training import texture

METRICS: dict[str, Any] = {"metrics": "gmsd"}
"""Options of a quick teacher that compares."""
BRIGHTNESS = "tests.helpers.regions:brightness"


@dataclass
class Answer:
    """What a teacher of one's own may give."""

    quality: float
    importance: float | None = None
    type: str = ""
    quality_std: float = math.nan
    status: Status = Status.OK
    reason: str = ""


@dataclass
class Brightness:
    """A teacher of regions alone: mean brightness; the last region has no answer, an image above a size fails."""

    answers: int | None = None
    scale: float = 1.0
    limit_px: int = 10**9
    memory: bool = True
    stamp: TeacherStamp = field(default_factory=lambda: TeacherStamp("brightness", 1, "none"))

    def to(self, device: torch.device) -> "Brightness":
        return self

    def score_regions(self, image: np.ndarray, masks: Any) -> list[Answer]:
        if image.shape[1] > self.limit_px:
            raise PocketiqaError(f"{image.shape[1]} pixels are too wide for me")
        if not self.memory:
            raise torch.OutOfMemoryError("tried to allocate")
        answers = [
            Answer(image[mask].mean() / 255 * self.scale, mask.mean(), "dark" * int(mask[0, 0]), 0.1) for mask in masks
        ]
        answers[-1] = Answer(math.nan, status=Status.FAILED, reason="no level word in the answer 'hm'")
        return answers[: self.answers]


def brightness(**options: Any) -> Brightness:
    """Builder of ``Brightness``."""
    return Brightness(**options)


def region_folder(folder: Path) -> Path:
    """``clean`` and its ``regions`` (a grid), ``copies`` with one distorted region each, ``whole`` ones."""
    pool = clean_pool(folder, images=3, max_side=128)
    regions = build_regions(pool, Grid(3, 2), folder / "regions", preview=0)
    names = ["gaussian_blur", "white_noise", "jpeg"]
    build_synthetic_pool(pool, folder / "copies", per_image=2, names=names, regions=regions)
    build_synthetic_pool(pool, folder / "whole", per_image=1, names=names)
    return folder


def noisy_quarters(folder: Path, images: int = 12) -> Source:
    """Textures of 96x96 with noise in one quarter, which is bad and important; learned from by their quarters alone."""
    (folder / "images").mkdir()
    rows = ["image,x,y,width,height,quality,importance"]
    for number in range(images):
        image, noise = texture(number, 0, (96, 96)), texture(number, 40, (96, 96))
        for quarter in range(4):
            top, left = 48 * (quarter // 2), 48 * (quarter % 2)
            bad = quarter == number % 4
            if bad:
                image[top : top + 48, left : left + 48] = noise[top : top + 48, left : left + 48]
            rows.append(f"{number}.png,{left},{top},48,48,{0.1 if bad else 0.9},{0.7 if bad else 0.1}")
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
    (folder / "boxes.csv").write_text("\n".join(rows))
    pool = build_pool([str(folder / "images")], folder / "pool")
    build_regions(pool, TableSource(folder / "boxes.csv"), folder / "regions", preview=0)
    label_regions(folder / "pool", folder / "regions", "annotated", folder / "labels")
    table = RegionTable.open(pool, folder / "regions", folder / "labels")
    none = np.zeros(len(pool))
    return Source("regions", pool, LabelTable([ref.id for ref in pool], none, none), regions=table, selects=False)
