"""Batches as a teacher needs them: crops of images, and of their references, through its own preprocessing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from distill.data.examples import Examples, Source
from distill.data.pixel_cache import PixelCache
from distill.recipe.training import ViewSettings
from distill.training.batches import (
    CropSampler,
    ExampleCrop,
    LazyBatch,
    Sampler,
    Size,
    batches_by_size,
    crop_pixels,
    labelled_crop,
    padded,
)
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from teachers.base import Item, Teacher, shapes, stack


@dataclass(frozen=True)
class TeacherBatch:
    """The part of a micro-batch that one process computes.

    Attributes:
        inputs: stacked tensors of the teacher's items, [B, ...] each.
        target: float32 [B] in [0, 1].
        weight: float32 [B], mean about 1.
    """

    inputs: tuple[Tensor, ...]
    target: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> "TeacherBatch":
        """The batch on ``device``."""
        inputs = tuple(tensor.to(device, non_blocking=True) for tensor in self.inputs)
        return TeacherBatch(inputs, self.target.to(device), self.weight.to(device))

    def cut(self, most: int) -> list["TeacherBatch"]:
        """The batch in parts of at most ``most`` images."""
        columns = [tensor.split(most) for tensor in (*self.inputs, self.target, self.weight)]
        return [TeacherBatch(tuple(inputs), target, weight) for *inputs, target, weight in zip(*columns, strict=True)]


class Reader:
    """Reads examples as input of a teacher.

    Args:
        teacher: its ``preprocess`` is used.
        examples: that are read.
        sources: the sources of the examples.
        caches: pixels of each source.

    Raises:
        PocketiqaError: the teacher compares with references, and an example has none that can be read.
    """

    def __init__(
        self, teacher: Teacher, examples: Examples, sources: Sequence[Source], caches: Sequence[PixelCache]
    ):  # fmt: skip
        self._teacher, self._examples, self._caches = teacher, examples, caches
        self._references = _reference_rows(examples, sources, caches) if teacher.needs_reference else None

    def whole(self, index: int) -> Item:
        """An example as it is scored in use."""
        crop = labelled_crop(self._examples, self._caches, index)
        return self.item(crop, crop_pixels(self._examples, self._caches, crop))

    def item(self, crop: ExampleCrop, pixels: np.ndarray, canvas: Size = (0, 0)) -> Item:
        """A crop of an example, and the same crop of its reference.

        Args:
            crop: crop that is shown.
            pixels: pixels of the crop.
            canvas: height and width that a smaller crop is filled up to, see ``batches.padded``.

        Raises:
            PocketiqaError: the teacher refuses it; names the crop.
        """
        reference = None
        if self._references is not None:
            cache = self._caches[self._examples.source[crop.index]]
            shown = crop.cut(cache, int(self._references[crop.index]))
            reference = np.ascontiguousarray(padded(shown, canvas))
        try:
            return self._teacher.preprocess(np.ascontiguousarray(padded(pixels, canvas)), reference)
        except ImageError as error:
            raise PocketiqaError(
                f"a crop of {crop.width}x{crop.height} pixels is refused ({error.reason}): raise "
                "images.crop_fraction or images.crop_size, or leave such small images out"
            ) from error


def _reference_rows(examples: Examples, sources: Sequence[Source], caches: Sequence[PixelCache]) -> np.ndarray:
    """Row of each example's reference in its pool; an original that others were made from is its own reference."""
    references = np.array(examples.row)
    for number, (source, cache) in enumerate(zip(sources, caches, strict=True)):
        refs = list(source.pool)
        # Duplicates have the id of the image that they repeat, but no pixels in the cache.
        rows = {ref.id: row for row, ref in enumerate(refs) if ref.status == Status.OK}
        originals = {ref.ref_id for ref in refs if ref.ref_id}
        for index in np.flatnonzero(examples.source == number):
            row = int(examples.row[index])
            ref = refs[row]
            # A photograph that nothing was made from is no reference, and cannot be compared with itself.
            own = row if ref.id in originals else -1
            references[index] = rows.get(ref.ref_id, -1) if ref.ref_id else own
            # Of another size, the same crop would show another part of the scene.
            if references[index] < 0 or tuple(cache.sizes[references[index]]) != tuple(cache.sizes[row]):
                raise PocketiqaError(
                    f"image {ref.uri} of {source.name!r} has no readable reference of its size: leave it out, restore "
                    "the reference, or fit a teacher that needs none"
                )
    return references


class TeacherBatchMaker:
    """Makes a teacher's training batches in one process.

    Args:
        examples: the training part.
        caches: pixels of each source.
        order: which example comes when.
        images: crop and flip.
        reader: the reader of the same examples.
        fraction: ``per_process``, ``rank``, ``world`` and ``seed`` of ``CropSampler``.
    """

    def __init__(
        self, examples: Examples, caches: Sequence[PixelCache], order: Sampler, images: ViewSettings, reader: Reader,
        **fraction: int,
    ):  # fmt: skip
        self._examples, self._reader = examples.with_mean_weight_one(), reader
        # Images smaller than the crop are filled up: others would not fit into one batch with them.
        self._canvas = (images.crop_size or 0, images.crop_size or 0)
        self._crops = CropSampler(
            examples, caches, order, images.crop_of, horizontal_flip=images.horizontal_flip, **fraction
        )  # fmt: skip

    def make(self, micro_batch: int) -> TeacherBatch:
        """The part of this process in micro-batch number ``micro_batch`` of the run."""
        crops = self._crops.draw(micro_batch)
        items = [self._reader.item(crop, self._crops.pixels(crop), self._canvas) for crop in crops]
        # A teacher may keep the size of its input, so the shapes show only after its preprocessing.
        different = {shapes(item): crop for item, crop in zip(items, crops, strict=True)}
        if len(different) > 1:
            sizes: list[Size] = [(crop.width, crop.height) for crop in different.values()][:2]
            raise PocketiqaError(
                f"crops of {sizes[0]} and {sizes[1]} pixels become inputs of different shapes, which no batch can "
                "hold: set images.crop_size, or give the teacher a fixed input size"
            )
        chosen = np.array([crop.index for crop in crops], dtype=np.int64)
        target, weight = self._examples.target[chosen], self._examples.weight[chosen]
        # On the CPU: batches are made ahead in a thread, and the loop moves each when its turn comes.
        return TeacherBatch(stack(items, "cpu"), torch.from_numpy(target), torch.from_numpy(weight))


def whole_item_batches(
    examples: Examples, caches: Sequence[PixelCache], batch_size: int, reader: Reader
) -> list[LazyBatch]:
    """Whole images as items of a teacher, those of one size together."""
    parts = batches_by_size(examples, caches, batch_size)
    return [(np.array(chosen), partial(_items, reader, chosen)) for chosen in parts]


def _items(reader: Reader, chosen: Sequence[int]) -> list[Item]:
    return [reader.whole(index) for index in chosen]
