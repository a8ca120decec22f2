"""How far matched images can move a score: what fitting with noise is to make small, and what the gate is for.

Two models are compared fairly only with their scores' deviation beside it: a model that says the same of all images is
moved by none.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from teachers.qfm_iqm.fit import entries_of
from teachers.qfm_iqm.model import QfmIqm
from teachers.qfm_iqm.noise import QUALITY, Entries, NoiseSettings, matched_noise
from teachers.qfm_iqm.tokens import Tokens

_AT_ONCE = 64  # images that the decoder judges under all their candidates


@dataclass(frozen=True)
class Sensitivity:
    """Score changes under matched noise, of images one by one, so that two models can be compared in pairs.

    Attributes:
        change: size of the change with the feature selection, NaN where an image has no match; [B].
        ungated: the same without the selection, all channels let through.
        score: without noise; [B].
    """

    change: Tensor
    ungated: Tensor
    score: Tensor

    @property
    def deviation(self) -> float:
        """Of the scores without noise, which changes are to be seen against."""
        return float(self.score.std(correction=0))

    @property
    def mean(self) -> float:
        """Mean change over the images that have a match; NaN if none has."""
        return float(self.change.nanmean())

    @property
    def mean_ungated(self) -> float:
        """The same without the selection."""
        return float(self.ungated.nanmean())


@torch.inference_mode()
def noise_sensitivity(
    model: QfmIqm, tokens: Tokens, score: Tensor, memory: Entries, settings: NoiseSettings
) -> Sensitivity:
    """Measure the change of each image's score under the strongest noise of its matches.

    Args:
        model: with and without the selection it gets the noise that is strongest with it.
        tokens: of ``model.encode``, B images.
        score: opinion scores by which images are matched, [B].
        memory: images of the same model; the very same image is no match, its semantics being equal.
        settings: their rule's conditions in the form ``quality``, whichever form it has, and their scale.
    """
    settings = replace(settings, rule=replace(settings.rule, form=QUALITY))
    plain, bare = model.judge(tokens).score, model.judge(tokens, gated=False).score
    noise, matched = matched_noise(model.judge, tokens, plain, score, memory, settings)
    disturbed = tokens.with_noise(noise)
    change = (model.judge(disturbed).score - plain).abs()
    ungated = (model.judge(disturbed, gated=False).score - bare).abs()
    moved, bare_moved = (one.masked_fill(~matched, torch.nan).cpu() for one in (change, ungated))
    return Sensitivity(moved, bare_moved, plain.cpu())


@torch.inference_mode()
def sensitivity_among(model: QfmIqm, batches: Iterable[tuple[Tensor, Tensor]], settings: NoiseSettings) -> Sensitivity:
    """The same for a set of images that are matched with each other.

    Args:
        model: on the device of the images.
        batches: uint8 RGB [B, 3, H, W] with scores [B].
        settings: of the noise.
    """
    parts = [(model.encode(rgb), score) for rgb, score in batches]
    kept = [entries_of(tokens, score, torch.ones_like(score, dtype=torch.bool)) for tokens, score in parts]
    memory = Entries(
        torch.cat([one.semantics for one in kept]),
        torch.cat([one.features for one in kept]),
        torch.cat([one.score for one in kept]),
    )
    names = ("cells", "whole", "semantics")
    columns = [torch.cat([getattr(one, name) for one, _ in parts]).split(_AT_ONCE) for name in names]
    chunks = zip(map(Tokens, *columns), memory.score.split(_AT_ONCE), strict=True)
    found = [noise_sensitivity(model, tokens, score, memory, settings) for tokens, score in chunks]
    return Sensitivity(*(torch.cat([getattr(one, name) for one in found]) for name in ("change", "ungated", "score")))
