"""Which remembered images an image is compared with: the two conditions of quality-aware feature matching.

Source: Li et al., arXiv 2312.06158: similar scores and different semantics (ICML 2024), or, in the version of December
2023, similar semantics and different scores. Thresholds and the order within the admissible ones are ours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.qfm_iqm.memory import Entries

QUALITY, OPPOSITE = "quality", "opposite"
FORMS = (QUALITY, OPPOSITE)

_LEAST_DEVIATION = 1e-6  # a channel that is the same in all of the memory tells nothing, and must not divide by zero


@dataclass(frozen=True)
class MatchRule:
    """Conditions of a match.

    Attributes:
        form: ``quality`` wants similar scores and different semantics, ``opposite`` the reverse.
        matches: the most that an image gets.
        score_gap: scores nearer than this are similar, others different; (0, 1].
        similarity: semantics with a cosine below this are different, others similar; (-1, 1].

    Raises:
        PocketiqaError: a value out of its range.
    """

    form: str = QUALITY
    matches: int = 4
    score_gap: float = 0.05
    similarity: float = 0.2

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise PocketiqaError(f"matching {self.form!r}: choose {', '.join(FORMS)}")
        if self.matches < 1:
            raise PocketiqaError(f"matches {self.matches}: at least 1 is needed")
        if not 0 < self.score_gap <= 1:
            raise PocketiqaError(f"score_threshold {self.score_gap}: it must be above 0 and at most 1")
        if not -1 < self.similarity <= 1:
            raise PocketiqaError(f"semantic_threshold {self.similarity}: it must be above -1 and at most 1")


@dataclass(frozen=True)
class Matches:
    """Matches of B images.

    Attributes:
        index: long [B, k], rows of the memory, best first; 0 where there is none.
        valid: bool [B, k], whether there is one.
    """

    index: Tensor
    valid: Tensor


def similarities(semantics: Tensor, remembered: Tensor) -> Tensor:
    """Cosines [B, L] between semantics [B, C] and remembered ones [L, C], both standardised by the memory's channels.

    Activations behind a rectifier all point the same way: without standardising, no two photographs would differ.
    """
    mean = remembered.mean(0)
    deviation = remembered.std(0, unbiased=False).clamp_min(_LEAST_DEVIATION)
    own = torch.nn.functional.normalize((semantics - mean) / deviation, dim=1)
    others = torch.nn.functional.normalize((remembered - mean) / deviation, dim=1)
    return own @ others.T


def admissible(gap: Tensor, similarity: Tensor, rule: MatchRule) -> Tensor:
    """Which pairs meet both conditions: bool, of the shape of ``gap`` (score differences, at least 0)."""
    near, alike = gap < rule.score_gap, similarity >= rule.similarity
    return near & ~alike if rule.form == QUALITY else ~near & alike


def find_matches(gap: Tensor, similarity: Tensor, rule: MatchRule) -> Matches:
    """The best admissible entries of the memory for each image.

    Best is, for ``quality``, the nearest score, and for ``opposite`` the most similar semantics; of equals the one that
    lies first in the memory.

    Args:
        gap: score differences, at least 0; [B, L].
        similarity: cosines; [B, L].
        rule: the conditions.
    """
    allowed = admissible(gap, similarity, rule)
    cost = gap if rule.form == QUALITY else -similarity
    order = cost.masked_fill(~allowed, torch.inf).argsort(dim=1, stable=True)[:, : rule.matches]
    valid = allowed.gather(1, order)
    return Matches(order.masked_fill(~valid, 0), valid)


def match(semantics: Tensor, score: Tensor, memory: Entries, rule: MatchRule) -> Matches:
    """Matches of images with semantics [B, C] and scores [B] in a memory that is not empty."""
    gap = (score[:, None] - memory.score).abs()
    return find_matches(gap, similarities(semantics, memory.semantics), rule)
