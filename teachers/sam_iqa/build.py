"""Builds a SAM-IQA teacher from its options: loads weights, checks sizes, sets the precision."""

from pathlib import Path

import torch
from segment_anything.modeling import ImageEncoderViT

from pseudo_labels.errors import PocketiqaError
from teachers.checksummed import tensor_digest
from teachers.fitting import head_file
from teachers.launch import PRECISIONS, check_precision
from teachers.needs import no_head
from teachers.sam_iqa.model import TRAINABLE, SamIqa, SamIqaConfig
from teachers.sam_iqa.teacher import SamIqaTeacher
from teachers.sam_iqa.variants import build_vit, load_vit

_VIT = "encoder.vit."
_LICENCE = "SAM encoder weights: Apache-2.0, trained on SA-1B (research licence)"
_RANDOM_LICENCE = "random weights"


def build_sam_iqa(
    *,
    variant: str = "vit_b",
    form: str = "nr",
    head: str | Path | None = None,
    weights: str | Path | None = None,
    pretrained: bool = True,
    input_side_px: int = 0,
    trainable: str = "head",
    precision: str = "fp32",
    checkpoint_blocks: bool = False,
    compile: bool = False,
    seed: int = 0,
) -> SamIqaTeacher:
    """Build a SAM-IQA teacher on the CPU; equal arguments give equal weights.

    Args:
        variant: ``vit_b``, ``vit_l``, ``vit_h``, or ``tiny`` for tests.
        form: ``nr`` scores an image alone; ``fr`` compares it with its reference, for synthetic pools.
        head: file that ``pocketiqa fit-teacher`` made, or ``new`` for random weights to be fitted. May be left out
            only with random encoder weights.
        weights: official ``.pth`` file or its folder; see ``variants.load_vit``.
        pretrained: False takes a random encoder, for tests and measurements.
        input_side_px: side of the square input in pixels; 0 means the native one. 512 costs a quarter of 1024.
        trainable: ``head``, ``neck`` or ``all``, see ``SamIqaConfig``.
        precision: precision of the encoder, ``fp32`` or ``bf16``; the head always computes in float32. Fit in ``fp32``
            where the encoder is trained, with autocast for speed.
        checkpoint_blocks: compute blocks again in the backward pass instead of storing activations; for
            ``trainable: all``.
        compile: ``torch.compile`` the encoder; the first batches are slow, scores change by rounding only.
        seed: seed of random weights.

    Raises:
        PocketiqaError: an unknown choice, no head, or weights that are missing, corrupt or of another model.
    """
    config = SamIqaConfig(variant, form, input_side_px, trainable)
    check_precision(precision)
    if head is None and pretrained:
        raise PocketiqaError(no_head(f"sam_iqa {variant}"))
    if not pretrained and weights is not None:
        raise PocketiqaError(f"pretrained is False and weights is {str(weights)!r}: only one can hold")
    # Random weights are drawn from torch's generator of the CPU: seeded here, and put back for the caller.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        vit = load_vit(variant, weights) if pretrained else build_vit(config.sizes)
        base = frozen_digest(vit, trainable)  # before ``SamIqa`` resizes the encoder's position embedding
        model = SamIqa(config, vit)
    licence = _LICENCE if pretrained else _RANDOM_LICENCE
    teacher = SamIqaTeacher(model, base=base, precision=precision, licence=licence, head=head_file(head))
    # After the teacher has loaded its head: fitted files hold float32.
    if checkpoint_blocks:
        model.encoder.checkpoint_blocks()
    model.encoder.vit.to(PRECISIONS[precision])
    # Last: what is compiled must be what runs.
    if compile:
        model.encoder.vit.compile()
    return teacher


def frozen_digest(vit: ImageEncoderViT, trainable: str) -> str:
    """Digest of the encoder's frozen tensors as in the checkpoint, before any resizing or rounding."""
    trained = TRAINABLE[trainable]
    return tensor_digest(
        {key: value for key, value in vit.state_dict().items() if not (_VIT + key).startswith(trained)}
    )
