"""The interface between the training loop and what it trains: a student or a teacher."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distill.training.checkpoint import Checkpoint, Tensors


class MovableBatch(Protocol):
    """The part of a micro-batch that one process computes."""

    def to(self, device: torch.device) -> Any:
        """The batch on ``device``."""
        ...


Cut = Callable[[Any, int], list[tuple[float, MovableBatch]]]
"""A batch in parts of at most so many images, each with its fraction of them."""


class Learner(Protocol):
    """A model in training, with its data and what is averaged, validated and kept of it."""

    @property
    def model(self) -> nn.Module:
        """What is called and differentiated, as Accelerate wrapped it."""
        ...

    @property
    def module(self) -> nn.Module:
        """``model`` without that wrapper; the optimiser's state is stored under its parameters' names."""
        ...

    @property
    def optimizer(self) -> Optimizer:
        """As Accelerate wrapped it; each group has its ``rate``, a factor of the learning rate."""
        ...

    def make_batch(self, micro_batch: int) -> MovableBatch:
        """The part of this process in a micro-batch of the run; called in a background thread."""
        ...

    @property
    def cut(self) -> Cut | None:
        """How a batch is cut, if its loss in training mode is the mean of what each image costs; else None."""
        ...

    def begin_step(self) -> None:
        """Go into training mode."""
        ...

    def losses(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of a batch over all processes, and its terms before their weights."""
        ...

    def after_step(self) -> None:
        """Update what depends on the parameters, after the optimiser has changed them."""
        ...

    def validate(self) -> dict[str, Any]:
        """Metrics of the validation part: ``score``, which chooses the best, and ``sources``."""
        ...

    def state(self) -> dict[str, Tensors]:
        """All that changes in training beside the optimiser, by file of the checkpoint."""
        ...

    def restore(self, checkpoint: Checkpoint) -> None:
        """Inverse of ``state``."""
        ...
