"""Teacher features from label stores, read row by row: memory stays flat however large the store."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import safetensors

from distill.data import Examples, Source
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.shards import FEATURES

_STATISTICS_ROWS = 256
_SMALLEST_DEVIATION = 1e-6


class Standard:
    """Mean 0 and deviation 1 by the channel, so that a feature loss starts near 1 whatever the teacher's scale.

    Args:
        values: [N, C, ...] features of a sample.
    """

    def __init__(self, values: np.ndarray):
        axes = (0, *range(2, values.ndim))
        self.mean = values.mean(axes, keepdims=True, dtype=np.float64)[0].astype(np.float32)
        deviation = values.std(axes, keepdims=True, dtype=np.float64)[0]
        self.scale = 1 / np.maximum(deviation, _SMALLEST_DEVIATION).astype(np.float32)


class FeatureReader:
    """Cached teacher features of several sources, read row by row, standardised over a sample of the training rows.

    Attributes:
        shape: of one feature, channels first.
    """

    def __init__(self, sources: Sequence[Source], name: str, examples: Examples, seed: int):
        self._stores = [source.feature_store for source in sources]
        self._name = name
        self._handle = lru_cache(maxsize=64)(self._open)
        rows = np.flatnonzero(examples.shard >= 0)
        if not len(rows):
            raise PocketiqaError(f"no training image has the feature {name!r}: label more images with features")
        self.shape = self._raw(examples, int(rows[0])).shape
        sample = np.sort(np.random.default_rng(seed).permutation(rows)[:_STATISTICS_ROWS])
        self._standard = Standard(np.stack([self._checked(examples, int(row)) for row in sample]))

    def _open(self, source: int, shard: int) -> Any:
        store = self._stores[source]
        assert store is not None, "only images with a feature have a shard"
        return safetensors.safe_open(store.shard_folder(shard) / FEATURES, framework="numpy").get_slice(self._name)

    def _raw(self, examples: Examples, index: int) -> np.ndarray:
        place = int(examples.shard_row[index])
        handle = self._handle(int(examples.source[index]), int(examples.shard[index]))
        return np.asarray(handle[place : place + 1])[0].astype(np.float32)

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
