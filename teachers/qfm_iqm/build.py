"""Builds a QFM-IQM teacher from its options: loads weights, checks sizes, sets the precision."""

from collections.abc import Sequence
from pathlib import Path

import torch

from pseudo_labels.errors import PocketiqaError
from teachers.checksummed import tensor_digest
from teachers.fitting import head_file
from teachers.launch import PRECISIONS, check_precision
from teachers.needs import check_backbone_choice
from teachers.qfm_iqm.backbone import CachedSummaries, build_backbone
from teachers.qfm_iqm.model import HEAD, QfmConfig, QfmIqm, frozen_state, names_in
from teachers.qfm_iqm.noise import QUALITY, MatchRule, NoiseSettings
from teachers.qfm_iqm.teacher import QfmIqmTeacher


def build_qfm_iqm(
    *,
    backbone: str = "mobilenetv2_100",
    weights: str | Path | None = None,
    pretrained: bool | None = None,
    pad_type: str = "",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    head: str | Path | None = None,
    depths: str | Sequence[str] = (),
    halvings: int = 1,
    max_side_px: int = 512,
    square_px: int | None = None,
    cells: int = 8,
    width: int = 128,
    heads: int = 4,
    trainable: str | Sequence[str] = HEAD,
    noise_weight: float = 1.0,
    noise_scale: float = 0.5,
    memory_length: int = 512,
    matching: str = QUALITY,
    matches: int = 4,
    score_threshold: float = 0.05,
    semantic_threshold: float = 0.2,
    precision: str = "fp32",
    cache: str | Path | None = None,
    seed: int = 0,
) -> QfmIqmTeacher:
    """Build a QFM-IQM teacher on the CPU; equal arguments give equal weights.

    Args:
        backbone: timm's name of any model that gives feature maps, convolutional or of tokens.
        weights: safetensors file of the backbone under timm's key names.
        pretrained: without such a file, True takes timm's weights, fetched from its hub unless they are in its cache;
            False takes a random backbone, for tests and measurements.
        pad_type: timm's padding of the backbone's convolutions; ``same`` for weights that come from TensorFlow.
        mean: mean of R, G and B in [0, 1] that the weights expect; None takes timm's value for the backbone.
        std: standard deviation of R, G and B that the weights expect; None takes timm's value for the backbone.
        head: file that ``pocketiqa fit-teacher`` made, or ``new`` for random weights to be fitted. May be left out
            only with a random backbone.
        depths: names of the depths that are read, as a list or separated by commas, see ``backbone.known_depths``;
            empty takes all stages of a convolutional model, or four blocks of a token model.
        halvings: number of times that the image is also read at half its last size; 1 costs a quarter more.
        max_side_px: largest longer side of an input; larger images are shrunk to it.
        square_px: side of the square that every image is resized to instead, without keeping the aspect ratio, so that
            images of any size can be fitted in one batch without crops.
        cells: rows and columns of cells at each level.
        width: channels of a token.
        heads: number of attention heads; divides the width.
        trainable: ``head``, ``all``, or names of the backbone's modules, as a list or separated by commas, such as
            ``blocks.5,blocks.6,conv_head,bn2``.
        noise_weight: weight of the matched noise (or contrast) in the loss; 0 fits without it. 1 was the best of 0,
            0.3, 1 and 3 on BIQ2021 (``configs/ablation.yaml``): least sensitive to noise, and no less accurate.
        noise_scale: fraction of the difference to a matched image that is added as noise.
        memory_length: number of images in the memory.
        matching: ``quality`` or ``opposite``, see ``noise.MatchRule``.
        matches: largest number of matches of an image.
        score_threshold: scores that differ by less than this are similar.
        semantic_threshold: semantics with a cosine below this are different.
        precision: precision of the backbone, ``fp32`` or ``bf16``; the rest always computes in float32. Fit in ``fp32``
            where the backbone is trained, with autocast for speed.
        cache: folder for summaries of a frozen backbone (see ``backbone.CachedSummaries``). An image takes four bytes
            for each of (cells * cells + 2) * channels of all depths, times 1 + ``halvings``. It saves time where the
            same images come again: fitting without random crops, studies, labelling the images of a fit.
        seed: seed of random weights.

    Raises:
        PocketiqaError: an unknown choice, a number out of range, no head, or weights that are missing, corrupt or of
            another model.
    """
    check_backbone_choice("qfm_iqm", backbone, weights, pretrained, head)
    check_precision(precision)
    settings = NoiseSettings(
        noise_weight, noise_scale, memory_length, MatchRule(matching, matches, score_threshold, semantic_threshold)
    )
    # Random weights are drawn from torch's generator of the CPU: seeded here, and put back for the caller.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        taps, licence = build_backbone(
            backbone, weights=weights, pretrained=pretrained, pad_type=pad_type, mean=mean, std=std,
            depths=names_in(depths),
        )  # fmt: skip
        config = QfmConfig(
            backbone=backbone,
            pad_type=pad_type,
            mean=taps.input_mean,
            std=taps.input_std,
            depths=taps.depths,  # by name even where all were taken, so that a fitted file says which were read
            halvings=halvings,
            max_side_px=max_side_px,
            square_px=square_px,
            cells=cells,
            width=width,
            heads=heads,
            trainable=names_in(trainable),
        )
        model = QfmIqm(config, taps)
    teacher = QfmIqmTeacher(
        model,
        settings,
        base=tensor_digest(frozen_state(model)),
        precision=precision,
        licence=licence,
        head=head_file(head),
    )
    # After the digest and the head, which are those of the float32 weights.
    taps.model.to(PRECISIONS[precision])
    if cache is not None:
        model.summary_cache = _summary_cache(model, teacher, Path(cache).expanduser())
    return teacher


def _summary_cache(model: QfmIqm, teacher: QfmIqmTeacher, folder: Path) -> CachedSummaries:
    if any(value.requires_grad for value in model.backbone.parameters()):
        raise PocketiqaError(
            f"cache is {str(folder)!r}, but trainable {list(model.config.trainable)} changes the backbone:"
            " leave cache out, or fit the head alone"
        )
    # Only what a summary depends on: teachers with other decoders or input sizes can use the same files.
    relevant = ("pad_type", "mean", "std", "depths", "halvings", "cells", "precision", "timm")
    options = teacher.stamp_options()
    return CachedSummaries(folder, {"base": teacher.base, **{name: options[name] for name in relevant}})
