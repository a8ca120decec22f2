"""The interface of a teacher: anything that scores images on a declared scale."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import TeacherStamp

# One image as the teacher wants it: a tensor, or several (an image and its reference).
Item = Tensor | tuple[Tensor, ...]

# Scores this far outside [0, 1] are rounding, and clamped: one step of float16 above 1, in which a network may compute.
# What is farther outside is another scale.
_ROUNDING = 2**-10


@dataclass
class TeacherOutput:
    """The scores and features of a batch.

    Attributes:
        score: [B] in [0, 1], 1 best; not finite where it has no answer.
        score_std: [B], its own spread in units of the score, at least 0; None if it gives none.
        features: name to [B, ...]; every name of ``Teacher.feature_names``, unless it has none.
    """

    score: Tensor
    score_std: Tensor | None = None
    features: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Teacher(Protocol):
    """The interface; a class of the user's own needs no base class.

    Attributes:
        stamp: identity; equal stamps must give equal scores.
        needs_reference: whether it compares an image with its clean reference.
        feature_names: feature maps that it can give; may be empty.
    """

    @property
    def stamp(self) -> TeacherStamp: ...  # noqa: D102

    @property
    def needs_reference(self) -> bool: ...  # noqa: D102

    @property
    def feature_names(self) -> tuple[str, ...]: ...  # noqa: D102

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Item:
        """Turn pixels into input; runs in decoding threads, several at a time.

        Args:
            image: uint8 [H, W, 3], RGB.
            reference: the clean image, if ``needs_reference``; else None.

        Returns:
            CPU tensors; images of equal shapes are put into one batch.

        Raises:
            PocketiqaError: this image cannot be scored; it becomes a row with this reason.
        """
        ...

    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Score items of equal shapes; a score must not depend on what else is in the batch."""
        ...

    def to(self, device: torch.device) -> Any:
        """Move the model; returns itself."""
        ...


@runtime_checkable
class RegionTeacher(Protocol):
    """A teacher that scores regions of an image; it may be a ``Teacher`` of whole images, too.

    Its answer for a region is any object with ``quality`` in [0, 1] and, as far as it gives them, the other values of
    ``pseudo_labels.regions.store.RegionLabel``: importance, type, severity, spreads, status, reason.
    """

    @property
    def stamp(self) -> TeacherStamp: ...  # noqa: D102

    def score_regions(self, image: np.ndarray, masks: Iterable[np.ndarray]) -> Sequence[Any]:
        """Score the regions of one image.

        Args:
            image: uint8 [H, W, 3], RGB.
            masks: one bool [H, W] a region, with at least one pixel; made one by one as they are read.

        Returns:
            One answer for each mask, in their order.

        Raises:
            PocketiqaError: this image cannot be scored; its regions become rows with this reason.
        """
        ...

    def to(self, device: torch.device) -> Any:
        """Move the model; returns itself."""
        ...


TeacherBuilder = Callable[..., Teacher]
"""Name and options -> teacher, as ``registry.build_teacher``; handed to teachers that are made of other teachers."""


def stack(batch: Sequence[Item], device: torch.device | str) -> tuple[Tensor, ...]:
    """Items of equal shapes as tensors with a leading batch axis, on a device; one for each tensor of an item."""
    columns = zip(*((item,) if isinstance(item, Tensor) else item for item in batch), strict=True)
    return tuple(torch.stack(column).to(device) for column in columns)


def shapes(item: Item) -> tuple[Any, ...]:
    """What items of one batch have in common: shape and type of each tensor."""
    tensors = (item,) if isinstance(item, Tensor) else item
    return tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)


def check_teacher(teacher: Any, name: str) -> Any:
    """The same object, if it can be used as a teacher of whole images or, with ``score_regions``, of regions.

    Raises:
        PocketiqaError: it lacks a member; the message names it.
    """
    regions_only = hasattr(teacher, "score_regions") and not callable(teacher)
    needed = ("stamp", "to") if regions_only else ("stamp", "needs_reference", "feature_names", "preprocess", "to")
    missing = [attribute for attribute in needed if not hasattr(teacher, attribute)]
    # A runtime protocol only checks that members are there. What they give is checked with each batch, see
    # ``check_output``.
    if missing or not isinstance(teacher, RegionTeacher if regions_only else Teacher):
        missing += [] if callable(teacher) else ["__call__"]
        raise PocketiqaError(
            f"teacher {name!r}: its builder returned {type(teacher).__name__} without {', '.join(missing)}; "
            "see teachers.base.Teacher for what a teacher has"
        )
    if not isinstance(teacher.stamp, TeacherStamp):
        raise PocketiqaError(
            f"teacher {name!r}: its stamp is {type(teacher.stamp).__name__}, not pseudo_labels.records.TeacherStamp; "
            "the stamp identifies its labels"
        )
    try:
        # Tried now: the stamp goes into the manifest of a store, where the same error would name no teacher.
        _ = teacher.stamp.digest
    except (TypeError, ValueError) as error:
        raise PocketiqaError(f"teacher {name!r}: its stamp holds values that JSON does not know ({error})") from error
    return teacher


