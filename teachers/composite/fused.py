"""The teachers of a fused store as one, live: it scores any image as the store would have labelled it.

Each teacher gets the image as its own input. The store's ensemble calibrates and joins what they say, and the store's
keep rule decides whether that is a score, but for outliers, which only a whole pool can show. Where a teacher compares
with references, an image without one has no score, though the store may have one by the other teachers.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import canonical_json
from pseudo_labels.fusion.ensemble import Ensemble, Fused
from pseudo_labels.fusion.keep import KEPT, KeepRule, Measures, reasons
from pseudo_labels.fusion.report import NAME, StoredFusion, is_fused, read_fusion
from pseudo_labels.images import ImageError
from pseudo_labels.outputs import differences
from pseudo_labels.records import TeacherStamp, confidence
from pseudo_labels.remote import location
from pseudo_labels.store import LabelStore
from teachers.base import Item, Teacher, TeacherBuilder, TeacherOutput, pack, sound, unpack

VERSION = 1
"""Raised whenever equal inner teachers and equal ensembles give other scores."""

_KEYS = {"teacher", "options"}


@dataclass(frozen=True)
class Member:
    """One of the teachers.

    Attributes:
        name: its name in the fusion.
        teacher: the built teacher.
        stamp: stamp of ``teacher``; kept, for it may take a hash of all weights to tell.
    """

    name: str
    teacher: Teacher
    stamp: TeacherStamp


class FusedTeacher:
    """Several teachers joined by an ensemble (see the module).

    Features are those of one of the teachers; an image of which it has none gets no score either.

    Args:
        members: the teachers, in the order of ``ensemble.names``.
        ensemble: the ensemble that was fitted to their scores.
        rule: keep rule; an image that it does not keep gets no score.
        scale: what 0 and 1 mean, for the stamp.
        licence: licence of all teachers, for the stamp.
        features_of: name of the teacher whose features are given; None for none.
    """

    def __init__(
        self,
        members: Sequence[Member],
        ensemble: Ensemble,
        rule: KeepRule,
        *,
        scale: str,
        licence: str,
        features_of: str | None = None,
    ):
        self._members, self._ensemble, self._rule = list(members), ensemble, rule
        # As ``fused_rows.fuse_rows`` takes it: the same image must get a score both ways, or neither.
        self._needed = min(2, len(self._members)) if rule.min_teachers is None else rule.min_teachers
        self._featured = next((at for at, own in enumerate(self._members) if own.name == features_of), None)
        self.needs_reference = any(own.teacher.needs_reference for own in self._members)
        self.feature_names: tuple[str, ...] = ()
        if self._featured is not None:
            self.feature_names = tuple(self._members[self._featured].teacher.feature_names)
        options = {
            "teachers": [{"name": own.name, "teacher": own.stamp.digest} for own in self._members],
            "keep": rule.as_dict(),
            "features_of": features_of,
        }
        self.stamp = TeacherStamp(NAME, VERSION, weights=ensemble.digest, options=options, scale=scale, licence=licence)

    def to(self, device: torch.device) -> "FusedTeacher":
        """Compute on this device from now on."""
        for own in self._members:
            own.teacher.to(device)
        return self

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> tuple[Tensor, ...]:
        """The image as input of every teacher, see ``items.pack``; None for those that refuse it.

        Raises:
            ImageError: too few teachers can score it, and those that refuse it give the same status.
            PocketiqaError: too few teachers can score it, or not the one whose features are given.
        """
        items: list[Item | None] = []
        refused: dict[str, PocketiqaError] = {}
        for own in self._members:
            try:
                items.append(own.teacher.preprocess(image, reference if own.teacher.needs_reference else None))
            except PocketiqaError as error:
                items.append(None)
                refused[own.name] = error
        able = len(items) - len(refused)
        if able < self._needed:
            self._refuse(refused, f"{able} of {len(items)} teachers can score it, {self._needed} are needed")
        if self._featured is not None and items[self._featured] is None:
            self._refuse(refused, "the teacher whose features are given cannot score it")
        return pack(items)

    def _refuse(self, refused: Mapping[str, PocketiqaError], why: str) -> None:
        reasons = "; ".join(f"{name}: {error}" for name, error in refused.items())
        statuses = {error.status if isinstance(error, ImageError) else None for error in refused.values()}
        first = next(iter(refused.values()))
        # All say the same: then the image is at fault, such as too small, and its row gets that status instead of
        # ``failed``.
        if isinstance(first, ImageError) and len(statuses) == 1:
            raise ImageError(first.status, f"{why} ({reasons})")
        raise PocketiqaError(f"{why} ({reasons})")

    def __call__(self, batch: list[Any]) -> TeacherOutput:
        """Score items of ``preprocess``, all of them in one call of each teacher.

        Returns:
            Fused score, NaN where the rule does not keep it; ``score_std``, root of its expected squared error; and the
            features of one teacher, zeros where there is no score.
        """
        said = self._ask(batch)
        # In float32, as stores hold them: both ways the same score.
        scores, spreads = (np.full((len(said), len(batch)), np.nan, np.float32) for _ in range(2))
        for at, output in enumerate(said):
            if output is not None:
                scores[at] = output.score.numpy()
                if output.score_std is not None:
                    spreads[at] = np.where(np.isfinite(scores[at]), output.score_std.numpy(), np.nan)
        fused = self._ensemble(scores, spreads)
        kept = torch.from_numpy(self._kept(fused, np.isfinite(scores)))
        score, score_std = (torch.from_numpy(own.astype(np.float32)) for own in (fused.score, fused.score_std))
        featured = None if self._featured is None else said[self._featured]
        features = {} if featured is None else {name: _masked(own, kept) for name, own in featured.features.items()}
        return TeacherOutput(score.where(kept, torch.nan), score_std.where(kept, torch.nan), features)

    def _ask(self, batch: Sequence[Any]) -> list[TeacherOutput | None]:
        """Output of each teacher; None of one that refused these images."""
        columns = zip(*(unpack(item) for item in batch), strict=True)
        said: list[TeacherOutput | None] = []
        for at, (own, items) in enumerate(zip(self._members, columns, strict=True)):
            if items[0] is None:  # and so all of them, see ``pack``
                said.append(None)
                continue
            wanted = self.feature_names if at == self._featured else ()
            said.append(sound(own.teacher(list(items)), len(batch), own.name, wanted))
        return said

    def _kept(self, fused: Fused, scored: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where the rule keeps the score; rounded first, as ``fused_rows.fuse_rows`` does."""
        certain = [0.0 if np.isnan(std) else confidence(float(std)) for std in fused.score_std.astype(np.float32)]
        disagreement = fused.disagreement.astype(np.float32).astype(np.float64)
        featured = None if self._featured is None else scored[self._featured]
        measures = Measures(scored.sum(axis=0, dtype=np.int64), np.array(certain), disagreement, featured)
        return reasons(self._rule, self._needed, measures) == KEPT


