"""Sensitivity to semantic noise: how much matched images can change a score.

Fitting with noise, and the gate, are meant to make it small. Compare two models only together with the standard
deviation of their scores: a model that gives all images the same score has no sensitivity at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from teachers.qfm_iqm.fit import entries_of
from teachers.qfm_iqm.model import QfmIqm
from teachers.qfm_iqm.noise import QUALITY, Entries, NoiseSettings, matched_noise
from teachers.qfm_iqm.tokens import Tokens

_AT_ONCE = 64  # images per pass of the decoder; each comes with one noise per match


@dataclass(frozen=True)
class Sensitivity:
    """Score changes of B images under matched noise, one by one, so that two models can be compared in pairs.

    Attributes:
        change: absolute score changes, [B]; NaN where an image has no match.
        ungated: absolute score changes without the feature selection, [B]; NaN where ``change`` is.
        score: scores without noise, [B].
    """

    change: Tensor
    ungated: Tensor
    score: Tensor

    @property
    def deviation(self) -> float:
        """Standard deviation of the scores without noise, the scale to compare changes with."""
        return float(self.score.std(correction=0))

    @property
    def mean(self) -> float:
        """Mean change over the images that have a match; NaN if none has."""
        return float(self.change.nanmean())

    @property
    def mean_ungated(self) -> float:
        """Mean change without the feature selection; NaN if no image has a match."""
        return float(self.ungated.nanmean())


@torch.inference_mode()
def noise_sensitivity(
    model: QfmIqm, tokens: Tokens, score: Tensor, memory: Entries, settings: NoiseSettings
) -> Sensitivity:
    """Measure the change of each image's score under the strongest noise of its matches.

    Args:
        model: the model to measure.
        tokens: output of ``model.encode`` for B images.
        score: MOS of the images in [0, 1], by which they are matched, [B].
        memory: images to match with, of the same model. An image does not match itself: its semantics are equal.
        settings: thresholds of a match and scale of the noise; the form of the rule is always ``quality``.
    """
    settings = replace(settings, rule=replace(settings.rule, form=QUALITY))
    plain, plain_ungated = model.decode(tokens).score, model.decode(tokens, gated=False).score
    # Without the selection the same noise is used, the strongest one with it: only the selection differs.
    noise, matched = matched_noise(model.decode, tokens, score=plain, target=score, memory=memory, settings=settings)
    disturbed = tokens.with_noise(noise)
    change = (model.decode(disturbed).score - plain).abs()
    ungated = (model.decode(disturbed, gated=False).score - plain_ungated).abs()
    change, ungated = (values.masked_fill(~matched, torch.nan).cpu() for values in (change, ungated))
    return Sensitivity(change, ungated, plain.cpu())


@torch.inference_mode()
def sensitivity_among(model: QfmIqm, batches: Iterable[tuple[Tensor, Tensor]], settings: NoiseSettings) -> Sensitivity:
    """Measure ``noise_sensitivity`` of a set of images that are matched with each other.

    Args:
        model: the model to measure, on the device of the images.
        batches: uint8 RGB images [B, 3, H, W] with their MOS [B].
        settings: thresholds of a match and scale of the noise.
    """
    parts = [(model.encode(rgb), score) for rgb, score in batches]
    entries = [entries_of(tokens, score, torch.ones_like(score, dtype=torch.bool)) for tokens, score in parts]
    memory = Entries(
        torch.cat([one.semantics for one in entries]),
        torch.cat([one.features for one in entries]),
        torch.cat([one.score for one in entries]),
    )
    # Joined and split again: batches of the caller may be single images, and the decoder is faster with many.
    names = ("cells", "whole", "semantics")
    columns = [torch.cat([getattr(one, name) for one, _ in parts]).split(_AT_ONCE) for name in names]
    chunks = zip(map(Tokens, *columns), memory.score.split(_AT_ONCE), strict=True)
    results = [noise_sensitivity(model, tokens, score, memory, settings) for tokens, score in chunks]
    return Sensitivity(*(torch.cat([getattr(one, name) for one in results]) for name in ("change", "ungated", "score")))
