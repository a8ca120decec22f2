"""The training loop itself: what is trained is built outside (``distill.training.run``) and passed in."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.optim import Optimizer

from distill.recipe.training import LoopSettings
from distill.training.checkpoint import Checkpoint, Checkpoints, RunState, load_optimizer, optimizer_tensors
from distill.training.distributed import sum_of_ints
from distill.training.environment import interruption, prefetched
from distill.training.history import HISTORY, TIMINGS, Clock, History, Mean, append_line
from distill.training.learner import Learner, MovableBatch
from distill.training.optim import learning_rate
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.parallel import Progress
from teachers.launch import is_out_of_memory, release_memory

REMEDY = "lower optimizer.learning_rate or optimizer.clip_norm, or use mixed_precision bf16 or no"
Warn = Callable[[str], None]


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
        accelerator: accelerator of the run.
        learner: what is trained.
        config: config of the run.
        part_images: images at a time that fitted into memory before the run was interrupted.
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
        # The background thread hands out each micro-batch once, and another try needs the same ones.
        taken: list[MovableBatch] = []
        while True:
            try:
                return self._added_up(step, batches, taken)
            # On a GPU torch raises a subclass of RuntimeError, on the CPU a plain one, and numpy a MemoryError.
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
                for fraction, part in self._parts(taken[micro]):
                    for name, value in self._backward(step, fraction, part.to(self._accelerator.device)).items():
                        values[name] = values.get(name, 0.0) + fraction * value / self._config.accumulation_steps
        return values

    def _parts(self, batch: MovableBatch) -> list[tuple[float, MovableBatch]]:
        cut = self._learner.cut
        return [(1.0, batch)] if self.part_images is None or cut is None else cut(batch, self.part_images)

    def _backward(self, step: int, fraction: float, batch: Any) -> dict[str, float]:
        """Add one part's gradient; returns its losses."""
        total, terms = self._learner.losses(batch)
        # One transfer for all numbers: each one makes a GPU wait.
        numbers = torch.stack([total.detach(), *(term.detach() for term in terms.values())]).tolist()
        values = dict(zip(["loss", *terms], numbers, strict=True))
        if not all(math.isfinite(value) for value in values.values()):
            raise NonFiniteError(f"a loss is not finite at step {step} of {self._config.steps} ({values}): {REMEDY}")
        # Each process holds its own part of the gradient of one common loss; the wrapper averages them.
        # Accelerate itself divides by accumulation_steps.
        self._accelerator.backward(total * (fraction * self._accelerator.num_processes))
        return values

    def _halve(self, step: int, error: BaseException) -> None:
        config, processes = self._config, self._accelerator.num_processes
        whole = config.batch_size // (processes * config.accumulation_steps)
        # A checkpoint of fewer processes, whose micro-batches were larger, may have left a part_images above the whole.
        tried = min(self.part_images or whole, whole)
        where = f"out of memory at step {step} with"
        if tried == 1:
            raise PocketiqaError(
                f"{where} one image at a time: let the teacher or student see fewer pixels, train less of it, use "
                "mixed_precision bf16, or an option of the teacher that saves memory; checkpoints are kept"
            ) from error
        # The other processes may have had enough memory: they wait for this one in the middle of the step, and do not
        # begin it again. A loss that compares images changes if the batch is cut.
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
        # The remainder of this counter tells Accelerate which micro-batch ends the step.
        self._accelerator.step -= self._accelerator.step % self._config.accumulation_steps
        release_memory()


def _mixed(*numbers: int) -> int:
    """A seed from several numbers, without a pattern common to neighbouring steps."""
    # 63 bits: a number that no 64-bit integer type takes for a negative one.
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class InterruptedRunError(PocketiqaError):
    """Somebody asked the run to end; a checkpoint was written."""


@dataclass(frozen=True)
class RunParts:
    """What a run is made of, ready for use on this process's device.

    Attributes:
        accelerator: accelerator of this run.
        learner: what is trained.
        checkpoints: checkpoints of this run.
        folder: folder of this run.
    """

    accelerator: Accelerator
    learner: Learner
    checkpoints: Checkpoints
    folder: Path