def check_output(output: Any, rows: int, features: Sequence[str], name: str) -> TeacherOutput:
    """What a teacher gave for ``rows`` images, scores clamped to [0, 1] and in float32 on the CPU.

    A score may lie outside by a step of float16, or of its own type if that is coarser.
    Scores that are not finite are left: such rows have failed, others have not.

    Raises:
        PocketiqaError: wrong type, shape or range, or a feature of ``features`` is not there.
    """
    if not isinstance(output, TeacherOutput):
        raise PocketiqaError(f"teacher {name!r} returned {type(output).__name__}, not teachers.base.TeacherOutput")
    score = _column(output.score, rows, "score", name)
    finite = score[score.isfinite()]
    # Scores in bfloat16 have steps of 2**-7 there.
    rounding = max(_ROUNDING, torch.finfo(output.score.dtype).eps) if output.score.is_floating_point() else _ROUNDING
    if len(finite) and not (float(finite.min()) >= -rounding and float(finite.max()) <= 1 + rounding):
        raise PocketiqaError(
            f"teacher {name!r} gave scores from {float(finite.min()):.4g} to {float(finite.max()):.4g}: "
            "they must be in [0, 1], 1 best; map its scale in the teacher"
        )
    spread = None if output.score_std is None else _column(output.score_std, rows, "score_std", name)
    # NaN is let through: it says that the spread of this image is not known.
    if spread is not None and bool((spread < 0).any()):
        raise PocketiqaError(f"teacher {name!r} gave a score_std of {float(spread.min()):.4g}: it must be at least 0")
    kept: dict[str, Tensor] = {}
    for feature in features:
        value = output.features.get(feature)
        if not isinstance(value, Tensor) or value.ndim < 1 or value.shape[0] != rows:
            shape = f"shape {list(value.shape)}" if isinstance(value, Tensor) else "nothing"
            raise PocketiqaError(f"teacher {name!r} gave {shape} for feature {feature!r}, not [{rows}, ...]")
        kept[feature] = value
    return TeacherOutput(score.where(~score.isfinite(), score.clamp(0, 1)), spread, kept)


def _column(value: Any, rows: int, what: str, name: str) -> Tensor:
    if not isinstance(value, Tensor) or tuple(value.shape) != (rows,):
        given = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise PocketiqaError(
            f"teacher {name!r} gave a {what} of {given} for {rows} images: a tensor [{rows}] is needed"
        )
    # The precision of a store's columns (``shards.SCHEMA``), so that a live score equals a stored one.
    return value.detach().to("cpu", torch.float32)


# What teachers made of other teachers need: the inputs of several as one item, and their answers checked.
_ABSENT = -1


def pack(items: Sequence[Item | None]) -> tuple[Tensor, ...]:
    """Several items as one flat tuple, as batches are made of those.

    Args:
        items: of the inner teachers or views; None where one has none. Items with None at other positions never have
            equal shapes, so that they are never in one batch.

    Returns:
        The tensors of the first item, of the second, ..., an empty one for None; and at last int64 [items]: how many
        tensors each item has, 0 for one that is not in a tuple.
    """
    sizes = [_ABSENT if item is None else 0 if isinstance(item, Tensor) else len(item) for item in items]
    flat: list[Tensor] = []
    for item in items:
        flat += [torch.empty(0)] if item is None else [item] if isinstance(item, Tensor) else item
    return (*flat, torch.tensor(sizes))


def unpack(packed: Sequence[Tensor]) -> list[Item | None]:
    """Inverse of ``pack``."""
    items: list[Item | None] = []
    first = 0
    for size in packed[-1].tolist():
        items.append(None if size == _ABSENT else tuple(packed[first : first + size]) if size else packed[first])
        first += max(1, size)
    return items


def sound(output: Any, rows: int, name: str, features: Sequence[str] = ()) -> TeacherOutput:
    """What an inner teacher gave: score, NaN where not finite, and spread in float32 on the CPU, and ``features``.

    Raises:
        PocketiqaError: as ``check_output``, in the name of the inner teacher.
    """
    checked = check_output(output, rows, features, name)
    return TeacherOutput(checked.score.where(checked.score.isfinite(), torch.nan), checked.score_std, checked.features)
