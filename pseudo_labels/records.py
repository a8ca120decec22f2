"""The rows that pass between stages: images of a pool, the labels of a teacher, and what became of an image."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from pseudo_labels.crops import FULL
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of

# A label's weight falls to a half where its spread reaches this, a tenth of the scale: about how far the mean ratings
# of two panels of observers are apart.
SPREAD_OF_HALF_WEIGHT = 0.1


def confidence(score_std: float) -> float:
    """Weight of a label in [0, 1]: inverse variance, ``1 / (1 + (std / 0.1)^2)``; 1 if the spread is not known.

    The expected squared error of a label is taken as a floor, common to all labels, plus the teacher's own variance;
    the best weight is the inverse of that sum, here scaled to 1 for no spread.
    """
    if not math.isfinite(score_std):
        return 1.0
    return 1.0 / (1.0 + (score_std / SPREAD_OF_HALF_WEIGHT) ** 2)


class Status(StrEnum):
    """What became of an image; every row that is not ``ok`` carries a reason in words."""

    OK = "ok"
    DUPLICATE = "duplicate"  # the same bytes as an earlier image of the pool
    MISSING = "missing"  # no such file: never there, vanished, or a broken link
    UNREADABLE = "unreadable"  # there, but cannot be opened (permissions, input or output error)
    EMPTY = "empty"  # zero bytes, or a mask without a pixel
    NOT_AN_IMAGE = "not_an_image"  # no format that we accept
    CORRUPT = "corrupt"  # an accepted format, but truncated or altered; a mask that does not fit its image
    TOO_LARGE = "too_large"  # above the declared pixel limit
    TOO_SMALL = "too_small"  # below the declared side
    CHANGED = "changed"  # the bytes are not those that entered the pool
    NO_REFERENCE = "no_reference"  # a full-reference teacher, and the clean image is not available
    SEEN = "seen"  # the teacher was fitted to this image, and only labels of unseen ones were wanted
    FAILED = "failed"  # the model gave no finite score
    DROPPED = "dropped"  # teachers gave scores, but fusion did not keep the row; a region outside the limits


class ImageError(PocketiqaError):
    """An image that cannot be used: ``status`` for programs, ``reason`` for persons (also ``str(error)``)."""

    def __init__(self, status: Status, reason: str):
        # Reasons quote other people's text: they become one line that can be printed and stored.
        reason = "".join(letter if letter.isprintable() else "?" for letter in " ".join(reason.split()))
        # Both stay in ``args``, so that the error survives a trip between processes.
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


# 96 bits: that any two of a billion images have one id has a chance below 1e-11.
ID_DIGITS = 24


def id_of(sha256: str) -> str:
    """Id of an image in every pool: the first digits of the SHA-256 of its bytes."""
    return sha256[:ID_DIGITS]


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One row of a pool manifest.

    Attributes:
        id: first 24 hex digits of ``sha256``; for a bad file without content, of its address. Unique among ``ok`` rows.
        uri: where the bytes are; without a scheme and not absolute, relative to the pool's folder.
        sha256: of the encoded bytes, hex; empty if they could not be read.
        dhash: 64-bit difference hash, 16 hex digits; empty for a bad file.
        bytes: encoded size.
        width: pixels after the EXIF turn, 0 for a bad file.
        height: pixels after the EXIF turn, 0 for a bad file.
        status: see ``Status``.
        reason: words for a person; if ``ok``, a note (a broken colour profile was ignored), nearly always empty.
        group: images of one scene have the same; never split across train, validation and test.
        ref_id: ``id`` of the clean reference in the same pool; empty for an original.
        distortion: name in the distortion catalogue; empty for an original. Of a copy that is distorted in several
            regions, name and level of each, see ``joined_distortions``.
        level: severity from above 0 to 5, 0 for an original; of several regions the highest.
        region: id of the region of the reference that is distorted, or ids joined by ``+``; empty if the whole image
            is, or none.
    """

    id: str
    uri: str
    sha256: str = ""
    dhash: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0
    status: Status = Status.OK
    reason: str = ""
    group: str = ""
    ref_id: str = ""
    distortion: str = ""
    level: float = 0.0
    region: str = ""

    @property
    def distorted_regions(self) -> tuple["RegionDistortion", ...]:
        """What was done to which region; empty unless the image is a copy that is distorted in regions alone."""
        regions = self.region.split(_JOIN) if self.region else []
        if len(regions) < 2:
            return tuple(RegionDistortion(region, self.distortion, self.level) for region in regions)
        done = (one.rpartition(_LEVEL) for one in self.distortion.split(_JOIN))
        return tuple(
            RegionDistortion(region, name, float(level)) for region, (name, _, level) in zip(regions, done, strict=True)
        )


@dataclass(frozen=True, slots=True)
class RegionDistortion:
    """What was done to one region of a copy.

    Attributes:
        region: id of the region.
        distortion: name in the distortion catalogue.
        level: severity from above 0 to 5.
    """

    region: str
    distortion: str
    level: float


_JOIN, _LEVEL = "+", ":"


def joined_distortions(done: Sequence[RegionDistortion]) -> dict[str, Any]:
    """The fields ``region``, ``distortion`` and ``level`` of an ``ImageRef`` that is distorted in these regions.

    One region gives its own; several give ``id1+id2``, ``jpeg:2.50+darken:1.04`` and the highest level.
    """
    level = max(one.level for one in done)
    region = _JOIN.join(one.region for one in done)
    if len(done) == 1:
        return {"region": region, "distortion": done[0].distortion, "level": level}
    names = _JOIN.join(f"{one.distortion}{_LEVEL}{one.level:.2f}" for one in done)
    return {"region": region, "distortion": names, "level": level}


@dataclass(frozen=True)
class TeacherStamp:
    """Who labelled: enough to tell two teachers apart and to repeat the labels.

    Attributes:
        name: registry name, such as ``reference``.
        version: version of the teacher's code; raised whenever its scores change.
        weights: digest of the weights (or of the constants of a teacher without weights).
        options: everything else that changes a score, as JSON values.
        scale: what 0 and 1 mean, for a person.
        licence: licence of weights and training data, as far as known.
    """

    name: str
    version: int
    weights: str
    options: dict[str, Any] = field(default_factory=dict)
    scale: str = "0 worst, 1 best"
    licence: str = "unknown"

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """Identity: equal stamps give equal labels."""
        return digest_of(self.as_dict())


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """One row of a label store.

    Attributes:
        id: id of the image in its pool.
        uri: as in the pool.
        sha256: of the bytes that were labelled.
        view: ``full``, or the name of an augmented view (a row of its own).
        status: see ``Status``.
        reason: words for a person; empty if ``ok``.
        score: in [0, 1], 1 best; NaN unless ``ok``.
        score_std: the teacher's own spread, in units of the score, at least 0; NaN if it gives none.
        confidence: weight in distillation, in [0, 1].
        batch: number of images that the teacher scored together with this one, itself included, 1 and more; 0 where it
            has no score, and in stores that do not say (``StoreSpec.batch_size``).
    """

    id: str
    uri: str
    sha256: str = ""
    view: str = FULL
    status: Status = Status.OK
    reason: str = ""
    score: float = float("nan")
    score_std: float = float("nan")
    confidence: float = 1.0
    batch: int = 0
