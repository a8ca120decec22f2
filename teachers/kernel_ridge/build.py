"""Builds a kernel ridge teacher from its options: loads weights, checks sizes, sets the precision."""

from collections.abc import Sequence
from pathlib import Path

import torch

from teachers.checksummed import tensor_digest
from teachers.fitting import head_file, read_trained
from teachers.kernel_ridge.model import KernelRidge
from teachers.kernel_ridge.teacher import KernelRidgeTeacher
from teachers.launch import PRECISIONS, check_precision
from teachers.needs import check_backbone_choice
from teachers.qfm_iqm.backbone import CachedSummaries, build_backbone
from teachers.qfm_iqm.model import names_in
from teachers.qfm_iqm.sizes import BackboneConfig


def build_kernel_ridge(
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
    precision: str = "fp32",
    cache: str | Path | None = None,
    seed: int = 0,
) -> KernelRidgeTeacher:
    """Build a kernel ridge teacher on the CPU; equal arguments give equal weights.

    Args:
        backbone: timm's name of any model that gives feature maps, convolutional or of tokens.
        weights: safetensors file of the backbone under timm's key names.
        pretrained: without such a file, True takes timm's weights, fetched from its hub unless they are in its cache;
            False takes a random backbone, for tests and measurements.
        pad_type: timm's padding of the backbone's convolutions; ``same`` for weights that come from TensorFlow.
        mean: mean of R, G and B in [0, 1] that the weights expect; None takes timm's value for the backbone.
        std: standard deviation of R, G and B that the weights expect; None takes timm's value for the backbone.
        head: file that ``pocketiqa fit-teacher`` made, or ``new`` for one that is to be solved. May be left out only
            with a random backbone.
        depths: names of the depths that are read, as a list or separated by commas, see ``backbone.known_depths``;
            empty takes all stages of a convolutional model, or four blocks of a token model.
        halvings: number of times that the image is also read at half its last size; 1 costs a quarter more.
        max_side_px: largest longer side of an input; larger images are shrunk to it.
        precision: precision of the backbone, ``fp32`` or ``bf16``; the rest always computes in float32.
        cache: folder for the statistics of images (see ``backbone.CachedSummaries``), four bytes for each of 2 *
            channels of all depths, times 1 + ``halvings``. It saves time where the same images come again: folds,
            studies, labelling the images of a fit.
        seed: seed of random weights.

    Raises:
        PocketiqaError: an unknown choice, a number out of range, no head, or weights that are missing, corrupt or of
            another model.
    """
    check_backbone_choice("kernel_ridge", backbone, weights, pretrained, head)
    check_precision(precision)
    # Random weights are drawn from torch's generator of the CPU: seeded here, and put back for the caller.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        taps, licence = build_backbone(
            backbone, weights=weights, pretrained=pretrained, pad_type=pad_type, mean=mean, std=std,
            depths=names_in(depths),
        )  # fmt: skip
    config = BackboneConfig(
        backbone, pad_type, taps.input_mean, taps.input_std, taps.depths, halvings=halvings, max_side_px=max_side_px
    )
    file = head_file(head)
    # The number of photographs is a size of the model, and stands in the file alone.
    photographs = 0 if file is None else len(read_trained(file).tensors.get("support", ()))
    model = KernelRidge(config, taps, photographs)
    base = tensor_digest(taps.model.state_dict())
    teacher = KernelRidgeTeacher(model, base=base, precision=precision, licence=licence, head=file)
    # After the digest and the head, which are those of the float32 weights.
    taps.model.to(PRECISIONS[precision])
    if cache is not None:
        # Only what a statistic depends on: folds of one backbone use the same files.
        relevant = ("pad_type", "mean", "std", "depths", "halvings", "precision", "timm")
        options = teacher.stamp_options()
        made_by = {"base": base, "statistics": "mean and deviation", **{name: options[name] for name in relevant}}
        model.summary_cache = CachedSummaries(Path(cache).expanduser(), made_by)
    return teacher
