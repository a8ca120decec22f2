"""A small teacher that can be fitted in a second, named as ``tests.helpers.fitting:build``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pseudo_labels.images import ImageError
from pseudo_labels.records import Status
from teachers.base import Item, TeacherOutput, stack
from teachers.checksummed import tensor_digest
from teachers.fitting import FittableBase, PlainFit, evaluate_frozen, head_file

NAME = "tests.helpers.fitting:build"
MEMORY = 6


@dataclass
class Predicted:
    """What ``PlainFit`` asks of a model's output."""

    score: Tensor


class SmallNet(nn.Module):
    """Frozen differences of neighbours (with a frozen norm), and a trained head over their mean size.

    Args:
        filters: float32 [C, 1, 3, 3], frozen.
        dropout: before the last layer.
        norm: a trained batch norm, whose statistics training changes, before the head.
    """

    def __init__(self, filters: Tensor, dropout: float, norm: bool):
        super().__init__()
        width = len(filters)
        differences = nn.Conv2d(1, width, 3, bias=False)
        differences.weight.data.copy_(filters)
        self.base = nn.Sequential(differences, nn.BatchNorm2d(width)).requires_grad_(False)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.mix = nn.Conv2d(width, 8, 1)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(8, 1)

    def train(self, mode: bool = True) -> "SmallNet":
        super().train(mode)
        evaluate_frozen(self)
        return self

    def forward(self, images: Tensor) -> Predicted:
        grey = images.float().mean(1, keepdim=True) / 64
        activations = torch.relu(self.mix(self.norm(self.base(grey).abs())))
        return Predicted(self.last(self.dropout(activations.mean((2, 3))))[:, 0])


class Remembering(PlainFit):
    """Adds a term that depends on the mean scores of the last micro-batches, which it remembers.

    Args:
        model: a ``SmallNet``.
        weight: of the term.
    """

    memory: Tensor
    written: Tensor

    def __init__(self, model: nn.Module, weight: float):
        super().__init__(model)
        self.weight = weight
        self.register_buffer("memory", torch.zeros(MEMORY))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Sequence[Tensor], target: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        score, _ = super().forward(inputs, target, weight)
        apart = self.weight * (score - 0.5 - 0.1 * self.memory.mean()).square().mean()
        with torch.no_grad():
            self.memory[int(self.written) % MEMORY] = score.mean()
            self.written += 1
        return score, {"apart": apart}


class SmallTeacher(FittableBase[SmallNet]):
    """The network with what a teacher needs around it; see ``build``."""

    version = 1
    needs_reference = False
    feature_names = ()

    def __init__(self, model: SmallNet, *, side_px: int, smallest_px: int, extra: float, head: Path | None):
        base = {name: value for name, value in model.state_dict().items() if name.startswith("base.")}
        self._side, self._smallest, self._extra = side_px, smallest_px, extra
        super().__init__("small", model, fitted_with={}, base=tensor_digest(base), licence="none", head=head)

    def stamp_options(self) -> dict[str, Any]:
        return {"side_px": self._side}

    def preprocess(self, image: np.ndarray, reference: np.ndarray | None) -> Item:
        height, width = image.shape[:2]
        if min(height, width) < self._smallest:
            raise ImageError(Status.TOO_SMALL, f"a patch has {self._smallest} pixels")
        if self._side:
            image = np.asarray(Image.fromarray(image).crop((0, 0, self._side, self._side)))
        return torch.from_numpy(image.transpose(2, 0, 1).copy())

    def __call__(self, batch: list[Any]) -> TeacherOutput:
        with torch.inference_mode():
            score = self.model(*stack(batch, self.model.last.weight.device)).score
        return TeacherOutput(score.clamp(0, 1))

    def fitting_module(self) -> nn.Module:
        return Remembering(self.model, self._extra) if self._extra else PlainFit(self.model)

    def trained_state(self) -> dict[str, Tensor]:
        statistics = {f"norm.{name}": value for name, value in self.model.norm.named_buffers()}
        return {**super().trained_state(), **statistics}


def build(
    *,
    head: str | Path | None = None,
    weights: str | Path | None = None,
    side_px: int = 0,
    smallest_px: int = 8,
    dropout: float = 0.0,
    extra: float = 0.0,
    norm: bool = False,
    seed: int | None = 0,
) -> SmallTeacher:
    """Build the small teacher.

    Args:
        head: of an earlier fitting.
        weights: .npy file with the filters of the base; None takes those of seed 0.
        side_px: crop images to this square, so that all have one shape.
        smallest_px: smaller images are refused.
        dropout: in training.
        extra: weight of a further term of the loss, which needs a memory.
        norm: train a batch norm too.
        seed: of the trained part; None leaves it to whoever calls.
    """
    filters = base_filters(0) if weights is None else np.load(weights, allow_pickle=False)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = SmallNet(torch.from_numpy(filters), dropout, norm)
    return SmallTeacher(model, side_px=side_px, smallest_px=smallest_px, extra=extra, head=head_file(head))


def base_filters(seed: int) -> np.ndarray:
    """Filters that answer to noise and not to flat areas: float32 [6, 1, 3, 3], each with mean 0."""
    filters = np.random.default_rng(seed).normal(size=(6, 1, 3, 3))
    return (filters - filters.mean((2, 3), keepdims=True)).astype(np.float32)
