"""Adversarial semantic noise: what matched images differ in, added to the decoder's input.

Source: Li et al., arXiv 2312.06158 (ICML 2024). Which of an image's matches is taken, and how much of the difference,
is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from pseudo_labels.errors import PocketiqaError
from teachers.qfm_iqm.decoder import Quality
from teachers.qfm_iqm.matching import Matches, MatchRule, match
from teachers.qfm_iqm.memory import Entries
from teachers.qfm_iqm.tokens import Tokens

Judge = Callable[[Tokens], Quality]

_BETA = 0.1  # of the smooth L1: changes up to a tenth of the scale count squared, larger ones linearly


@dataclass(frozen=True)
class NoiseSettings:
    """How matched images act on fitting; none of it acts on scores.

    Attributes:
        weight: of the further term of the loss; 0 leaves plain fitting.
        scale: share of the difference to the matched image that is added as noise; above 0.
        memory_length: images remembered.
        rule: what matches.

    Raises:
        PocketiqaError: a number out of range.
    """

    weight: float = 1.0
    scale: float = 0.5
    memory_length: int = 512
    rule: MatchRule = field(default_factory=MatchRule)

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise PocketiqaError(f"noise_weight {self.weight}: it must be at least 0, which leaves plain fitting")
        if not self.scale > 0:
            raise PocketiqaError(f"noise_scale {self.scale}: it must be above 0; noise_weight=0 leaves the noise out")
        if self.memory_length < 1:
            raise PocketiqaError(f"memory_length {self.memory_length}: at least 1 is needed")


def differences(own: Tensor, matched: Tensor, scale: float) -> Tensor:
    """Noise [B, k, ...] that moves features ``own`` [B, ...] towards matched ones [B, k, ...]; all the way at 1."""
    return scale * (matched - own.unsqueeze(1))


def strongest(change: Tensor, valid: Tensor) -> Tensor:
    """For each row the position of the largest ``change`` [B, k], at least 0, among the valid; the first of equals."""
    return change.masked_fill(~valid, -1.0).argmax(1)


@torch.no_grad()
def worst_noise(judge: Judge, tokens: Tokens, score: Tensor, candidates: Tensor, matches: Matches) -> Tensor:
    """Of each image's candidates the one that moves the prediction most; zeros where it has no match.

    Args:
        judge: the decoder.
        tokens: of B images.
        score: that they have without noise; [B].
        candidates: [B, k, 2, levels, width].
        matches: which of them are real.
    """
    moved = [judge(tokens.with_noise(noise)).score - score for noise in candidates.unbind(1)]
    best = strongest(torch.stack(moved, 1).abs(), matches.valid)
    noise = candidates[torch.arange(len(best), device=best.device), best]
    return noise * matches.valid.any(1).reshape(-1, 1, 1, 1)


@torch.no_grad()
def matched_noise(
    judge: Judge, tokens: Tokens, score: Tensor, target: Tensor, memory: Entries, settings: NoiseSettings
) -> tuple[Tensor, Tensor]:
    """Noise for each image [B, 2, levels, width], and whether it has a match, bool [B].

    Args:
        judge: the decoder.
        tokens: of B images.
        score: that they have without noise; [B].
        target: opinion scores, which matching compares; [B].
        memory: not empty.
        settings: the rule and the scale.
    """
    matches = match(tokens.semantics, target, memory, settings.rule)
    candidates = differences(tokens.features, memory.features[matches.index], settings.scale)
    return worst_noise(judge, tokens, score, candidates, matches), matches.valid.any(1)


def moved_by_noise(score: Tensor, noisy: Tensor, matched: Tensor) -> Tensor:
    """The loss of each image [B]: smooth L1 between its scores with and without noise, 0 where it has no match.

    Both scores have their gradient: what they have in common cancels, and only the way from noise to score is damped.
    With the plain score held fixed, the gradient goes along the noisy features themselves instead of along the noise,
    and drags the plain score with it (one trial fit on BIQ2021 lost 0.1 SRCC so and became no less sensitive).
    """
    return functional.smooth_l1_loss(noisy, score, beta=_BETA, reduction="none") * matched
