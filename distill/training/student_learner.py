"""A student in training: its batches, losses, average and validation, as the training loop asks for them."""

from typing import Any

from accelerate import Accelerator
from torch import Tensor

from distill.training import sync_norm
from distill.training.adapters import TrainedStudent, teacher_embedding
from distill.training.batches import Batch, BatchMaker
from distill.training.checkpoint import Checkpoint, Tensors, load_tensors
from distill.training.collectives import gather_rows
from distill.training.ema import Ema
from distill.training.live_teacher import LiveTeacher
from distill.training.losses import LossInputs, Terms, total_loss
from distill.training.schedule import build_optimizer
from distill.training.train_config import TrainConfig
from distill.training.validation import Validator
from students.base import Student
from teachers.fitting import evaluate_frozen


class StudentLearner:
    """See ``learner.Learner``.

    Args:
        trained: the student with its adapter, on the device.
        ema: averages the student; its model is what is validated and kept.
        batches: makes this process's batches.
        validator: judges the averaged student.
        config: of the run.
        accelerator: wraps model and optimiser.
        live: judges the views of each batch in place of the labels.
    """

    def __init__(
        self, trained: TrainedStudent, ema: Ema[Student], batches: BatchMaker, validator: Validator,
        config: TrainConfig, accelerator: Accelerator, live: LiveTeacher | None,
    ):  # fmt: skip
        self.module, self.ema, self._live = trained, ema, live
        self._batches, self._validator, self._config = batches, validator, config
        self._device = accelerator.device
        self.model, self.optimizer = accelerator.prepare(trained, build_optimizer(trained, config.optimizer))

    cut = None
    """Batch normalisation and most losses look at all images of a batch."""

    def make_batch(self, micro_batch: int) -> Batch:
        """The share of this process in a micro-batch."""
        return self._batches.make(micro_batch)

    def begin_step(self) -> None:
        """Go into training mode, but for frozen parts, and for batch normalisation if it is frozen."""
        self.model.train()
        evaluate_frozen(self.module)
        if self._config.freeze_batch_norm:
            sync_norm.freeze(self.model)

    def losses(self, batch: Batch) -> tuple[Tensor, Terms]:
        """Compare scores and features with the labels, or with what the live teacher says of the same views."""
        if self._live is not None:
            batch = self._live.relabel(batch)
        score, error, embedding = self.model(batch.pixels, batch.valid, batch.feature)
        return total_loss(_over_all_processes(batch, score, error, embedding), self._config.losses)

    def after_step(self) -> None:
        """Average the new weights."""
        self.ema.update(self.module.student)

    def validate(self) -> dict[str, Any]:
        """Judge the averaged student; see ``Validator.validate``."""
        return self._validator.validate(lambda pixels: self.ema.model(pixels.to(self._device)).score)

    def state(self) -> dict[str, Tensors]:
        """Student, average and adapter."""
        files = {"student": self.module.student.state_dict(), "ema": self.ema.model.state_dict()}
        if self.module.adapter is not None:
            files["adapters"] = self.module.adapter.state_dict()
        return files

    def restore(self, found: Checkpoint) -> None:
        """Take over what ``state`` gave."""
        load_tensors(self.module.student, found.tensors["student"])
        load_tensors(self.ema.model, found.tensors["ema"])
        if self.module.adapter is not None:
            load_tensors(self.module.adapter, found.tensors["adapters"])
        self.ema.updates = found.progress.step


def _over_all_processes(batch: Batch, score: Tensor, error: Tensor | None, embedding: Tensor | None) -> LossInputs:
    feature = None if embedding is None or batch.feature is None else teacher_embedding(batch.feature)

    def gathered(rows: Tensor | None) -> Tensor | None:
        return None if rows is None else gather_rows(rows)

    return LossInputs(
        gather_rows(score), gather_rows(batch.target), gather_rows(batch.weight), gathered(error),
        gathered(batch.feature_weight), gathered(embedding), gathered(feature),
    )  # fmt: skip
