"""Decode ahead of the teacher: rows of a pool become teacher input in threads, in order and with bounded memory."""

import threading
from collections import OrderedDict
from collections.abc import Container, Generator, Iterable
from dataclasses import dataclass, replace

import numpy as np

from pseudo_labels.crops import FULL, WHOLE, Crop, RandomCrops
from pseudo_labels.errors import PocketiqaError, WriteError
from pseudo_labels.images import DecodeLimits, ImageError
from pseudo_labels.parallel import in_order
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status
from teachers.base import Item, Teacher

# Decoded but not yet scored: at most this many pixels (a float32 RGB tensor of them is 770 MB) and this many images a
# worker, whichever is less; one image is always let through.
_PIXELS_AHEAD = 64_000_000
_IMAGES_AHEAD = 4


@dataclass(frozen=True)
class Prepared:
    """A row of the pool, ready to be scored, or with the reason why not."""

    ref: ImageRef
    item: Item | None
    status: Status = Status.OK
    reason: str = ""
    view: str = FULL


class Preparer:
    """Turns rows of a pool into input of a teacher. Thread-safe.

    Args:
        pool: pool of the rows.
        teacher: teacher whose ``preprocess`` makes the input.
        limits: limits of decoding.
        seen: ids of images that are left out: the teacher was fitted to them, or to their originals.
        crops: random crop of each image, and the same of its reference; None takes whole images.
    """

    def __init__(
        self, pool: Pool, teacher: Teacher, limits: DecodeLimits, seen: Container[str] = (),
        crops: RandomCrops | None = None,
    ):  # fmt: skip
        self._pool, self._teacher, self._limits, self._seen, self._crops = pool, teacher, limits, seen, crops
        self._references = pool.reference_ids if teacher.needs_reference else frozenset[str]()
        self._recent: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, ref: ImageRef) -> Prepared:
        """Decode a row and its reference; whatever is wrong with the files becomes a status and a reason."""
        if self._crops is None:
            return self._prepared(ref, WHOLE)
        crop = self._crops.of(ref.id)
        return replace(self._prepared(ref, crop), view=crop.view)

    def _prepared(self, ref: ImageRef, crop: Crop) -> Prepared:
        if ref.status != Status.OK:
            return Prepared(ref, None, ref.status, ref.reason)
        if ref.id in self._seen or ref.ref_id in self._seen:
            return Prepared(ref, None, Status.SEEN, "the teacher was fitted to this image, or to its original")
        try:
            image, reference = self.load(ref)
            cut = None if reference is None else crop.cut(reference)
            return Prepared(ref, self._teacher.preprocess(crop.cut(image), cut))
        except ImageError as error:
            return Prepared(ref, None, error.status, error.reason)
        except WriteError:  # a full disk is no fault of the image
            raise
        except PocketiqaError as error:
            return Prepared(ref, None, Status.FAILED, str(error))
        # One image that is too large becomes a row with a reason, like a corrupt file. The others are still labelled.
        except MemoryError:
            return Prepared(ref, None, Status.FAILED, "out of memory while decoding")

    def load(self, ref: ImageRef) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels of a row, and of its reference if the teacher needs one; uint8 [H, W, 3].

        Raises:
            ImageError: one of them cannot be used.
        """
        image = self._pool.load(ref, self._limits)
        return image, self._reference(ref, image) if self._teacher.needs_reference else None

    def _reference(self, ref: ImageRef, image: np.ndarray) -> np.ndarray:
        if not ref.ref_id:
            if ref.id in self._references:
                return image  # an original that others were made from is its own reference
            raise ImageError(Status.NO_REFERENCE, "an original that no distorted image of the pool refers to")
        try:
            return self._load_reference(ref.ref_id)
        except PocketiqaError as error:
            raise ImageError(Status.NO_REFERENCE, f"clean image {ref.ref_id}: {error}") from error

    def _load_reference(self, ref_id: str) -> np.ndarray:
        # Under the lock: the distorted versions of an image stand together, and several threads want the same one.
        with self._lock:
            if ref_id not in self._recent:
                self._recent[ref_id] = self._pool.load(self._pool.by_id(ref_id), self._limits)
                # Two: while threads still prepare the last copies of one image, others have begun with the next.
                while len(self._recent) > 2:
                    self._recent.popitem(last=False)
            return self._recent[ref_id]


def read_ahead(
    refs: Iterable[ImageRef], prepare: Preparer, *, workers: int, batch_size: int
) -> Generator[Prepared, None, None]:
    """Prepare rows in ``workers`` threads, some ahead of the consumer; results come in the order of ``refs``."""
    return in_order(
        prepare,
        refs,
        workers,
        ahead=2 * batch_size + _IMAGES_AHEAD * workers,
        # By the size that the pool recorded: the file is not open yet. Bad rows have size 0 and hold nothing up.
        size=lambda ref: ref.width * ref.height,
        size_ahead=_PIXELS_AHEAD,
    )
