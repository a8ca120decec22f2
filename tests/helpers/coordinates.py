"""Images whose pixels tell where they are, and a teacher that shows them, so that crops and flips can be read off."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distill.data.examples import Examples, LabelTable, Source, collect
from distill.data.pixel_cache import PixelCache, build_pixels
from distill.recipe.training import ViewSettings
from distill.training.batches import Sampler
from distill.training.teacher_batches import Reader, TeacherBatchMaker
from pseudo_labels.files import sha256_file
from pseudo_labels.pool import Pool, write_pool
from pseudo_labels.records import ImageRef, Status
from students.preprocess import Preprocess
from teachers.base import Item
from tests.helpers import fitting

SIZES = ((80, 96), (72, 80), (96, 64))


class Comparing(fitting.SmallTeacher):
    """Shows an image beside its reference, as they are."""

    needs_reference = True

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Item:
        assert reference is not None
        return tuple(torch.from_numpy(array.transpose(2, 0, 1).copy()) for array in (image, reference))


def comparing() -> Comparing:
    """Build ``Comparing``."""
    small = fitting.build()
    return Comparing(small.model, side_px=0, smallest_px=8, extra=0.0, head=None)


def coordinate_pool(folder: Path, count: int = 6, sizes: Sequence[tuple[int, int]] = SIZES) -> Pool:
    """Each pixel is (its row, its column, its image's number); every image refers to one numbered 100 higher."""
    folder.mkdir(parents=True)
    refs: list[ImageRef] = []
    for number in range(count):
        height, width = sizes[number % len(sizes)]
        clean = ""
        for mark in (100 + number, number):
            pixels = np.full((height, width, 3), mark, np.uint8)
            pixels[:, :, 0], pixels[:, :, 1] = np.arange(height)[:, None], np.arange(width)
            path = folder / f"{mark}.png"
            Image.fromarray(pixels).save(path)
            digest = sha256_file(path)
            refs.append(
                ImageRef(
                    digest[:24],
                    str(path),
                    sha256=digest,
                    dhash="0" * 16,
                    bytes=path.stat().st_size,
                    width=width,
                    height=height,
                    group=str(number),
                    ref_id=clean,
                )
            )
            clean = digest[:24]
    return write_pool(folder / "pool", refs, spec={})


@dataclass
class Data:
    """Labelled images of a pool with their pixels; those numbered below 100, whose score is a hundredth of that."""

    source: Source
    caches: list[PixelCache]
    examples: Examples

    def reader(self, teacher: fitting.SmallTeacher | None = None, examples: Examples | None = None) -> Reader:
        return Reader(teacher or fitting.build(), examples or self.examples, [self.source], self.caches)

    def maker(self, reader: Reader | None = None, *, images: ViewSettings, **fraction: int) -> TeacherBatchMaker:
        order = Sampler(self.examples, [1.0], 0)
        fraction = {"per_process": 6, "rank": 0, "world": 1, "seed": 0, **fraction}
        return TeacherBatchMaker(self.examples, self.caches, order, images, reader or self.reader(), **fraction)


def data_of(pool: Pool, folder: Path) -> Data:
    """Label what has a reference, and cache the pixels under ``folder``."""
    labelled = [ref for ref in pool if ref.status == Status.OK and ref.ref_id]
    scores = [int(Path(ref.uri).stem) / 100 for ref in labelled]
    table = LabelTable([ref.id for ref in labelled], scores, np.linspace(0.25, 1, len(labelled)))
    source = Source("coordinates", pool, table)
    caches = [build_pixels(pool, Preprocess(max_side=1024), folder / "pixels")]
    return Data(source, caches, collect([source], caches).examples)


@dataclass
class Seen:
    """What a view shows, read from its pixels."""

    number: int
    top: int
    left: int
    height: int
    width: int
    flip: bool


def seen(view: Tensor) -> Seen:
    """Read a view, uint8 [3, H, W]; that it is one window of one image is checked."""
    rows, columns, marks = view.int()
    flip = bool(columns[0, 0] > columns[0, -1])
    _, height, width = view.shape
    top, left = int(rows[0, 0]), int(columns.min())
    assert bool((rows == torch.arange(top, top + height)[:, None]).all())
    across = torch.arange(left, left + width)
    assert bool((columns == (across.flip(0) if flip else across)).all())
    assert bool((marks == marks[0, 0]).all())
    return Seen(int(marks[0, 0]), top, left=left, height=height, width=width, flip=flip)
