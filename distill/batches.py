"""Training batches: order, crops and flips are functions of the seed and the number of images seen, nothing else."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from distill.cached_features import FeatureReader
from distill.data import Examples
from distill.pixels import PixelCache
from distill.train_config import ImageSettings
from pseudo_labels.errors import PocketiqaError

_ORDER, _VIEW = 1, 2  # streams of randomness that must not meet


@dataclass(frozen=True)
class Batch:
    """One process's share of a micro-batch.

    Attributes:
        pixels: uint8 [B, H, W, 3].
        target: float32 [B] in [0, 1].
        weight: float32 [B], mean about 1.
        valid: float32 [B, 2], the share of height and width that is image and not padding.
        feature: float32 [B, ...] standardised teacher features, if training compares with them.
        feature_weight: float32 [B], ``weight`` or 0 for rows without a feature.
    """

    pixels: Tensor
    target: Tensor
    weight: Tensor
    valid: Tensor
    feature: Tensor | None = None
    feature_weight: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same on ``device``."""
        moved = (value if value is None else value.to(device, non_blocking=True) for value in vars(self).values())
        return Batch(*moved)  # type: ignore[arg-type]


class Order:
    """An endless sequence of examples: each pass is a permutation, and source weights say how often each occurs."""

    def __init__(self, examples: Examples, source_weights: Sequence[float], seed: int):
        self._members = [np.flatnonzero(examples.source == number) for number in range(len(source_weights))]
        self._counts = [round(len(rows) * weight) for rows, weight in zip(self._members, source_weights, strict=True)]
        self._seed = seed
        self._length = sum(self._counts)
        if self._length == 0:
            raise PocketiqaError(f"source weights {list(source_weights)} leave no image in a pass: raise them")
        self._pass = lru_cache(maxsize=2)(self._permuted)

    def _permuted(self, number: int) -> np.ndarray:
        generator = np.random.default_rng([self._seed, _ORDER, number])
        drawn = []
        for rows, count in zip(self._members, self._counts, strict=True):
            whole, rest = divmod(count, max(len(rows), 1))
            drawn += [rows] * whole + [generator.permutation(rows)[:rest]]
        return generator.permutation(np.concatenate(drawn))

    def at(self, first: int, count: int) -> np.ndarray:
        """Examples number ``first`` to ``first + count`` of the sequence."""
        positions = np.arange(first, first + count)
        return np.array([self._pass(int(p // self._length))[p % self._length] for p in positions], dtype=np.int64)


class BatchMaker:
    """Makes the batches of one process.

    Args:
        examples: the training part.
        caches: pixels of each source; sources of one pool share theirs.
        order: which example comes when.
        images: crop and flip.
        per_process: images of one micro-batch in one process.
        rank: of this process.
        world: number of processes.
        seed: of crops and flips.
        features: cached teacher features, if training compares with them.
    """

    def __init__(
        self, examples: Examples, caches: Sequence[PixelCache], order: Order, images: ImageSettings, *,
        per_process: int, rank: int, world: int, seed: int, features: FeatureReader | None = None,
    ):  # fmt: skip
        self._examples = examples.with_mean_weight_one()
        self._caches = caches
        self._order = order
        self._crop = images.crop_size
        self._per_process, self._rank, self._world, self._seed = per_process, rank, world, seed
        self._features = features
        sizes = np.stack([self._size(index) for index in range(len(examples))])
        self._canvas = (self._crop, self._crop) if self._crop else tuple(int(side) for side in sizes.max(0))
        # A pool with labels of mirror images brings its flips as rows of their own.
        mirrored = {id(caches[number]) for number in set(examples.source[examples.flipped].tolist())}
        self._flip = [images.horizontal_flip and id(cache) not in mirrored for cache in caches]

    def _size(self, index: int) -> np.ndarray:
        return self._caches[self._examples.source[index]].sizes[self._examples.row[index]]

    def make(self, micro_batch: int) -> Batch:
        """The share of this process in micro-batch number ``micro_batch`` of the run."""
        first = (micro_batch * self._world + self._rank) * self._per_process
        chosen = self._order.at(first, self._per_process)
        pixels = np.empty((len(chosen), *self._canvas, 3), dtype=np.uint8)
        valid = np.empty((len(chosen), 2), dtype=np.float32)
        for place, index in enumerate(chosen):
            generator = np.random.default_rng([self._seed, _VIEW, first + place])
            view = self._view(int(index), generator)
            valid[place] = np.divide(view.shape[:2], self._canvas)
            pixels[place] = _padded(view, self._canvas)
        tensors = [pixels, self._examples.target[chosen], self._examples.weight[chosen], valid]
        if self._features is not None:
            tensors.append(np.stack([self._features.read(self._examples, int(index)) for index in chosen]))
            tensors.append(np.where(self._examples.shard[chosen] >= 0, tensors[2], np.float32(0)))
        return Batch(*(torch.from_numpy(array) for array in tensors))

    def _view(self, index: int, generator: np.random.Generator) -> np.ndarray:
        source, row = int(self._examples.source[index]), int(self._examples.row[index])
        height, width = (int(side) for side in self._size(index))
        # Drawn whether used or not, so that every option sees the same crops.
        random_top, random_left, random_flip = generator.random(3)
        tall, wide = min(height, self._canvas[0]), min(width, self._canvas[1])
        top, left = int(random_top * (height - tall + 1)), int(random_left * (width - wide + 1))
        view = self._caches[source].read(row, top, tall)[:, left : left + wide]
        flip = bool(self._examples.flipped[index]) ^ (self._flip[source] and random_flip < 0.5)
        return view[:, ::-1] if flip else view


def _padded(view: np.ndarray, canvas: tuple[int, ...]) -> np.ndarray:
    """Fill up at the bottom and right with the mirrored image: no foreign content, no hard edge."""
    missing = [side - found for side, found in zip(canvas, view.shape[:2], strict=True)]
    return view if not any(missing) else np.pad(view, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")


def whole_image_batches(
    examples: Examples, caches: Sequence[PixelCache], batch_size: int
) -> Iterator[tuple[np.ndarray, Callable[[], Tensor]]]:
    """Whole images as the runtime sees them: those of one size together, without padding.

    Yields:
        Indices into ``examples``, and a function that reads them: uint8 [B, H, W, 3].
    """
    sizes: dict[tuple[int, int], list[int]] = {}
    for index in range(len(examples)):
        height, width = caches[examples.source[index]].sizes[examples.row[index]]
        sizes.setdefault((int(height), int(width)), []).append(index)
    for indices in sizes.values():
        for start in range(0, len(indices), batch_size):
            chosen = indices[start : start + batch_size]
            yield np.array(chosen), partial(_read_whole, examples, caches, chosen)


def _read_whole(examples: Examples, caches: Sequence[PixelCache], chosen: Sequence[int]) -> Tensor:
    pixels = [caches[examples.source[index]].read(int(examples.row[index])) for index in chosen]
    flips = [view[:, ::-1] if examples.flipped[index] else view for index, view in zip(chosen, pixels, strict=True)]
    return torch.from_numpy(np.stack(flips))
