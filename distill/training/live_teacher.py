"""A teacher that scores the crops that the student sees, while it learns."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.recipe.training import LiveSettings
from distill.training.batches import Batch, Standard
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import ImageError
from pseudo_labels.records import TeacherStamp, confidence
from teachers.base import Item, TeacherOutput, check_output, shapes
from teachers.registry import build_teacher


class LiveTeacher:
    """Scores, confidences and standardised features of the very crops of a batch.

    Args:
        settings: which teacher.
        feature: name of the feature that training compares with; None for scores alone.

    Raises:
        PocketiqaError: the teacher cannot be built, compares with references, or has no such feature.
    """

    def __init__(self, settings: LiveSettings, feature: str | None):
        if settings.teacher is None:
            raise PocketiqaError("live names no teacher: give live.teacher")
        self._name = name = settings.teacher
        self._teacher = build_teacher(name, **settings.options)
        if self._teacher.needs_reference:
            raise PocketiqaError(f"live teacher {name!r} compares with references, which crops do not have: use labels")
        self._features: tuple[str, ...] = () if feature is None else (feature,)
        if not set(self._features) <= set(self._teacher.feature_names):
            known = ", ".join(self._teacher.feature_names) or "none"
            raise PocketiqaError(f"live teacher {name!r} has no feature {feature!r}: its features are {known}")
        self._standard: tuple[Tensor, Tensor] | None = None
        self.stamp: TeacherStamp = self._teacher.stamp

    def to(self, device: torch.device) -> "LiveTeacher":
        """Compute on this device from now on."""
        self._teacher.to(device)
        return self

    def prepare(self, crop: np.ndarray) -> Item:
        """Input of the teacher; called in a background thread.

        Args:
            crop: uint8 [H, W, 3].

        Raises:
            PocketiqaError: the crop is too small for this teacher.
        """
        try:
            return self._teacher.preprocess(crop, None)
        except ImageError as error:
            raise PocketiqaError(
                f"live teacher {self._name!r} refuses a crop of {crop.shape[1]}x{crop.shape[0]} pixels "
                f"({error.reason}): raise images.crop_size"
            ) from error

    def learn_scale(self, items: Sequence[Item], batch_size: int) -> tuple[int, ...]:
        """Take mean and deviation of the feature from a sample; returns the shape of one.

        Raises:
            PocketiqaError: no feature of the sample is finite.
        """
        # In portions as large as a batch: what fits into memory in training fits here.
        starts = range(0, len(items), batch_size)
        outputs = [output for start in starts for _, output in self._score(items[start : start + batch_size])]
        values = torch.cat([output.features[self._features[0]].float().cpu() for output in outputs])
        # A crop that the teacher cannot score may have a feature of NaN, which would spoil the mean of all.
        values = values[values.flatten(1).isfinite().all(1)]
        if not len(values):
            raise PocketiqaError(
                f"live teacher {self._name!r} gave no finite feature {self._features[0]!r} for {len(items)} crops: use "
                "another feature, or labels"
            )
        standard = Standard(values.numpy())
        self._standard = torch.from_numpy(standard.mean), torch.from_numpy(standard.scale)
        return tuple(values.shape[1:])

    def relabel(self, batch: Batch) -> Batch:
        """The batch with this teacher's scores as labels; crops without a finite score and feature have weight 0."""
        items, device = batch.items or (), batch.target.device
        # These weights keep their scale, unlike those of stored labels: their mean over the run is not known
        # beforehand.
        target, weight = torch.zeros(len(items)), torch.zeros(len(items))
        feature: Tensor | None = None
        for rows, output in self._score(items):
            answered = output.score.isfinite()
            if self._standard is not None:
                mean, scale = (value.to(device) for value in self._standard)
                own = (output.features[self._features[0]].float().to(device) - mean) * scale
                # As in a label store, where such a row has failed.
                answered &= own.flatten(1).isfinite().all(1).cpu()
                # The shape is known once the first output is there.
                feature = own.new_zeros(len(items), *own.shape[1:]) if feature is None else feature
                feature[rows] = own.where(_like(answered.to(device), own), 0.0)
            # Weight 0 does not silence NaN (0 * NaN is NaN), so target and feature become numbers.
            target[rows] = output.score.nan_to_num(0.0)
            weight[rows] = answered * _confidences(output)
        moved = weight.to(device)
        return replace(
            batch,
            target=target.to(device),
            weight=moved,
            feature=feature,
            feature_weight=None if feature is None else moved,
            items=None,
        )

    @torch.no_grad()
    def _score(self, items: Sequence[Item]) -> list[tuple[list[int], TeacherOutput]]:
        """Answers for items of equal shapes together, with their positions."""
        # A teacher takes batches of one shape; crops of images smaller than crop_size have others.
        by_shape: dict[Any, list[int]] = {}
        for row, item in enumerate(items):
            by_shape.setdefault(shapes(item), []).append(row)
        return [
            (
                chosen,
                check_output(self._teacher([items[row] for row in chosen]), len(chosen), self._features, self._name),
            )
            for chosen in by_shape.values()
        ]


def _like(rows: Tensor, values: Tensor) -> Tensor:
    """[B] with axes of length 1 behind it, as many as ``values`` has."""
    return rows.reshape(-1, *[1] * (values.ndim - 1))


def _confidences(output: TeacherOutput) -> Tensor:
    # Without a spread, ``confidence`` is 1.
    spreads = [float("nan")] * len(output.score) if output.score_std is None else output.score_std.tolist()
    return torch.tensor([confidence(spread) for spread in spreads])
