"""Samples decoded ahead of the model that looks at them, in order and with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from distill.evaluation.samples import Sample
from pseudo_labels.images import DecodeLimits, ImageError, decode
from pseudo_labels.records import Status

Pixels = tuple[np.ndarray, np.ndarray | None]
"""An image and, where the model compares, its clean reference; uint8 [H, W, 3] each."""

_AHEAD_PER_WORKER = 2


def pixels_of(sample: Sample, needs_reference: bool, limits: DecodeLimits) -> Pixels | ImageError:
    """The decoded sample, with its reference if that is needed; or what is wrong with either."""
    try:
        rgb = decode(sample.read(), limits)
        if not needs_reference:
            return rgb, None
        if sample.reference is None:
            return ImageError(Status.NO_REFERENCE, "the model compares with a clean reference, and there is none")
        try:
            return rgb, decode(sample.reference(), limits)
        except ImageError as error:
            return ImageError(Status.NO_REFERENCE, f"the clean reference cannot be used: {error.reason}")
    except ImageError as error:
        return error


def ahead(work: Callable[[Sample], Any], samples: Sequence[Sample], workers: int) -> Iterator[Any]:
    """Results in order, made by threads, with at most a few waiting: memory does not grow with the samples."""
    if workers <= 1:
        yield from map(work, samples)
        return
    executor = ThreadPoolExecutor(workers, thread_name_prefix="pocketiqa-decode")
    waiting: deque[Future[Any]] = deque()
    try:
        for sample in samples:
            waiting.append(executor.submit(work, sample))
            if len(waiting) >= workers * _AHEAD_PER_WORKER:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
