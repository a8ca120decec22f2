"""Adversarial semantic noise: the difference between matched images, added to the decoder's input during fitting.

Source: Li et al., arXiv 2312.06158 (ICML 2024). ``Memory`` stores the last images, ``match`` searches it for images of
similar quality and different semantics, and ``matched_noise`` makes noise out of the differences. ``contrast`` is the
loss of the paper's first version, for the opposite matches. Which of an image's matches is taken, and how much of the
difference, is our choice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from pseudo_labels.errors import PocketiqaError
from teachers.qfm_iqm.tokens import Quality, Tokens

QUALITY, OPPOSITE = "quality", "opposite"
FORMS = (QUALITY, OPPOSITE)

_LEAST_DEVIATION = 1e-6  # so that a channel with the same value in the whole memory divides nothing by zero
_BETA = 0.1  # beta of the smooth L1: changes up to a tenth of the scale count squared, larger ones linearly

Predictor = Callable[[Tokens], Quality]
"""A model's decoder: tokens of B images to their scores."""


@dataclass(frozen=True)
class MatchRule:
    """Conditions for two images to match.

    Attributes:
        form: ``quality`` for similar scores and different semantics, ``opposite`` for the reverse.
        matches: largest number of matches of an image.
        score_gap: scores that differ by less than this are similar, others different; in (0, 1].
        similarity: semantics with a cosine below this are different, others similar; in (-1, 1].

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
class NoiseSettings:
    """Settings of the loss term that matched images add during fitting; they do not change how an image is scored.

    Attributes:
        weight: weight of the term in the loss, at least 0; 0 fits without it.
        scale: fraction of the difference to the matched image that is added as noise; above 0.
        memory_length: number of images in the memory.
        rule: conditions of a match.

    Raises:
        PocketiqaError: a number out of range.
    """

    weight: float = 1.0
    scale: float = 0.5
    memory_length: int = 512
    rule: MatchRule = field(default_factory=MatchRule)

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise PocketiqaError(f"noise_weight {self.weight}: it must be at least 0; 0 fits without noise")
        if not self.scale > 0:
            raise PocketiqaError(f"noise_scale {self.scale}: it must be above 0; noise_weight=0 leaves the noise out")
        if self.memory_length < 1:
            raise PocketiqaError(f"memory_length {self.memory_length}: at least 1 is needed")


@dataclass(frozen=True)
class Entries:
    """L images in a memory.

    Attributes:
        semantics: [L, C], deep features of what the images show.
        features: [L, ...], mean input of the decoder.
        score: [L], MOS in [0, 1].
    """

    semantics: Tensor
    features: Tensor
    score: Tensor


class Memory(nn.Module):
    """A ring buffer of the last ``length`` images.

    Its buffers are training state and go into checkpoints, so that a resumed run continues with the same memory.

    Args:
        length: number of images, at least 1.
        semantics: number of channels of ``Entries.semantics``.
        features: shape of one image's ``Entries.features``.
    """

    semantics: Tensor
    features: Tensor
    score: Tensor
    written: Tensor

    def __init__(self, length: int, semantics: int, features: tuple[int, ...]):
        super().__init__()
        self.register_buffer("semantics", torch.zeros(length, semantics))
        self.register_buffer("features", torch.zeros(length, *features))
        self.register_buffer("score", torch.zeros(length))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    def entries(self) -> Entries:
        """The stored images, at most ``length``, in the order of the buffers, which is not that of their age."""
        filled = min(int(self.written), len(self.score))
        return Entries(self.semantics[:filled], self.features[:filled], self.score[:filled])

    @torch.no_grad()
    def push(self, new: Entries) -> None:
        """Store images, each in place of the oldest one.

        With several processes all of them have to call this together; each stores the images of all, in order of rank.
        """
        # In order of rank on every process: the memories stay equal, so a checkpoint of one serves all.
        parts = (gathered(new.semantics), gathered(new.features), gathered(new.score))
        slots, first = ring_slots(int(self.written), len(parts[2]), len(self.score))
        for buffer, part in zip((self.semantics, self.features, self.score), parts, strict=True):
            buffer[slots.to(buffer.device)] = part[first:].to(buffer.dtype)
        self.written += len(parts[2])


def ring_slots(written: int, new: int, length: int) -> tuple[Tensor, int]:
    """Positions in a ring of ``length`` for the next ``new`` entries, after ``written`` entries before them.

    Returns:
        Positions, int64, one for each entry that is stored; and the number of entries at the front that are dropped,
        because more than ``length`` came at once.
    """
    dropped = max(new - length, 0)
    return (written + torch.arange(dropped, new)) % length, dropped


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, in order of rank; a single process gets its own rows back.

    Processes may have different numbers of rows, of the same shape.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, count)
    most = max(int(number) for number in counts)
    # ``all_gather`` exchanges equal shapes only, so short parts are padded and cut again.
    padded = torch.cat((rows, rows.new_zeros(most - len(rows), *rows.shape[1:])))
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded)
    return torch.cat([part[: int(number)] for part, number in zip(parts, counts, strict=True)])


@dataclass(frozen=True)
class Matches:
    """At most k matches of each of B images.

    Attributes:
        index: int64 [B, k], rows of the memory, best match first; 0 where there are fewer than k.
        valid: bool [B, k], True for a match, False for a filler.
    """

    index: Tensor
    valid: Tensor


def similarities(semantics: Tensor, remembered: Tensor) -> Tensor:
    """Cosines [B, L] between semantics [B, C] and those in a memory [L, C], standardised by the memory's channels."""
    # Activations after a ReLU are all positive: without standardising, any two photographs would have similar ones.
    mean = remembered.mean(0)
    deviation = remembered.std(0, unbiased=False).clamp_min(_LEAST_DEVIATION)
    own = functional.normalize((semantics - mean) / deviation, dim=1)
    others = functional.normalize((remembered - mean) / deviation, dim=1)
    return own @ others.T