class Trainer:
    """Runs the steps of one run from wherever its last checkpoint left it."""

    def __init__(self, parts: RunParts, config: LoopSettings, checkpoint: Checkpoint | None, warn: Warn | None = None):
        self._parts, self._config, self._learner = parts, config, parts.learner
        self._accelerator = parts.accelerator
        self._main = parts.accelerator.is_main_process
        self.progress = checkpoint.progress if checkpoint else RunState(0, 0, 0)
        if checkpoint:
            self._restore(checkpoint)
        self._warn = warn or _silent
        self._gradient = Gradient(parts.accelerator, parts.learner, config, self.progress.part_images)
        self._means = Mean(self.progress.means)
        # One writer. Opening the history removes what a killed run wrote after its last checkpoint.
        self._history = History(parts.folder / HISTORY, self.progress.history_bytes) if self._main else None

    @property
    def _raw_optimizer(self) -> Optimizer:
        return getattr(self._learner.optimizer, "optimizer", self._learner.optimizer)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._learner.restore(checkpoint)
        load_optimizer(self._raw_optimizer, self._learner.module.named_parameters(), checkpoint.tensors["optimizer"])
        # The scale of fp16 gradients follows from the steps before: at its first value, a resumed run would skip other
        # steps than an unbroken one.
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(checkpoint.progress.scaler)

    @property
    def done(self) -> bool:
        """Whether the last step is done, or as many validations as patience allows were no better."""
        config, progress = self._config, self.progress
        if progress.step >= config.steps or config.patience is None or progress.best_step is None:
            return progress.step >= config.steps
        # From the checkpoint alone, so that a resumed run ends at the same step.
        return (progress.step - progress.best_step) // config.validate_every_steps >= config.patience

    def run(self, progress: Progress | None) -> None:
        """Train until it is done, with validations and checkpoints on the way.

        Raises:
            InterruptedRunError: on SIGTERM or SIGINT, after writing a checkpoint.
            NonFiniteError: names the step and the loss terms.
        """
        config = self._config
        # Micro-batches are numbered over the whole run: a resumed one asks for the number that comes next.
        first = self.progress.step * config.accumulation_steps
        total = config.steps * config.accumulation_steps
        clock = Clock()
        with interruption() as asked, prefetched(self._learner.make_batch, first, total) as batches:
            while not self.done:
                step = self.progress.step + 1
                with clock.step():
                    self._step(step, clock.waiting(batches))
                if slow := clock.slow_step():
                    self._warn(f"step {step} {slow}")
                saved = self._after(step, clock)
                if progress:
                    progress(step, config.steps)
                # A signal may reach one process alone, or each in another step. All of them ask after every step, so
                # that they stop at the same one; a process that went on alone would wait for the others.
                if sum_of_ints(bool(asked.wish), self._accelerator.device) and not self.done:
                    if not saved:
                        self._save()
                    raise InterruptedRunError(
                        f"stopped by {asked.wish or 'a signal'} at step {step} of {config.steps}; everything is in "
                        f"{self._parts.checkpoints.path(step)}: run the same command again to go on"
                    )

    def _step(self, step: int, batches: Iterator[MovableBatch]) -> None:
        """One optimiser step (1-based), over all micro-batches and processes."""
        config, learner = self._config, self._learner
        # In every step: a validation after the last one may have left the model in evaluation mode.
        learner.begin_step()
        # A function of the step: the schedule has no state that a checkpoint must hold.
        rate = learning_rate(step - 1, config.steps, config.optimizer)
        for group in learner.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        values = self._gradient.of_step(step, batches)
        norm = self._accelerator.clip_grad_norm_(learner.module.parameters(), config.optimizer.clip_norm)
        values["gradient_norm"] = float(norm) if norm is not None else math.nan
        # With a scaler (fp16), a gradient that overflows now and then is expected: the scaler skips the step and lowers
        # its scale.
        if not math.isfinite(values["gradient_norm"]) and self._accelerator.scaler is None:
            raise NonFiniteError(f"the gradient is not finite at step {step} (losses {values}): {REMEDY}")
        learner.optimizer.step()
        learner.optimizer.zero_grad()
        learner.after_step()
        self._means.add({**values, "learning_rate": rate})

    def _after(self, step: int, clock: Clock) -> bool:
        """Record, validate and save as configured; returns whether a checkpoint was written."""
        config, last = self._config, step == self._config.steps
        self._advance(step=step, images_seen=step * config.batch_size)
        self._note_parts()
        if last or step % config.log_every_steps == 0:
            self._record({"kind": "train", **self._means.take()})
            if self._main:
                # In no checkpoint and never cut back: times differ from run to run, the history must not.
                append_line(self._parts.folder / TIMINGS, {"step": step, **clock.take(config.batch_size)})
        # Validation before the checkpoint, which then holds its record and the best score.
        better = False
        if last or step % config.validate_every_steps == 0:
            better = self._validate(step)
        # A better step is saved at once: its weights may be those that are kept in the end.
        save = self.done or better or step % config.checkpoint_every_steps == 0
        if save:
            self._save()
        return save

    def _note_parts(self) -> None:
        """Say, and keep for a resume, that memory ran out in this step."""
        most = self._gradient.part_images
        if most == self.progress.part_images:
            return
        self._advance(part_images=most)
        self._record({"kind": "memory", "part_images": most})
        self._warn(
            f"out of memory at step {self.progress.step}: going on with {most} images at a time, which gives the same "
            "gradient up to rounding"
        )

    def _validate(self, step: int) -> bool:
        validation = self._learner.validate()
        # Of equal scores, the first stays the best. All processes have the same score, and decide alike.
        better = self.progress.best_score is None or validation["score"] > self.progress.best_score
        if better:
            self._advance(best_step=step, best_score=validation["score"])
        self._record({"kind": "validation", "best": better, **validation})
        return better

    def _advance(self, **changes: Any) -> None:
        self.progress = replace(self.progress, **changes)

    def _record(self, values: dict[str, object]) -> None:
        record = {"step": self.progress.step, "images_seen": self.progress.images_seen, **values}
        if self._history is not None:
            self._history.append(record)
        kind = str(values["kind"])
        # Trackers take plain numbers; what is nested, such as the sources of a validation, is in the history only.
        flat = {f"{kind}/{name}": value for name, value in values.items() if isinstance(value, float)}
        self._accelerator.log(flat, step=self.progress.step)

    def _save(self) -> None:
        """Commit a checkpoint of this step; the main process writes, the others wait."""
        parts = self._parts
        if self._history is not None:
            # First the history, to the disk: the checkpoint states its length, and a history that is shorter than
            # stated stops a resume.
            self._history.commit()
            scaler = self._accelerator.scaler
            self._advance(
                history_bytes=self._history.length,
                means=self._means.state(),
                scaler=dict(scaler.state_dict()) if scaler is not None else {},
            )
            named = self._learner.module.named_parameters()
            # Weights, buffers and moments are the same in every process: gradients are averaged, statistics shared.
            tensors = {**self._learner.state(), "optimizer": optimizer_tensors(self._raw_optimizer, named)}
            parts.checkpoints.save(self.progress, tensors)
        self._accelerator.wait_for_everyone()


def _silent(_text: str) -> None:
    pass
