"""Run a teacher over the rows of one shard, in batches, and collect labels and features."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import PseudoLabel, Status, confidence
from teachers.base import Teacher, TeacherOutput, check_output, shapes
from teachers.launch import is_out_of_memory, release_memory
from teachers.reading import Prepared

Warn = Callable[[str], None]


class Predictor:
    """A teacher with a batch size, which shrinks for good when memory runs out.

    Args:
        teacher: the teacher, already on its device.
        batch_size: most images in one call.
        features: names of the feature maps to keep.
        warn: called with a sentence when the batch size was halved.
    """

    def __init__(self, teacher: Teacher, *, batch_size: int, features: tuple[str, ...], warn: Warn):
        self._teacher = teacher
        self._name = teacher.stamp.name
        self._features = features
        self._warn = warn
        self.batch_size = batch_size

    def shard(
        self, rows: Iterable[Prepared], count: int, *, step: Callable[[int], None]
    ) -> tuple[list[PseudoLabel], dict[str, np.ndarray]]:
        """Score the rows of a shard.

        Args:
            rows: all of them, in order; neighbours of equal shape are scored together.
            count: number of rows.
            step: called with the number of rows done since the last call.

        Returns:
            Labels, and features [count, ...] in fp16 with zeros for rows that are not ``ok``; a feature of a shard
            without a single ``ok`` row has the shape [count, 0].
        """
        collected = _Collected(count, self._features, self._name)
        batch: list[tuple[int, Prepared]] = []
        for position, row in enumerate(rows):
            collected.add_row(position, row)
            if row.item is None:
                step(1)
                continue
            if batch and (len(batch) >= self.batch_size or _key(batch[0][1]) != _key(row)):
                self._score(batch, collected, step)
                batch = []
            batch.append((position, row))
        # Not filled up with rows of the next shard: batches must be the same whether or not a run was resumed between.
        self._score(batch, collected, step)
        return collected.labels, collected.features()

    def _score(self, batch: list[tuple[int, Prepared]], collected: "_Collected", step: Callable[[int], None]) -> None:
        for start in range(0, len(batch), max(1, self.batch_size)):
            part = batch[start : start + self.batch_size]
            output = self._forward(part)
            if isinstance(output, str):
                if len(part) > 1:
                    # What was scored before stays. The rest of the batch is tried again, in smaller parts.
                    self._shrink(len(part))
                    return self._score(batch[start:], collected, step)
                # One image alone cannot be made smaller: it fails, and the next one is tried.
                collected.fail(part[0][0], output)
            else:
                collected.add_output([position for position, _ in part], output)
            step(len(part))
        return None

    def _forward(self, part: list[tuple[int, Prepared]]) -> TeacherOutput | str:
        """The teacher's answer, or why memory did not suffice."""
        try:
            with torch.inference_mode():
                output = self._teacher([row.item for _, row in part])
                return check_output(output, len(part), self._features, self._name)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = f"out of memory with a batch of {len(part)}: {_first_line(error)}"
        # Outside of the except block: as long as the error is held, its traceback holds the tensors of the failed pass.
        release_memory()
        return reason

    def _shrink(self, tried: int) -> None:
        # Half of what was tried: the last batch of a shard may be smaller than the batch size, and even that was too
        # much.
        self.batch_size = max(1, tried // 2)
        self._warn(f"out of memory with a batch of {tried} images: continuing with {self.batch_size}")


def _key(row: Prepared) -> tuple[object, ...]:
    return () if row.item is None else shapes(row.item)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Collected:
    """Labels and features of a shard, as they come."""

    def __init__(self, count: int, features: tuple[str, ...], teacher: str):
        self.labels: list[PseudoLabel] = []
        self._count, self._names, self._teacher = count, features, teacher
        self._arrays: dict[str, np.ndarray] = {}

    def add_row(self, position: int, row: Prepared) -> None:
        if position != len(self.labels) or position >= self._count:
            raise PocketiqaError(f"row {position} of a shard of {self._count} came out of order")
        # Until it has a score, a row counts as failed.
        status, reason = (row.status, row.reason) if row.item is None else (Status.FAILED, "not scored")
        identity = row.ref.id, row.ref.uri, row.ref.sha256, row.view
        self.labels.append(PseudoLabel(*identity, status=status, reason=reason, confidence=0.0))

    def fail(self, position: int, reason: str) -> None:
        self.labels[position] = replace(self.labels[position], reason=reason)

    def add_output(self, positions: list[int], output: TeacherOutput) -> None:
        scores = output.score.tolist()
        spreads = [float("nan")] * len(scores) if output.score_std is None else output.score_std.tolist()
        # Checked in float16, as it is stored: a value that is finite in float32 may overflow there.
        halves = {name: value.detach().to("cpu", torch.float16).numpy() for name, value in output.features.items()}
        for row, (position, score, spread) in enumerate(zip(positions, scores, spreads, strict=True)):
            unusable = [name for name, half in halves.items() if not np.isfinite(half[row]).all()]
            if not np.isfinite(score):
                self.fail(position, f"the teacher gave a score of {score}")
            elif unusable:
                self.fail(position, f"feature {unusable[0]!r} is not finite in fp16 (largest magnitude 65504)")
            else:
                self._accept(position, score, spread, batch=len(positions))
                for name, half in halves.items():
                    self._array(name, half)[position] = half[row]

    def _accept(self, position: int, score: float, spread: float, *, batch: int) -> None:
        spread = spread if np.isfinite(spread) else float("nan")
        self.labels[position] = replace(
            self.labels[position],
            status=Status.OK,
            reason="",
            score=score,
            score_std=spread,
            confidence=confidence(spread),
            batch=batch,
        )

    def _array(self, name: str, half: np.ndarray) -> np.ndarray:
        # Made with the first output, which says what shape a feature has.
        array = self._arrays.setdefault(name, np.zeros((self._count, *half.shape[1:]), np.float16))
        if array.shape[1:] != half.shape[1:]:
            raise PocketiqaError(
                f"teacher {self._teacher!r}: feature {name!r} is {list(array.shape[1:])} for one image and "
                f"{list(half.shape[1:])} for another: stored features need one shape, so label without --features "
                "or give the teacher a fixed input size"
            )
        return array

    def features(self) -> dict[str, np.ndarray]:
        return {name: self._arrays.get(name, np.zeros((self._count, 0), np.float16)) for name in self._names}