def admissible(gap: Tensor, similarity: Tensor, rule: MatchRule) -> Tensor:
    """Whether pairs meet both conditions.

    Args:
        gap: absolute score differences of the pairs, any shape.
        similarity: cosines of their semantics, the same shape.
        rule: the conditions.

    Returns:
        bool, the same shape.
    """
    same_quality, same_semantics = gap < rule.score_gap, similarity >= rule.similarity
    return same_quality & ~same_semantics if rule.form == QUALITY else ~same_quality & same_semantics


def find_matches(gap: Tensor, similarity: Tensor, rule: MatchRule) -> Matches:
    """The best admissible entries of the memory for each image.

    Best is the most similar score for ``quality``, and the most similar semantics for ``opposite``; among equals, the
    first in the memory.

    Args:
        gap: absolute score differences, [B, L].
        similarity: cosines of the semantics, [B, L].
        rule: conditions, and the number of matches.
    """
    allowed = admissible(gap, similarity, rule)
    cost = gap if rule.form == QUALITY else -similarity
    # Stable, so that entries of equal cost come in the memory's order, on every device.
    index = cost.masked_fill(~allowed, torch.inf).argsort(dim=1, stable=True)[:, : rule.matches]
    valid = allowed.gather(1, index)
    return Matches(index.masked_fill(~valid, 0), valid)


def match(semantics: Tensor, score: Tensor, memory: Entries, rule: MatchRule) -> Matches:
    """Matches of images with semantics [B, C] and MOS [B] in a memory that is not empty."""
    gap = (score[:, None] - memory.score).abs()
    return find_matches(gap, similarities(semantics, memory.semantics), rule)


def differences(own: Tensor, matched: Tensor, scale: float) -> Tensor:
    """Noise [B, k, ...] that moves features ``own`` [B, ...] to ``matched`` [B, k, ...]; all the way at scale 1."""
    return scale * (matched - own.unsqueeze(1))


