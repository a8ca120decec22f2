"""A teacher in fitting: its losses, average and validation, as the training loop asks for them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distill.training.checkpoint import Checkpoint, Tensors
from distill.training.collectives import gather_rows
from distill.training.ema import Average
from distill.training.fit_config import FitConfig
from distill.training.learner import Cut, MovableBatch
from distill.training.losses import LossInputs, score_loss_of
from distill.training.schedule import build_optimizer
from distill.training.teacher_batches import TeacherBatch, TeacherBatchMaker
from distill.training.validation import Validator
from pseudo_labels.errors import TamperedError
from teachers.fitting import FittableTeacher, PlainFit
from teachers.launch import is_out_of_memory, release_memory


class TeacherLearner:
    """See ``learner.Learner``. A checkpoint holds what is trained and nothing of the frozen base.

    Args:
        teacher: on the device.
        batches: makes this process's batches.
        validator: judges the teacher as it is used, in full precision.
        config: of the fitting.
        accelerator: wraps model and optimiser.
    """

    def __init__(
        self, teacher: FittableTeacher, batches: TeacherBatchMaker, validator: Validator, config: FitConfig,
        accelerator: Accelerator,
    ):  # fmt: skip
        self._teacher, self._batches, self._validator, self._config = teacher, batches, validator, config
        self._processes = accelerator.num_processes
        self.module = teacher.fitting_module().to(accelerator.device)
        # Of the model, not of the module around it: rates go by the names that the user knows.
        self.model, self.optimizer = accelerator.prepare(self.module, build_optimizer(teacher.model, config.optimizer))
        self._average = None
        if config.ema_decay > 0:
            first = {name: value.detach().clone() for name, value in teacher.trained_state().items()}
            self._average = Average(first, config.ema_decay)

    def make_batch(self, micro_batch: int) -> TeacherBatch:
        """The share of this process in a micro-batch."""
        return self._batches.make(micro_batch)

    @property
    def cut(self) -> Cut | None:
        """How a batch is cut, if the loss is of the score alone and of one image at a time; see ``learner.Learner``."""
        losses, module = self._config.losses, self.module
        compared = losses.plcc > 0 or losses.ranking > 0
        divisible = not compared and type(module) is PlainFit and not any(map(_looks_at_the_batch, module.modules()))
        return _cut if divisible else None

    def begin_step(self) -> None:
        """Go into training mode; what is frozen stays in evaluation mode by the teacher's own doing."""
        self.model.train()

    def losses(self, batch: TeacherBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Compare scores with opinions, and add the teacher's own terms."""
        score, extra = self.model(batch.inputs, batch.target, batch.weight)
        rows = LossInputs(gather_rows(score), gather_rows(batch.target), gather_rows(batch.weight))
        total, terms = score_loss_of(rows, self._config.losses)
        # Of each process's rows alone, while the other terms are of all.
        means = {name: gather_rows(term.reshape(1)).mean() for name, term in extra.items()}
        for term in means.values():
            total = total + term
        return total, {**terms, **means}

    def after_step(self) -> None:
        """Average the new weights."""
        if self._processes > 1:
            self._share_buffers()
        if self._average is not None:
            self._average.take(self._teacher.trained_state())

    def _share_buffers(self) -> None:
        """Give all processes the buffers of the main one, which are those that a checkpoint keeps."""
        parameters = dict(self._teacher.model.named_parameters())
        trained = (value for name, value in self._teacher.trained_state().items() if name not in parameters)
        for value in (*trained, *self._beside().values()):
            distributed.broadcast(value, src=0)

    def validate(self) -> dict[str, Any]:
        """Judge whole images by the averaged weights; see ``Validator.validate``."""
        self.model.eval()
        with self._averaged():
            return self._validator.validate(self._scores)

    def _scores(self, items: list[Any]) -> Tensor:
        """Scores of items, in halves where memory does not suffice: no score depends on the others."""
        try:
            return self._teacher(items).score
        except (RuntimeError, MemoryError) as error:
            if len(items) == 1 or not is_out_of_memory(error):
                raise
        release_memory()
        middle = len(items) // 2
        return torch.cat([self._scores(items[:middle]), self._scores(items[middle:])])

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the average in the place of the present weights for a while."""
        if self._average is None:
            yield
            return
        present = self._teacher.trained_state()
        saved = {name: value.detach().clone() for name, value in present.items()}
        _copy(self._average.tensors, present)
        try:
            yield
        finally:
            _copy(saved, present)

    def state(self) -> dict[str, Tensors]:
        """Trained part, average, and what fitting keeps beside the model."""
        files = {"teacher": dict(self._teacher.trained_state())}
        if self._average is not None:
            files["average"] = dict(self._average.tensors)
        if self._beside():
            files["beside"] = self._beside()
        return files

    def _beside(self) -> Tensors:
        own = {id(value) for value in self._teacher.model.buffers()}
        return {name: value for name, value in self.module.named_buffers() if id(value) not in own}

    def restore(self, found: Checkpoint) -> None:
        """Take over what ``state`` gave."""
        for name, tensors in self.state().items():
            _copy(found.tensors.get(name, {}), tensors)
        if self._average is not None:
            self._average.updates = found.progress.step

    def take_result(self, found: Checkpoint) -> None:
        """Give the teacher the weights of a checkpoint that are to be kept."""
        _copy(found.tensors["teacher" if self._average is None else "average"], self._teacher.trained_state())


def _cut(batch: TeacherBatch, most: int) -> list[tuple[float, MovableBatch]]:
    return [(len(part.target) / len(batch.target), part) for part in batch.cut(most)]


def _looks_at_the_batch(module: nn.Module) -> bool:
    return module.training and isinstance(module, _BatchNorm)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    if {name: value.shape for name, value in source.items()} != {name: value.shape for name, value in target.items()}:
        raise TamperedError("the checkpoint does not fit the teacher it was made for: fit again with --overwrite")
    for name, value in target.items():
        value.copy_(source[name])
