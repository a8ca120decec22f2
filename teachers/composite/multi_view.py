"""Several views of an image, scored one by one: any teacher gets a spread, and so its labels a weight.

A view is the whole image, a crop of it, or either mirrored. The mean over them is the score, how far they disagree the
spread: a label whose score depends on the part of the image deserves less weight than one on which all views agree.

**Scale.** The inner teacher turns each view into its input by itself. One that resizes to a fixed square therefore sees
a crop magnified by 1 / ``crop_fraction``; one that keeps pixels as they are sees it at the same scale, in a smaller
frame.

**Positions of the crops.** As fractions of the free room, the image's side less the crop's: 1 is the centre, 4 are the
corners, 5 the corners and the centre (the five patches of Krizhevsky, Sutskever and Hinton, NeurIPS 2012, section 4.1;
with ``flips`` their ten). For any other number, points of Roberts' R2 sequence ("The unreasonable effectiveness of
quasirandom sequences", 2018), their indices counted from the middle so that the set equals itself turned by 180
degrees, and stretched until the outermost crops touch all four borders (ours).

**Spread.** The score is taken as that of a view drawn at random, so that the law of total variance holds: its variance
is the mean of the views' own variances, where the inner teacher gives them, plus the variance of their scores. The
latter divides by the number of views: they are all there are, not a sample of more, and they overlap, so that the
correction for independent draws would not be right either.

**Cost.** Each view takes the inner teacher's time, and each image that waits for its score the memory of all its views;
the inner batch is never larger than the outer one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError, read_renamed
from pseudo_labels.images import ImageError
from pseudo_labels.records import TeacherStamp
from teachers.base import Teacher, TeacherOutput, pack, sound, unpack

VERSION = 1
"""Raised whenever the positions of the crops, the mean or the spread change."""

# An image that waits for its score holds all its views in memory, so their number has a limit.
MOST_CROPS = 64

_R2 = (0.7548776662466927, 0.5698402909980532)  # 1/g and 1/g^2, g the real root of g^3 = g + 1
_CENTRE = (0.5, 0.5)
_CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
_PLACES = {0: (), 1: (_CENTRE,), 4: _CORNERS, 5: (*_CORNERS, _CENTRE)}


@dataclass(frozen=True)
class Views:
    """The views of an image that are scored; the whole image is always the first.

    Attributes:
        crops: number of crops, at most 64; see the module for their positions.
        crop_fraction: fraction of each side that a crop covers, above 0 and below 1; 0.8 keeps 64 % of the area.
        flips: whether each view is also scored mirrored left to right.

    Raises:
        PocketiqaError: a value of another type or out of range.
    """

    crops: int = 0
    crop_fraction: float = 0.8
    flips: bool = False

    def __post_init__(self) -> None:
        if type(self.crops) is not int or not 0 <= self.crops <= MOST_CROPS:
            raise PocketiqaError(f"views: crops is {self.crops!r}: give a whole number from 0 to {MOST_CROPS}")
        if not isinstance(self.crop_fraction, float) or not 0 < self.crop_fraction < 1:
            raise PocketiqaError(
                f"views: crop_fraction is {self.crop_fraction!r}: give a number above 0 and below 1, such as 0.8"
            )
        if type(self.flips) is not bool:
            raise PocketiqaError(f"views: flips is {self.flips!r}: give true or false")

    @property
    def count(self) -> int:
        """Number of views of an image."""
        return (1 + self.crops) * (2 if self.flips else 1)

    def as_dict(self) -> dict[str, Any]:
        """What changes a score, as JSON values."""
        # Stamps of labels that exist hold the old name of the fraction.
        chosen = {"crops": self.crops, "crop_share": self.crop_fraction, "flips": self.flips, "version": VERSION}
        if not self.crops:
            # Without crops the fraction changes nothing: equal scores get equal stamps.
            del chosen["crop_share"]
        return chosen


def read_views(value: Any) -> Views:
    """Views from an option: a mapping with keys of ``Views``, each of which may be left out, or ``Views`` themselves.

    Raises:
        PocketiqaError: something else, an unknown key, or a value that ``Views`` refuses.
    """
    if isinstance(value, Views):
        return value
    known = [field.name for field in fields(Views)]
    if not isinstance(value, Mapping):
        raise PocketiqaError(f"views {value!r}: give a mapping of {', '.join(known)}, as {{crops: 5, flips: true}}")
    value = read_renamed(value, {"crop_share": "crop_fraction"})
    unknown = [str(key) for key in value if key not in known]
    if unknown:
        raise PocketiqaError(f"views: unknown {', '.join(unknown)}; choose from {', '.join(known)}")
    return Views(**value)


def crop_places(crops: int) -> list[tuple[float, float]]:
    """Positions of the crops, down and to the right, as fractions of the free room in [0, 1]; see the module."""
    if crops in _PLACES:
        return list(_PLACES[crops])
    indices = [number - (crops - 1) / 2 for number in range(crops)]
    down, right = (_stretched([(0.5 + index * step) % 1.0 for index in indices]) for step in _R2)
    return list(zip(down, right, strict=True))


def _stretched(fractions: list[float]) -> list[float]:
    # ``high`` is above ``low``: 0 and 1 crops have no sequence, see ``_PLACES``.
    low, high = min(fractions), max(fractions)
    return [(fraction - low) / (high - low) for fraction in fractions]


def view_images(image: np.ndarray, views: Views) -> list[np.ndarray]:
    """The views of an image: the whole, the crops, and with ``flips`` all of these once more, mirrored.

    Args:
        image: uint8 [H, W, 3].
        views: which.

    Returns:
        ``views.count`` contiguous arrays uint8 [h, w, 3]; the first is ``image`` itself if that is contiguous.
    """
    height, width = image.shape[:2]
    down, right = (max(1, round(views.crop_fraction * side)) for side in (height, width))
    cut = [image]
    for fraction_down, fraction_right in crop_places(views.crops):
        top, left = round(fraction_down * (height - down)), round(fraction_right * (width - right))
        cut.append(image[top : top + down, left : left + right])
    if views.flips:
        cut += [view[:, ::-1] for view in cut]
    return [np.ascontiguousarray(view) for view in cut]


class MultiView:
    """A teacher that scores several views of each image by another teacher (see the module).

    Features are those of the whole image, not mirrored: stored, they lie over the image.

    Args:
        teacher: teacher that scores each view.
        views: which views.

    Raises:
        PocketiqaError: the stamp of ``teacher`` names views already.
    """

    def __init__(self, teacher: Teacher, views: Views):
        self.teacher, self.views = teacher, views
        stamp = teacher.stamp  # once: it may hash all weights
        self._name = stamp.name
        if "views" in stamp.options:
            raise PocketiqaError(f"teacher {stamp.name!r} has views among its options already: build it without these")

    @property
    def stamp(self) -> TeacherStamp:
        """That of the inner teacher, with the views among its options."""
        inner = self.teacher.stamp
        return replace(inner, options={**inner.options, "views": self.views.as_dict()})

    @property
    def needs_reference(self) -> bool:
        """As the inner teacher; a reference is cut and mirrored alike."""
        return self.teacher.needs_reference

    @property
    def feature_names(self) -> tuple[str, ...]:
        """As the inner teacher."""
        return self.teacher.feature_names

    def to(self, device: torch.device) -> "MultiView":
        """Compute on this device from now on."""
        self.teacher.to(device)
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> tuple[Tensor, ...]:
        """All views as input of the inner teacher.

        Returns:
            The tensors of the first view, of the second, ..., see ``items.pack``.

        Raises:
            ImageError: the inner teacher refuses the image or a view of it, such as a crop that is too small.
            PocketiqaError: it cannot be scored.
        """
        images = view_images(image, self.views)
        references = [None] * len(images) if reference is None else view_images(reference, self.views)
        items = [self.teacher.preprocess(images[0], references[0])]
        try:
            items += [self.teacher.preprocess(*pair) for pair in zip(images[1:], references[1:], strict=True)]
        except ImageError as error:  # the whole was accepted: the size in the message is not the image's
            raise ImageError(error.status, f"a view of the image: {error.reason}") from error
        except PocketiqaError as error:
            raise PocketiqaError(f"a view of the image: {error}") from error
        return pack(items)

    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Score items of ``preprocess``, each view of all of them in one call of the inner teacher.

        Returns:
            Mean and spread over the views; with a single view what the inner teacher gives, ``score_std`` included. A
            score that is not finite in one view is NaN.
        """
        features: dict[str, Tensor] = {}
        outputs: list[TeacherOutput] = []
        for position, items in enumerate(zip(*(unpack(item) for item in batch), strict=True)):
            # View by view, not all views in one batch: the memory that the caller's batch size was chosen for suffices.
            output = self.teacher(list(items))
            outputs.append(sound(output, len(batch), self._name))
            # The other views' features are dropped at once; they may be large.
            if position == 0:
                features = output.features
        mean = _mean([output.score.double() for output in outputs])
        return TeacherOutput(mean.float(), _spread(outputs, mean), features)


def _spread(outputs: Sequence[TeacherOutput], mean: Tensor) -> Tensor | None:
    """Standard deviation of a view drawn at random, [B]; an own spread that is missing or not finite counts as none."""
    if len(outputs) == 1:
        return outputs[0].score_std
    variance = _mean([(output.score - mean).square() for output in outputs])
    own = [output.score_std.double() for output in outputs if output.score_std is not None]
    given = [spread.where(spread.isfinite(), 0).square() for spread in own]
    return (variance + sum(given) / len(outputs)).sqrt().float()


def _mean(columns: Sequence[Tensor]) -> Tensor:
    """Added one after another: a sum over an axis may add in another order in another batch."""
    total = columns[0]
    for column in columns[1:]:
        total = total + column
    return total / len(columns)