def strongest(change: Tensor, valid: Tensor) -> Tensor:
    """Column of the largest valid ``change`` in each row, [B]; the first among equals.

    Args:
        change: absolute score changes, [B, k].
        valid: bool [B, k], the columns that count; a row without any gives 0.
    """
    # Absolute changes are at least 0, so that -1 is below all of them.
    return change.masked_fill(~valid, -1.0).argmax(1)


@torch.no_grad()
def worst_noise(predict: Predictor, tokens: Tokens, score: Tensor, candidates: Tensor, matches: Matches) -> Tensor:
    """The noise that moves each image's score most, [B, 2, levels, width]; zeros where an image has no match.

    Args:
        predict: the model's decoder.
        tokens: tokens of B images.
        score: their scores without noise, [B].
        candidates: noise of each match, [B, k, 2, levels, width].
        matches: matches that the candidates come from.
    """
    moved = [predict(tokens.with_noise(noise)).score - score for noise in candidates.unbind(1)]
    best = strongest(torch.stack(moved, 1).abs(), matches.valid)
    noise = candidates[torch.arange(len(best), device=best.device), best]
    return noise * matches.valid.any(1).reshape(-1, 1, 1, 1)


@torch.no_grad()
def matched_noise(
    predict: Predictor, tokens: Tokens, score: Tensor, target: Tensor, memory: Entries, settings: NoiseSettings
) -> tuple[Tensor, Tensor]:
    """Noise for each image [B, 2, levels, width], and whether the image has a match, bool [B].

    Args:
        predict: the model's decoder.
        tokens: tokens of B images.
        score: their scores without noise, [B].
        target: their MOS in [0, 1], by which they are matched, [B].
        memory: images to match with, at least one.
        settings: conditions of a match and scale of the noise.
    """
    matches = match(tokens.semantics, target, memory, settings.rule)
    candidates = differences(tokens.features, memory.features[matches.index], settings.scale)
    return worst_noise(predict, tokens, score, candidates, matches), matches.valid.any(1)


def moved_by_noise(score: Tensor, noisy: Tensor, matched: Tensor) -> Tensor:
    """The loss of each image [B]: smooth L1 between its scores with and without noise.

    Args:
        score: scores without noise, [B].
        noisy: scores with noise, [B].
        matched: bool [B], whether the image has a match; 0 is the loss of one without.
    """
    # Both scores keep their gradient: the parts they have in common cancel, and only the effect of the noise is damped.
    # With the plain score detached, the gradient acts on the noisy features themselves instead of on the noise, and
    # moves the plain score too: one trial fit on BIQ2021 lost 0.1 SRCC that way and became no less sensitive.
    return functional.smooth_l1_loss(noisy, score, beta=_BETA, reduction="none") * matched


def too_alike(cosine: Tensor, gap: Tensor, valid: Tensor) -> Tensor:
    """The loss of each image [B]: by how much its features are too similar to those of its matches, on average.

    Two images whose scores differ by ``gap`` may have features with a cosine up to 1 - gap.

    Args:
        cosine: cosines between an image's features and those of its matches, [B, k].
        gap: absolute score differences, [B, k].
        valid: bool [B, k], the matches that count; an image without any has loss 0.
    """
    excess = functional.relu(cosine - (1 - gap)) * valid
    return excess.sum(1) / valid.sum(1).clamp_min(1)


def contrast(own: Tensor, remembered: Tensor, gap: Tensor, matches: Matches) -> Tensor:
    """The contrast loss ``too_alike`` of each image [B], from features.

    Args:
        own: selected features of B images, with their gradient, [B, ...].
        remembered: selected features of the images in the memory, [L, ...].
        gap: absolute score differences, [B, L].
        matches: matches of the B images in the memory.
    """
    cosine = similarities(own.flatten(1), remembered.flatten(1)).gather(1, matches.index)
    return too_alike(cosine, gap.gather(1, matches.index), matches.valid)
