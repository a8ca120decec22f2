"""Images to score, wherever their bytes are: files of a benchmark or rows of a pool."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill.evaluation.benchmarks.records import Benchmark
from pseudo_labels.images import read_bytes
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef


@dataclass(frozen=True)
class Sample:
    """An image to score, wherever its bytes are.

    Attributes:
        id: unique among the samples.
        read: gives the encoded bytes, or raises ``ImageError``.
        reference: gives the encoded bytes of the clean reference; None without one.
    """

    id: str
    read: Callable[[], bytes]
    reference: Callable[[], bytes] | None = None


def benchmark_samples(benchmark: Benchmark) -> list[Sample]:
    """The rows of a benchmark, in order."""
    return [Sample(row.id, _reader(row.path), _reader(row.ref) if row.ref else None) for row in benchmark.rows]


def _reader(path: str) -> Callable[[], bytes]:
    # A function for each path: a lambda inside the loop would read the last path for every sample.
    return lambda: read_bytes(path)


def pool_samples(pool: Pool, ids: Sequence[str] | None = None) -> list[Sample]:
    """Images of a pool that are ``ok``: all, or those of ``ids`` in that order; references come from the same pool."""
    refs = pool.ok() if ids is None else [pool.by_id(id) for id in ids]
    return [Sample(ref.id, _pool_reader(pool, ref), _reference_reader(pool, ref)) for ref in refs]


def _pool_reader(pool: Pool, ref: ImageRef) -> Callable[[], bytes]:
    return lambda: pool.read(ref)


def _reference_reader(pool: Pool, ref: ImageRef) -> Callable[[], bytes] | None:
    # An original is its own reference, as in labelling.
    return _pool_reader(pool, pool.by_id(ref.ref_id) if ref.ref_id else ref)
