"""The gradient of one optimiser step: all its micro-batches, each at once or, where memory runs out, in parts."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.optim import Optimizer

from distill.training.learner import Learner, MovableBatch
from distill.training.loop_config import LoopSettings
from pseudo_labels.errors import PocketiqaError
from teachers.launch import is_out_of_memory, release_memory

REMEDY = "lower optimizer.learning_rate or optimizer.clip_norm, or use mixed_precision bf16 or no"


class NonFiniteError(PocketiqaError):
    """A loss or gradient is not finite."""


class Gradient:
    """Adds the gradient of a step to the parameters.

    Where memory runs out, the step begins again with parts of half as many images, and so do all later ones, if that
    gives the same gradient (up to rounding and to what layers draw at random): one process, and a loss that is the mean
    of what each image costs by itself (``Learner.cut``). Else the run ends with what to set.

    Attributes:
        part_images: most images that are computed at once; None for a whole micro-batch.

    Args:
        accelerator: of the run.
        learner: what is trained.
        config: of the run.
        part_images: what an earlier life of the run found to fit into memory.
    """

    def __init__(self, accelerator: Accelerator, learner: Learner, config: LoopSettings, part_images: int | None):
        self._accelerator, self._learner, self._config = accelerator, learner, config
        self.part_images = part_images

    def of_step(self, step: int, batches: Iterator[MovableBatch]) -> dict[str, float]:
        """Take the micro-batches of a step (1-based) and add up their gradient, which begins at 0.

        Returns:
            The loss and its terms, means over the micro-batches.

        Raises:
            NonFiniteError: names the step and the loss terms.
            PocketiqaError: memory ran out and smaller parts are not possible; names what to set.
        """
        taken: list[MovableBatch] = []
        while True:
            try:
                return self._added_up(step, batches, taken)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(step, error)
            # Only here, where the error no longer holds on to what was computed.
            self._begin_again()

    def _added_up(self, step: int, batches: Iterator[MovableBatch], taken: list[MovableBatch]) -> dict[str, float]:
        """One try; ``taken`` are the micro-batches that an earlier one has had of ``batches``."""
        values: dict[str, float] = {}
        for micro in range(self._config.accumulation_steps):
            if micro == len(taken):
                taken.append(next(batches))
            # Layers that draw random numbers draw the same ones after a resume.
            torch.manual_seed(_mixed(self._config.seed, step, micro, self._accelerator.process_index))
            with self._accelerator.accumulate(self._learner.model):
                for share, part in self._parts(taken[micro]):
                    for name, value in self._backward(step, share, part.to(self._accelerator.device)).items():
                        values[name] = values.get(name, 0.0) + share * value / self._config.accumulation_steps
        return values

    def _parts(self, batch: MovableBatch) -> list[tuple[float, MovableBatch]]:
        cut = self._learner.cut
        return [(1.0, batch)] if self.part_images is None or cut is None else cut(batch, self.part_images)

    def _backward(self, step: int, share: float, batch: Any) -> dict[str, float]:
        """Add one part's gradient; returns its losses."""
        total, terms = self._learner.losses(batch)
        # One transfer for all numbers: each one makes a GPU wait.
        numbers = torch.stack([total.detach(), *(term.detach() for term in terms.values())]).tolist()
        values = dict(zip(["loss", *terms], numbers, strict=True))
        if not all(math.isfinite(value) for value in values.values()):
            raise NonFiniteError(f"a loss is not finite at step {step} of {self._config.steps} ({values}): {REMEDY}")
        # Each process holds its own part of the gradient of one common loss; the wrapper averages them.
        self._accelerator.backward(total * (share * self._accelerator.num_processes))
        return values

    def _halve(self, step: int, error: BaseException) -> None:
        config, processes = self._config, self._accelerator.num_processes
        whole = config.batch_size // (processes * config.accumulation_steps)
        tried = min(self.part_images or whole, whole)
        where = f"out of memory at step {step} with"
        if tried == 1:
            raise PocketiqaError(
                f"{where} one image at a time: let the teacher or student see fewer pixels, train less of it, use "
                "mixed_precision bf16, or an option of the teacher that saves memory; checkpoints are kept"
            ) from error
        if processes > 1 or self._learner.cut is None:
            raise PocketiqaError(
                f"{where} micro-batches of {whole} images: set accumulation_steps to {2 * config.accumulation_steps} "
                "(and --overwrite), which makes half as large ones; checkpoints are kept"
            ) from error
        self.part_images = tried // 2

    def _begin_again(self) -> None:
        """Undo what the step has added, and count its micro-batches from the first."""
        optimizer: Any = self._learner.optimizer
        # Accelerate's wrapper passes this on only at the end of a step.
        inner: Optimizer = getattr(optimizer, "optimizer", optimizer)
        inner.zero_grad()
        self._accelerator.step -= self._accelerator.step % self._config.accumulation_steps
        release_memory()


def _mixed(*numbers: int) -> int:
    """A seed from several numbers, without a pattern that neighbouring steps share."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
