"""Does the score stay when the same picture comes in another file?"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image

from distill.stress.photograph import Photograph, resized
from students.runtime import Scorer

# All above the input of the shipped students (256 and 288 pixels): each is shrunk to the same size.
SIDES_PX = (384, 512, 768, 1024)
_SHOWN = 5
# Tag of the orientation in EXIF.
_ORIENTATION = 0x0112
# The three EXIF orientations of a camera that was turned, and the quarter turns against the clock as it stores them.
_TURNS = {3: 2, 6: 1, 8: -1}


@dataclass(frozen=True)
class SizeScores:
    """Scores of one photograph at ``SIDES_PX``, in that order; in [0, 1]."""

    photograph: str
    scores: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Highest minus lowest score: all sizes lie within it of each other."""
        return max(self.scores) - min(self.scores)


@dataclass(frozen=True)
class Sizes:
    """Spread of the score between sizes of one picture.

    Attributes:
        mean_spread: over photographs, of highest minus lowest score among the sizes. (The mean difference of two sizes
            is smaller: at most two thirds of it.)
        mean_score: over photographs, at each of ``SIDES_PX``: whether larger pictures score higher as a rule.
        worst: the photographs with the largest spread.
    """

    mean_spread: float
    mean_score: tuple[float, ...]
    worst: tuple[SizeScores, ...]


def at_sizes(scorer: Scorer, photograph: Photograph) -> SizeScores:
    """Score a photograph with longer sides of ``SIDES_PX``, each made from the original by Lanczos.

    Sizes above the original's are enlarged, which adds no detail; the student shrinks them to its input again.

    Raises:
        ImageError: the model gives no finite score.
    """
    # Each from the original: made from each other, the smaller ones would have been resampled several times.
    pictures = (resized(photograph.original, side) for side in SIDES_PX)
    return SizeScores(photograph.name, tuple(scorer.score(picture).score for picture in pictures))


def sizes(photographs: Sequence[SizeScores]) -> Sizes:
    """Summarise photographs, at least one."""
    columns = zip(*(one.scores for one in photographs), strict=True)
    return Sizes(
        mean_spread=fmean(one.spread for one in photographs),
        mean_score=tuple(map(fmean, columns)),
        worst=tuple(sorted(photographs, key=lambda one: -one.spread)[:_SHOWN]),
    )


@dataclass(frozen=True)
class FormatDifferences:
    """Absolute differences between scores of one photograph in two files, in [0, 1].

    Attributes:
        photograph: name of the photograph.
        exif: JPEG stored turned, with the EXIF orientation that says so, against JPEG stored upright; the largest of
            the three rotations. Both of quality 100: a lossless pair would show nothing of what cameras write.
        jpeg: JPEG of quality 100 without chroma subsampling against PNG.
        alpha: PNG with an opaque alpha channel against PNG without.
    """

    photograph: str
    exif: float
    jpeg: float
    alpha: float

    @property
    def largest(self) -> float:
        """The largest of the three differences."""
        return max(self.exif, self.jpeg, self.alpha)


@dataclass(frozen=True)
class Formats:
    """Differences of the score between files of one picture, each the largest of all photographs.

    Attributes:
        exif: largest difference by EXIF orientation.
        jpeg: largest difference between JPEG and PNG.
        alpha: largest difference by an opaque alpha channel.
        worst: the photographs with the largest differences.
    """

    exif: float
    jpeg: float
    alpha: float
    worst: tuple[FormatDifferences, ...]


def in_formats(scorer: Scorer, photograph: Photograph) -> FormatDifferences:
    """Score a photograph in six files.

    Raises:
        ImageError: the model gives no finite score.
    """
    rgb = photograph.rgb
    png, jpeg = scorer.score(_png(rgb)).score, scorer.score(_jpeg(rgb)).score
    turned = [scorer.score(turned_jpeg(rgb, orientation)).score for orientation in _TURNS]
    opaque = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    alpha = scorer.score(_png(np.concatenate([rgb, opaque], axis=2))).score
    # Against a JPEG, not the PNG: the difference shall be that of turning, not that of the codec.
    exif = max(abs(score - jpeg) for score in turned)
    return FormatDifferences(photograph.name, exif, abs(jpeg - png), abs(alpha - png))


def formats(photographs: Sequence[FormatDifferences]) -> Formats:
    """Summarise photographs, at least one."""
    return Formats(
        # The largest, not the mean: one picture that scores differently in another file is a fault.
        exif=max(one.exif for one in photographs),
        jpeg=max(one.jpeg for one in photographs),
        alpha=max(one.alpha for one in photographs),
        worst=tuple(sorted(photographs, key=lambda one: -one.largest)[:_SHOWN]),
    )


def turned_jpeg(rgb: np.ndarray, orientation: int) -> bytes:
    """A JPEG that is stored turned and says by EXIF how to turn it upright: 3 (by 180 degrees), 6 or 8 (by 90)."""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return _jpeg(np.rot90(rgb, _TURNS[orientation]), exif=exif)


def _jpeg(rgb: np.ndarray, **options: Any) -> bytes:
    return _encoded(rgb, "JPEG", quality=100, subsampling="4:4:4", **options)


def _png(pixels: np.ndarray) -> bytes:
    # The least compression: the pixels are the same, and it takes a fifth of the time.
    return _encoded(pixels, "PNG", compress_level=1)


def _encoded(pixels: np.ndarray, file_format: str, **options: Any) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, file_format, **options)
    return data.getvalue()