def _masked(feature: Tensor, kept: Tensor) -> Tensor:
    return feature.where(kept.to(feature.device).view(-1, *(1,) * (feature.ndim - 1)), 0)


def fused_options(labels: Path, members: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """Options of ``build_fused`` for a store and the teachers that labelled its parts.

    Args:
        labels: folder that ``pocketiqa fuse`` wrote.
        members: folder of each part's labels to its ``teacher`` and ``options``.
    """
    made_by = {LabelStore.open(folder).digest: dict(entry) for folder, entry in members.items()}
    parts = read_fusion(LabelStore.open(labels)).report.teachers
    return {"labels": str(labels.resolve()), "teachers": {own["name"]: made_by[own["labels"]] for own in parts}}


def build_fused(
    build: TeacherBuilder,
    *,
    labels: str | Path,
    teachers: Mapping[str, Mapping[str, Any]],
    features_of: str | None = None,
) -> FusedTeacher:
    """Build the teachers of a fused store as one.

    Args:
        build: builds the teachers, as ``registry.build_teacher``.
        labels: folder that ``pocketiqa fuse`` wrote.
        teachers: name in the fusion to ``teacher`` (registry name, folder of a fitted teacher, or
            ``package.module:function``) and ``options``, as they were when they labelled.
        features_of: name in the fusion of the teacher whose features are given; None takes the one whose feature the
            store carries, or none.

    Raises:
        PocketiqaError: no fused store, a teacher that is missing or not the one that was fused (named), or one that
            cannot be built.
        IntegrityError: the store's fusion was altered.
    """
    store = LabelStore.open(location(labels))
    if not is_fused(store):
        raise PocketiqaError(
            f"{labels} holds labels of {store.spec.stamp.name!r} alone: give the folder that `pocketiqa fuse` wrote"
        )
    fusion = read_fusion(store)
    names = fusion.ensemble.names
    _check_names(teachers, names, labels)
    # The report names one feature at most, the one that was carried over.
    features_of = features_of or next(iter(fusion.report.features.values()), None)
    if features_of is not None and features_of not in names:
        raise PocketiqaError(f"fused: features_of is {features_of!r}: choose one of {', '.join(names)}")
    members = [_member(name, _build_member(build, teachers[name]), fusion, labels) for name in names]
    stamp = store.spec.stamp
    return FusedTeacher(
        members, fusion.ensemble, fusion.rule, scale=stamp.scale, licence=stamp.licence, features_of=features_of
    )


def _check_names(teachers: Any, names: Iterable[str], labels: str | Path) -> None:
    if not isinstance(teachers, Mapping) or set(teachers) != set(names):
        given = ", ".join(map(str, teachers)) if isinstance(teachers, Mapping) else repr(teachers)
        raise PocketiqaError(
            f"fused: teachers are given for {given or 'none'}, but {labels} was fused from {', '.join(names)}: give "
            "each as NAME: {teacher: ..., options: {...}}"
        )
    for name, entry in teachers.items():
        if not isinstance(entry, Mapping) or "teacher" not in entry or not set(entry) <= _KEYS:
            raise PocketiqaError(f"fused: teacher {name!r} is {entry!r}: give {{teacher: ..., options: {{...}}}}")


def _build_member(build: TeacherBuilder, entry: Mapping[str, Any]) -> Teacher:
    return build(str(entry["teacher"]), **(entry.get("options") or {}))


def _member(name: str, teacher: Teacher, fusion: StoredFusion, labels: str | Path) -> Member:
    stamp = teacher.stamp
    # The calibration is that of the teacher that labelled. With other weights it would move scores to a wrong scale
    # unnoticed.
    if stamp.digest != fusion.teachers[name]:
        fused = next(own["teacher"] for own in fusion.report.teachers if own["name"] == name)
        changed = differences(fused, json.loads(canonical_json(stamp.as_dict())))
        shown = "; ".join(changed[:3]) + ("; ..." if len(changed) > 3 else "")
        raise PocketiqaError(
            f"teacher {name!r} is not the one that {labels} was fused from ({shown}): build it as it was when it "
            "labelled, or label and fuse anew"
        )
    return Member(name, teacher, stamp)
