"""Features of a set of images, cached in a folder so that they are computed once.

A part file holds some hundred images and exists whole or not at all: an interrupted run loses at most one part.
"""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.evaluation.predictions import Pixels, decoded_ahead
from distill.evaluation.samples import Sample
from distill.leakage.extractor import FeatureExtractor
from distill.leakage.image_sets import Image, ImageSet
from distill.leakage.neighbours import NotComparableError
from pseudo_labels import outputs
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import sha256_bytes, write_atomic
from pseudo_labels.images import DEFAULT_LIMITS, ImageError
from pseudo_labels.records import Status

KIND = "features"
# Images per part file: few files for a large set, and little to repeat after an interruption.
_PART_IMAGES = 256
_EXAMPLES = 20

Step = Callable[[int], None]
# Features (None if there are none), status and reason of one image.
_Row = tuple[NDArray[np.float32] | None, str, str]


@dataclass(frozen=True)
class Embeddings:
    """The images of a set that have features, and why others have none.

    Attributes:
        images: images that have features, N.
        vectors: float32 [N, D], in the order of ``images``.
        without: id, status and reason of each other image.
    """

    images: tuple[Image, ...]
    vectors: NDArray[np.float32]
    without: tuple[tuple[str, str, str], ...]

    def coverage(self) -> dict[str, object]:
        """JSON form: how many images have features, and why others have none."""
        return {
            "images": len(self.images) + len(self.without),
            "compared": len(self.images),
            "without": dict(sorted(Counter(status for _, status, _ in self.without).items())),
            "examples": [dict(zip(("id", "status", "reason"), row, strict=True)) for row in self.without[:_EXAMPLES]],
        }


def embed(
    image_set: ImageSet, by: FeatureExtractor, folder: Path, *, workers: int = 2, step: Step = lambda done: None
) -> Embeddings:
    """Features of every image of a set; those that ``folder`` holds of the same images and model are used again.

    Args:
        image_set: images to embed.
        by: extractor of the features.
        folder: cache folder of this set and extractor; features of another set or extractor in it are replaced.
        workers: number of threads that decode images ahead.
        step: called with the number of images done since the last call.

    Raises:
        NotComparableError: no image has features.
        PocketiqaError: the feature vectors differ in length from image to image.
        StorageFullError: the disk is full; finished parts stay.
    """
    with outputs.exclusively(folder):
        _claim(folder, {"images": image_set.digest, "by": by.identity, "kind": by.kind})
        rows = _embedded(image_set, by, folder, workers=workers, step=step)
    return _collected(image_set, by, rows)


def _embedded(image_set: ImageSet, by: FeatureExtractor, folder: Path, *, workers: int, step: Step) -> list[_Row]:
    known = outputs.read_manifest(folder, KIND).content.get("parts", {})
    rows: list[_Row] = []
    digests: dict[str, str] = {}
    for start in range(0, len(image_set.images), _PART_IMAGES):
        images, path = image_set.images[start : start + _PART_IMAGES], folder / f"part-{start // _PART_IMAGES:05d}.npz"
        data = _reusable(path, known)
        if data is None:
            part = _computed([image.sample for image in images], by, workers, step)
            data = _packed(part)
            write_atomic(path, data)
        else:
            part = _unpacked(data)
            step(len(images))
        digests[path.name] = sha256_bytes(data)
        rows += part
    # Written last, when all parts are in place; from now on altered parts are noticed.
    outputs.finish(folder, {"parts": digests})
    return rows


def _claim(folder: Path, spec: dict[str, object]) -> None:
    try:
        outputs.claim(folder, KIND, spec)
    except OutputConflictError:
        outputs.read_manifest(folder, KIND)  # raises unless the folder is a cache of features: nothing else is removed
        outputs.claim(folder, KIND, spec, overwrite=True)


def _reusable(path: Path, known: dict[str, str]) -> bytes | None:
    """The bytes of a part that can be used again: it exists and is unaltered."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    # Parts of an unfinished folder have no digest yet, but are in place only if they were written whole.
    return data if known.get(path.name) in (None, sha256_bytes(data)) else None


def _computed(samples: Sequence[Sample], by: FeatureExtractor, workers: int, step: Step) -> list[_Row]:
    rows = []
    for pixels in decoded_ahead(samples, by.needs_reference, DEFAULT_LIMITS, workers):
        rows.append(_row(by, pixels))
        step(1)
    return rows


def _row(by: FeatureExtractor, pixels: Pixels | ImageError) -> _Row:
    if isinstance(pixels, ImageError):
        return None, pixels.status.value, pixels.reason
    try:
        vector = by.extract(*pixels)
    except ImageError as error:
        return None, error.status.value, error.reason
    except PocketiqaError as error:
        return None, Status.FAILED.value, str(error)
    if not np.isfinite(vector).all():
        return None, Status.FAILED.value, "the model gave features that are not finite"
    return vector, Status.OK.value, ""


def _packed(rows: Sequence[_Row]) -> bytes:
    widths = {len(vector) for vector, _, _ in rows if vector is not None}
    if len(widths) > 1:
        raise PocketiqaError(
            f"the feature has {min(widths)} numbers for one image and {max(widths)} for another: choose one that does "
            "not depend on the size of the image"
        )
    # Images without features get a row of zeros: arrays of one shape load without pickle.
    width = widths.pop() if widths else 0
    vectors = np.array([np.zeros(width, np.float32) if row[0] is None else row[0] for row in rows], np.float32)
    buffer = io.BytesIO()
    statuses, reasons = np.array([row[1] for row in rows], str), np.array([row[2] for row in rows], str)
    np.savez(buffer, vectors=vectors, statuses=statuses, reasons=reasons)
    return buffer.getvalue()


def _unpacked(data: bytes) -> list[_Row]:
    with np.load(io.BytesIO(data), allow_pickle=False) as part:
        vectors, statuses, reasons = part["vectors"], part["statuses"].tolist(), part["reasons"].tolist()
    triples = zip(vectors, statuses, reasons, strict=True)
    return [(vector if status == Status.OK else None, status, reason) for vector, status, reason in triples]


def _collected(image_set: ImageSet, by: FeatureExtractor, rows: Sequence[_Row]) -> Embeddings:
    pairs = list(zip(image_set.images, rows, strict=True))
    embedded = [(image, row[0]) for image, row in pairs if row[0] is not None]
    without = tuple((image.sample.id, status, reason) for image, (vector, status, reason) in pairs if vector is None)
    if not embedded:
        why = f", such as {without[0][0]}: {without[0][2]}" if without else ""
        raise NotComparableError(f"{by.name} has features for none of the {len(rows)} images of {image_set.name}{why}")
    first, width = embedded[0][0].name, len(embedded[0][1])
    # One number cannot be compared by its direction: every cosine would be -1, 0 or 1.
    if len({len(vector) for _, vector in embedded}) > 1 or width < 2:
        raise PocketiqaError(
            f"feature {by.feature!r} of {by.name} has {width} numbers for {first}: at least 2 are needed, as many for "
            "every image; choose another --feature"
        )
    return Embeddings(tuple(image for image, _ in embedded), np.stack([vector for _, vector in embedded]), without)
