"""The module that the fitting loop trains: the score, and a loss term that makes it insensitive to what images show."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from teachers.launch import full_precision
from teachers.qfm_iqm.model import QfmIqm
from teachers.qfm_iqm.noise import (
    OPPOSITE,
    Entries,
    Memory,
    NoiseSettings,
    contrast,
    match,
    matched_noise,
    moved_by_noise,
)
from teachers.qfm_iqm.tokens import Tokens


class QfmFit(nn.Module):
    """The model with its memory, which is training state and no part of the teacher.

    Args:
        model: the model to fit, by reference.
        settings: settings of the additional loss term.
    """

    def __init__(self, model: QfmIqm, settings: NoiseSettings):
        super().__init__()
        self.model, self.settings = model, settings
        self.memory = new_memory(model, settings.memory_length)

    def forward(self, inputs: Sequence[Tensor], target: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Score images; in training mode also compute the term of the matches, and store the images in the memory.

        Args:
            inputs: one tensor of uint8 RGB images, [B, 3, H, W].
            target: MOS in [0, 1], [B].
            weight: weights of the images in the loss, [B]; images of weight 0 are not stored.

        Returns:
            Scores [B] without noise, not clamped; and in training mode the term ``noise`` or ``contrast``, its weighted
            mean over the images, 0 while the memory is empty.
        """
        tokens = self.model.encode(*inputs)
        score = self.model.decode(tokens).score
        if not self.training or self.settings.weight == 0:
            return score, {}
        with full_precision(score.device.type):
            term = self._term(tokens, score, target, weight)
        # After the term, so that images are matched with those of earlier batches.
        self.memory.push(entries_of(tokens, target, weight > 0))
        return score, {"contrast" if self._opposite else "noise": term}

    @property
    def _opposite(self) -> bool:
        return self.settings.rule.form == OPPOSITE

    def _term(self, tokens: Tokens, score: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        memory = self.memory.entries()
        if not len(memory.score):
            return score.new_zeros(())
        each = self._alike(tokens, target, memory) if self._opposite else self._moved(tokens, score, target, memory)
        # The least positive number as divisor: where all images have weight 0, the term is 0 and not NaN.
        return self.settings.weight * (weight * each).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)

    def _moved(self, tokens: Tokens, score: Tensor, target: Tensor, memory: Entries) -> Tensor:
        noise, matched = matched_noise(
            self.model.decode, tokens, score=score, target=target, memory=memory, settings=self.settings
        )
        return moved_by_noise(score, self.model.decode(tokens.with_noise(noise)).score, matched)

    def _alike(self, tokens: Tokens, target: Tensor, memory: Entries) -> Tensor:
        matches = match(tokens.semantics, target, memory, self.settings.rule)
        select = self.model.decoder.gate
        gap = (target[:, None] - memory.score).abs()
        # A copy, because the memory is overwritten before the backward pass, which needs what the gate was applied to.
        return contrast(select(tokens.features), select(memory.features.clone()), gap, matches)


def new_memory(model: QfmIqm, length: int) -> Memory:
    """An empty memory of ``length`` images, with the shapes of this model."""
    levels = len(model.backbone.depths) * (1 + model.config.halvings)
    return Memory(length, model.backbone.channels[-1], (2, levels, model.config.width))


def entries_of(tokens: Tokens, score: Tensor, selected: Tensor) -> Entries:
    """Entries of a memory for the ``selected`` of B images.

    Args:
        tokens: tokens of the images.
        score: their MOS, [B].
        selected: bool [B].
    """
    return Entries(tokens.semantics.detach()[selected], tokens.features.detach()[selected], score[selected])
