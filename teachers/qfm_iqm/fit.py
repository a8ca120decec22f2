"""What the fitting loop trains: the plain score, and a term that makes it insensitive to what images show."""

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
    """The model with its memory, which is training state.

    Args:
        model: shared, not copied.
        settings: of the further term.
    """

    def __init__(self, model: QfmIqm, settings: NoiseSettings):
        super().__init__()
        self.model, self.settings = model, settings
        self.memory = new_memory(model, settings.memory_length)

    def forward(self, inputs: Sequence[Tensor], target: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The score without noise; in training mode also the term of the matches, and the images are remembered.

        Args:
            inputs: uint8 RGB [B, 3, H, W], alone.
            target: opinion scores in [0, 1], [B].
            weight: of the images in the loss, [B]; those of weight 0 are not remembered.

        Returns:
            Score [B], not clamped; and ``noise`` or ``contrast``, the mean over the images by their weight, 0 while
            there is nothing in the memory.
        """
        tokens = self.model.encode(*inputs)
        score = self.model.judge(tokens).score
        if not self.training or self.settings.weight == 0:
            return score, {}
        with full_precision(score.device.type):
            term = self._term(tokens, score, target, weight)
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
        return self.settings.weight * (weight * each).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)

    def _moved(self, tokens: Tokens, score: Tensor, target: Tensor, memory: Entries) -> Tensor:
        noise, matched = matched_noise(self.model.judge, tokens, score, target, memory, self.settings)
        return moved_by_noise(score, self.model.judge(tokens.with_noise(noise)).score, matched)

    def _alike(self, tokens: Tokens, target: Tensor, memory: Entries) -> Tensor:
        matches = match(tokens.semantics, target, memory, self.settings.rule)
        select = self.model.decoder.gate
        gap = (target[:, None] - memory.score).abs()
        # A copy: the memory is written before the backward pass, which reads what the gate was applied to.
        return contrast(select(tokens.features), select(memory.features.clone()), gap, matches)


def new_memory(model: QfmIqm, length: int) -> Memory:
    """An empty memory for images of this model."""
    levels = len(model.backbone.depths) * (1 + model.config.halvings)
    return Memory(length, model.backbone.channels[-1], (2, levels, model.config.width))


def entries_of(tokens: Tokens, score: Tensor, kept: Tensor) -> Entries:
    """Images as a memory keeps them: those of ``kept``, bool [B]."""
    return Entries(tokens.semantics.detach()[kept], tokens.features.detach()[kept], score[kept])
