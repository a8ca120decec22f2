"""Adversarial semantic noise: what matched images differ in, added to the decoder's input.

Source: Li et al., arXiv 2312.06158 (ICML 2024). Which of an image's matches is taken, and how much of the difference,
is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from pseudo_labels.errors import PocketiqaError
from teachers.qfm_iqm.tokens import Quality, Tokens


@dataclass(frozen=True)
class Entries:
    """Images as they are remembered.

    Attributes:
        semantics: [L, C], what they show.
        features: [L, ...], what the decoder sees of them.
        score: [L].
    """

    semantics: Tensor
    features: Tensor
    score: Tensor


class Memory(nn.Module):
    """The last ``length`` images; its buffers are training state, for a checkpoint.

    Args:
        length: at least 1.
        semantics: channels.
        features: shape of one image's.
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
        """Those that have been written, at most ``length``, in the order of the buffers."""
        filled = min(int(self.written), len(self.score))
        return Entries(self.semantics[:filled], self.features[:filled], self.score[:filled])

    @torch.no_grad()
    def push(self, new: Entries) -> None:
        """Remember images, each over the oldest one; a process gets those of all others too, in order of rank."""
        parts = (gathered(new.semantics), gathered(new.features), gathered(new.score))
        slots, first = ring_slots(int(self.written), len(parts[2]), len(self.score))
        for buffer, part in zip((self.semantics, self.features, self.score), parts, strict=True):
            buffer[slots.to(buffer.device)] = part[first:].to(buffer.dtype)
        self.written += len(parts[2])


def ring_slots(written: int, new: int, length: int) -> tuple[Tensor, int]:
    """Where the next ``new`` entries of a ring of ``length`` go, after ``written`` before them.

    Returns:
        Slots, long, one for each entry that is kept; and the number of entries at the front that are not, because
        more than ``length`` came at once.
    """
    dropped = max(new - length, 0)
    return (written + torch.arange(dropped, new)) % length, dropped


def gathered(rows: Tensor) -> Tensor:
    """Rows of all processes, in order of rank, which may bring different numbers of them; alone, the same rows."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, count)
    most = max(int(one) for one in counts)
    # Collectives exchange equal shapes only.
    padded = torch.cat((rows, rows.new_zeros(most - len(rows), *rows.shape[1:])))
    everyone = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(everyone, padded)
    return torch.cat([part[: int(one)] for part, one in zip(everyone, counts, strict=True)])


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


def too_alike(cosine: Tensor, gap: Tensor, valid: Tensor) -> Tensor:
    """The loss of each image [B]: how far its matches' features are more alike than their scores allow, on average.

    Two images whose scores are ``gap`` apart may have features with a cosine up to 1 - gap.

    Args:
        cosine: of an image's features with those of its matches, [B, k].
        gap: of their scores, [B, k].
        valid: which of them are real; an image without any has no loss.
    """
    excess = functional.relu(cosine - (1 - gap)) * valid
    return excess.sum(1) / valid.sum(1).clamp_min(1)


def contrast(own: Tensor, remembered: Tensor, gap: Tensor, matches: Matches) -> Tensor:
    """The same [B] from features.

    Args:
        own: selected features of B images, with their gradient; [B, ...].
        remembered: of the memory; [L, ...].
        gap: score differences; [B, L].
        matches: rows of the memory.
    """
    cosine = similarities(own.flatten(1), remembered.flatten(1)).gather(1, matches.index)
    return too_alike(cosine, gap.gather(1, matches.index), matches.valid)


Predictor = Callable[[Tokens], Quality]

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
def worst_noise(judge: Predictor, tokens: Tokens, score: Tensor, candidates: Tensor, matches: Matches) -> Tensor:
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
    judge: Predictor, tokens: Tokens, score: Tensor, target: Tensor, memory: Entries, settings: NoiseSettings
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
