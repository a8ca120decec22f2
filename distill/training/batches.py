"""Training batches: order, crops and flips are functions of the seed and the number of images seen, nothing else."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from distill.data.examples import Examples, Source
from distill.data.pixel_cache import PixelCache
from distill.data.regions import RegionReader, Shown
from distill.recipe.training import ImageSettings
from distill.training.losses import RegionBatch
from pseudo_labels.crops import Crop
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.shards import FEATURES
from teachers.base import Item

# Features that are read before the first step for mean and deviation: more would cost time, fewer would be less exact.
_STATISTICS_ROWS = 256
# Of the size of a channel's values: what rounding leaves of the deviation of one that is constant in the sample.
_NO_DEVIATION = 1e-6
_ORDER, _CROP = 1, 2  # streams of randomness that must not meet
_MOST_WAITING = 64
Size = tuple[int, int]
LazyBatch = tuple[np.ndarray, Callable[[], Any]]
"""Indices into examples, and a function that reads what belongs to them."""


class Standard:
    """Mean 0 and deviation 1 by the channel, so that a feature loss starts near 1 whatever the teacher's scale.

    Args:
        values: [N, C, ...] features of a sample.
    """

    def __init__(self, values: np.ndarray):
        # All axes but the channels. In float64: a sum over rows and positions loses digits in float32.
        axes = (0, *range(2, values.ndim))
        self.mean = values.mean(axes, keepdims=True, dtype=np.float64)[0].astype(np.float32)
        deviation = values.std(axes, keepdims=True, dtype=np.float64)[0]
        # A channel that is constant in the sample gets weight 0, as in ``leakage.neighbours``: one over the deviation
        # would make the loss of a row outside of the sample, where it differs a little, as large as a million.
        varies = deviation > _NO_DEVIATION * np.maximum(1.0, np.abs(self.mean))
        self.scale = varies / np.where(varies, deviation, 1.0).astype(np.float32)


class FeatureReader:
    """Cached teacher features of several sources, read row by row, standardised over a sample of the training rows.

    Attributes:
        shape: shape of one feature, channels first.
    """

    def __init__(self, sources: Sequence[Source], name: str, examples: Examples, seed: int):
        self._stores = [source.feature_store for source in sources]
        self._name = name
        # A store can have more shards than a process may hold open files (often 1024); those used last stay open.
        self._handle = lru_cache(maxsize=64)(self._open)
        rows = np.flatnonzero(examples.shard >= 0)
        if not len(rows):
            raise PocketiqaError(f"no training image has the feature {name!r}: label more images with features")
        # Without standardisation, which is learned below: the first feature says what shape all must have.
        self.shape = self._raw(examples, int(rows[0])).shape
        # Drawn from the seed, so the same in every process and after a resume; sorted, so that each shard is opened
        # once.
        sample = np.sort(np.random.default_rng(seed).permutation(rows)[:_STATISTICS_ROWS])
        self._standard = Standard(np.stack([self._checked(examples, int(row)) for row in sample]))

    def _open(self, source: int, shard: int) -> Any:
        store = self._stores[source]
        assert store is not None, "only images with a feature have a shard"
        # The file is mapped into memory: it can be read on when its name is gone from the cache of an object store.
        with store.opened(shard) as folder:
            return safetensors.safe_open(folder / FEATURES, framework="numpy").get_slice(self._name)

    def _raw(self, examples: Examples, index: int) -> np.ndarray:
        row = int(examples.shard_row[index])
        handle = self._handle(int(examples.source[index]), int(examples.shard[index]))
        # A slice, so that the bytes of this row alone are read. Stores hold float16, which is too coarse to add up.
        return np.asarray(handle[row : row + 1])[0].astype(np.float32)

    def _checked(self, examples: Examples, index: int) -> np.ndarray:
        feature = self._raw(examples, index)
        if feature.shape != self.shape:
            raise PocketiqaError(
                f"feature {self._name!r} has shape {feature.shape} in one source and {self.shape} in another: "
                "train with sources of one teacher"
            )
        return feature

    def read(self, examples: Examples, index: int) -> np.ndarray:
        """float32 feature of an example; zeros where it has none."""
        if examples.shard[index] < 0:
            return np.zeros(self.shape, np.float32)
        return (self._checked(examples, index) - self._standard.mean) * self._standard.scale


@dataclass(frozen=True)
class Batch:
    """The part of a micro-batch that one process computes.

    Attributes:
        pixels: uint8 [B, H, W, 3].
        target: float32 [B] in [0, 1].
        weight: float32 [B], of stored labels with a mean of about 1 over the run; of a live teacher the confidence
            itself, in [0, 1].
        valid: float32 [B, 2], the fraction of height and width that is image and not padding.
        feature: float32 [B, ...] standardised teacher features, if training compares with them.
        feature_weight: float32 [B], ``weight`` or 0 for rows without a feature.
        items: the same crops as input of a live teacher, if there is one.
        regions: labelled regions of the crops, if training compares with them.
        levels: float32 [B, 4] as ``Examples.levels``, if there are lists of levels.
    """

    pixels: Tensor
    target: Tensor
    weight: Tensor
    valid: Tensor
    feature: Tensor | None = None
    feature_weight: Tensor | None = None
    items: Sequence[Item] | None = None
    regions: RegionBatch | None = None
    levels: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on ``device``; items go there when the teacher scores them."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
        if self.regions is not None:
            moved["regions"] = RegionBatch(*(value.to(device, non_blocking=True) for value in self.regions))
        return replace(self, **moved)


class Sampler:
    """An endless sequence of examples: each pass is a permutation, and source weights say how often each occurs.

    Pictures of a list of levels follow each other, and come into one batch where that is possible.

    Args:
        examples: the training part.
        source_weights: how often each example of a source, or each of its lists, is drawn in a pass.
        seed: seed of the order.
        batch: images of one micro-batch over all processes; it matters where there are lists.
    """

    def __init__(self, examples: Examples, source_weights: Sequence[float], seed: int, *, batch: int = 1):
        # Of a list the first picture stands for all.
        listed = examples.levels[:, 0]
        first = np.flatnonzero((listed < 0) | (np.diff(listed, prepend=-1.0) != 0))
        self._lengths = np.zeros(len(examples), np.int64)
        self._lengths[first] = np.diff(first, append=len(examples))
        self._members = [first[examples.source[first] == number] for number in range(len(source_weights))]
        # Rounded once for the source, so that each pass holds as many.
        self._counts = [round(len(rows) * weight) for rows, weight in zip(self._members, source_weights, strict=True)]
        self._seed, self._batch = seed, batch
        if not sum(self._counts):
            raise PocketiqaError(f"source weights {list(source_weights)} leave no image in a pass: raise them")
        # Where each pass begins. Lists differ in length, so passes do; without lists all are of one length.
        self._starts = [0]
        # Two, as a batch may begin in one pass and end in the next.
        self._pass = lru_cache(maxsize=2)(self._permuted)

    def _drawn(self, number: int) -> tuple[np.random.Generator, np.ndarray]:
        """The examples of a pass, of each list the first, before they are mixed; and the generator of the pass."""
        # A generator for each pass: a resumed run needs no order of the passes before, only their lengths.
        generator = np.random.default_rng([self._seed, _ORDER, number])
        drawn = []
        for rows, count in zip(self._members, self._counts, strict=True):
            # All rows of a source come whole times in each pass; which come once more is drawn anew, so that no row is
            # preferred in the long run. A source without rows has count 0: nothing to divide.
            whole, rest = divmod(count, max(len(rows), 1))
            drawn += [rows] * whole + [generator.permutation(rows)[:rest]]
        return generator, np.concatenate(drawn)

    def _permuted(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Examples of a pass in order, and for each the position in the pass of the first picture of its list."""
        generator, drawn = self._drawn(number)
        units = generator.permutation(drawn)
        lengths = self._lengths[units]
        if (lengths > 1).any():
            order = packed(lengths.tolist(), self._starts[number], self._batch)
            units, lengths = units[order], lengths[order]
        start = np.repeat(np.cumsum(lengths) - lengths, lengths)
        return np.repeat(units, lengths) + np.arange(len(start)) - start, start

    def _pass_of(self, position: int) -> int:
        """Number of the pass that a position lies in."""
        while self._starts[-1] <= position:
            length = self._lengths[self._drawn(len(self._starts) - 1)[1]].sum()
            self._starts.append(self._starts[-1] + int(length))
        return bisect_right(self._starts, position) - 1

    def at(self, first: int, count: int) -> np.ndarray:
        """Examples number ``first`` to ``first + count - 1`` of the sequence."""
        return self.places(first, count)[0]

    def places(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The same, and for each the number in the sequence of the first picture of its list, or its own number."""
        examples, starts = np.empty(count, np.int64), np.empty(count, np.int64)
        for at in range(count):
            number = self._pass_of(first + at)
            begin = self._starts[number]
            own, start = self._pass(number)
            examples[at], starts[at] = own[first + at - begin], begin + start[first + at - begin]
        return examples, starts


def packed(lengths: Sequence[int], first: int, batch: int) -> list[int]:
    """An order of units in which few are torn apart by the border of a batch.

    A unit that does not fit into the rest of a batch waits for the next one, and those behind it come first; when
    ``_MOST_WAITING`` wait, or none is left to fill the rest, the longest-waiting one is torn.

    Args:
        lengths: number of images of each unit, at least 1.
        first: number of images before these units.
        batch: images of a batch.

    Returns:
        Positions in ``lengths``, each once.
    """
    order: list[int] = []
    waiting: list[int] = []
    following = iter(range(len(lengths)))
    room = batch - first % batch
    while len(order) < len(lengths):
        chosen = next((unit for unit in waiting if lengths[unit] <= room), None)
        if chosen is None:
            chosen = next(following, None) if len(waiting) < _MOST_WAITING else None
            if chosen is not None and lengths[chosen] > room:
                waiting.append(chosen)
                continue
            if chosen is None:
                chosen = waiting[0]
        if chosen in waiting:
            waiting.remove(chosen)
        order.append(chosen)
        room = batch - (batch - room + lengths[chosen]) % batch
    return order


@dataclass(frozen=True)
class ExampleCrop:
    """The crop of an example that a batch shows, mirrored or not.

    Attributes:
        index: index of the example.
        top: first row of the crop in pixels.
        left: first column of the crop in pixels.
        height: height of the crop in pixels.
        width: width of the crop in pixels.
        flip: mirror left and right.
    """

    index: int
    top: int
    left: int
    height: int
    width: int
    flip: bool

    def cut(self, cache: PixelCache, row: int) -> np.ndarray:
        """The crop of one row of ``cache``: uint8 [height, width, 3]."""
        crop = cache.read(row, self.top, self.height)[:, self.left : self.left + self.width]
        return crop[:, ::-1] if self.flip else crop


def labelled_crop(examples: Examples, caches: Sequence[PixelCache], index: int) -> ExampleCrop:
    """The part of the image that the label of an example is of: all of it or a crop, mirrored or not."""
    height, width = (int(side) for side in caches[examples.source[index]].sizes[examples.row[index]])
    box = Crop(*examples.box[index].tolist()).in_pixels(height, width)
    return ExampleCrop(index, *box, bool(examples.flipped[index]))


def crop_pixels(examples: Examples, caches: Sequence[PixelCache], crop: ExampleCrop) -> np.ndarray:
    """Pixels of the crop of an example: uint8 [height, width, 3]."""
    return crop.cut(caches[examples.source[crop.index]], int(examples.row[crop.index]))


class CropSampler:
    """Which crops of which examples the batches of one process show.

    Args:
        examples: the training part.
        caches: pixels of each source; sources of one pool have the same.
        order: which example comes when.
        crop: height and width of an image -> height and width of the crop.
        horizontal_flip: flip half of the images.
        per_process: images of one micro-batch in one process.
        rank: rank of this process.
        world: number of processes.
        seed: seed of crops and flips.
    """

    def __init__(
        self, examples: Examples, caches: Sequence[PixelCache], order: Sampler, crop: Callable[[int, int], Size], *,
        horizontal_flip: bool, per_process: int, rank: int, world: int, seed: int,
    ):  # fmt: skip
        self._examples, self._caches, self._order, self._crop = examples, caches, order, crop
        self._per_process, self._rank, self._world, self._seed = per_process, rank, world, seed
        # A pool with labels of mirror images brings its flips as rows of their own.
        mirrored = {id(caches[number]) for number in set(examples.source[examples.flipped].tolist())}
        self._flip = [horizontal_flip and id(cache) not in mirrored for cache in caches]

    def draw(self, micro_batch: int) -> list[ExampleCrop]:
        """The crops of this process in micro-batch number ``micro_batch`` of the run."""
        # Consecutive numbers for the processes of a micro-batch: with any number of processes, a step shows the same
        # images.
        return self.at((micro_batch * self._world + self._rank) * self._per_process, self._per_process)

    def at(self, first: int, count: int) -> list[ExampleCrop]:
        """Crops number ``first`` to ``first + count - 1`` of the run, over all processes."""
        chosen, numbers = self._order.places(first, count)
        return [
            # A generator for each number: a crop depends neither on the batch size nor on the crops before it. Pictures
            # of a list have one number, so they show the same crop: elsewhere the lower level could look worse.
            self._drawn(int(index), np.random.default_rng([self._seed, _CROP, number]))
            for index, number in zip(chosen, numbers.tolist(), strict=True)
        ]

    def _drawn(self, index: int, generator: np.random.Generator) -> ExampleCrop:
        source, whole = int(self._examples.source[index]), labelled_crop(self._examples, self._caches, index)
        # Drawn whether used or not, so that every option sees the same crops.
        random_top, random_left, random_flip = generator.random(3)
        tall, wide = self._crop(whole.height, whole.width)
        flip = whole.flip ^ (self._flip[source] and bool(random_flip < 0.5))
        # The draws are below 1, so offsets go from 0 to the last possible one.
        down, across = int(random_top * (whole.height - tall + 1)), int(random_left * (whole.width - wide + 1))
        return ExampleCrop(index, whole.top + down, left=whole.left + across, height=tall, width=wide, flip=flip)

    def pixels(self, crop: ExampleCrop) -> np.ndarray:
        """Pixels of a crop: uint8 [height, width, 3]."""
        return crop_pixels(self._examples, self._caches, crop)


class BatchMaker:
    """Makes a student's batches in one process.

    Args:
        examples: the training part.
        caches: pixels of each source.
        order: which example comes when.
        images: crop and flip.
        features: cached teacher features, if training compares with them.
        prepare: makes the input of a live teacher from a crop, uint8 [H, W, 3]; None without one.
        regions: labelled regions, if training compares with them, and the student's size of map for a size of image.
        fraction: ``per_process``, ``rank``, ``world`` and ``seed`` of ``CropSampler``.
    """

    def __init__(
        self, examples: Examples, caches: Sequence[PixelCache], order: Sampler, images: ImageSettings, *,
        features: FeatureReader | None = None, prepare: Callable[[np.ndarray], Item] | None = None,
        regions: "RegionShower | None" = None, **fraction: int,
    ):  # fmt: skip
        self._examples, self._caches, self._regions = examples.with_mean_weight_one(), caches, regions
        self._features, self._prepare = features, prepare
        self._has_lists = bool((examples.levels[:, 0] >= 0).any())
        side = images.crop_size
        # One size for the whole run: how far an image is filled up does not depend on the others in its batch.
        self._canvas = (side, side) if side else _largest(examples, caches)
        self._crops = CropSampler(
            examples, caches, order, self._crop, horizontal_flip=images.horizontal_flip, **fraction
        )  # fmt: skip

    def _crop(self, height: int, width: int) -> Size:
        return min(height, self._canvas[0]), min(width, self._canvas[1])

    def _feature(self, features: FeatureReader, crop: ExampleCrop) -> np.ndarray:
        """The cached feature of a crop; mirrored where the crop shows the mirror image of what was labelled."""
        feature = features.read(self._examples, crop.index)
        mirrored = crop.flip != bool(self._examples.flipped[crop.index])
        return feature[..., ::-1] if mirrored and feature.ndim == 3 else feature

    def sample_items(self, count: int) -> list[Item]:
        """The first ``count`` crops of the run, the same in every process, as input of the live teacher."""
        crops = (np.ascontiguousarray(self._crops.pixels(crop)) for crop in self._crops.at(0, count))
        return [] if self._prepare is None else [self._prepare(crop) for crop in crops]

    def make(self, micro_batch: int) -> Batch:
        """The part of this process in micro-batch number ``micro_batch`` of the run."""
        crops = self._crops.draw(micro_batch)
        chosen = np.array([crop.index for crop in crops], dtype=np.int64)
        pixels = np.empty((len(crops), *self._canvas, 3), dtype=np.uint8)
        valid = np.empty((len(crops), 2), dtype=np.float32)
        # A mirrored crop has a negative stride, which torch refuses; a live teacher may make tensors of it.
        shown = [np.ascontiguousarray(self._crops.pixels(crop)) for crop in crops]
        for number, own in enumerate(shown):
            valid[number] = np.divide(own.shape[:2], self._canvas)
            pixels[number] = padded(own, self._canvas)
        tensors = [pixels, self._examples.target[chosen], self._examples.weight[chosen], valid]
        if self._features is not None:
            tensors.append(np.stack([self._feature(self._features, crop) for crop in crops]))
            tensors.append(np.where(self._examples.shard[chosen] >= 0, tensors[2], np.float32(0)))
        items = None if self._prepare is None else [self._prepare(crop) for crop in shown]
        regions = None if self._regions is None else self._regions.of(self._examples, self._caches, crops, self._canvas)
        levels = torch.from_numpy(self._examples.levels[chosen]) if self._has_lists else None
        return Batch(*(torch.from_numpy(array) for array in tensors), items=items, regions=regions, levels=levels)


@dataclass(frozen=True)
class RegionShower:
    """Labelled regions of what a batch shows.

    Attributes:
        reader: masks and labels.
        stride: side of a cell of the student's maps in pixels.
        map_size: height and width of an image to rows and columns of its map.
    """

    reader: RegionReader
    stride: int
    map_size: Callable[[Size], Size]

    def of(
        self, examples: Examples, caches: Sequence[PixelCache], crops: Sequence[ExampleCrop], canvas: Size
    ) -> RegionBatch:
        """The regions of some crops, each filled up to the size of ``canvas``."""
        cells, shown = self.map_size(canvas), []
        for crop in crops:
            source, row = int(examples.source[crop.index]), int(examples.row[crop.index])
            height, width = (int(side) for side in caches[source].sizes[row])
            box = (crop.left, crop.top, crop.width, crop.height)
            shown.append((source, row, Shown(cells, self.stride, (height, width), box, crop.flip)))
        return RegionBatch(*map(torch.from_numpy, self.reader.read(shown)))


def padded(crop: np.ndarray, canvas: Size) -> np.ndarray:
    """Fill up at the bottom and right with the mirrored image: no foreign content, no hard edge.

    Args:
        crop: uint8 [h, w, 3].
        canvas: height and width of the result; a side that is longer already stays.
    """
    missing = [max(0, side - given) for side, given in zip(canvas, crop.shape[:2], strict=True)]
    return crop if not any(missing) else np.pad(crop, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")


def _largest(examples: Examples, caches: Sequence[PixelCache]) -> Size:
    """The largest height and the largest width of what the labels are of."""
    crops = [labelled_crop(examples, caches, index) for index in range(len(examples))]
    return max(crop.height for crop in crops), max(crop.width for crop in crops)


def batches_by_size(examples: Examples, caches: Sequence[PixelCache], batch_size: int) -> list[list[int]]:
    """All indices into ``examples``, in batches of one size of what their labels are of."""
    sizes: dict[Size, list[int]] = {}
    for index in range(len(examples)):
        crop = labelled_crop(examples, caches, index)
        sizes.setdefault((crop.height, crop.width), []).append(index)
    return [
        indices[start : start + batch_size]
        for indices in sizes.values()
        for start in range(0, len(indices), batch_size)
    ]


def whole_image_batches(examples: Examples, caches: Sequence[PixelCache], batch_size: int) -> list[LazyBatch]:
    """What labels are of, as the runtime sees it: one size together, without padding, uint8 [B, H, W, 3]."""
    parts = batches_by_size(examples, caches, batch_size)
    return [(np.array(chosen), partial(_read_whole, examples, caches, chosen)) for chosen in parts]


def _read_whole(examples: Examples, caches: Sequence[PixelCache], chosen: Sequence[int]) -> Tensor:
    crops = [labelled_crop(examples, caches, index) for index in chosen]
    return torch.from_numpy(np.stack([crop_pixels(examples, caches, crop) for crop in crops]))
