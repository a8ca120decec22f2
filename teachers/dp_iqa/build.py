"""Builds a DP-IQA teacher from its options."""

from dataclasses import dataclass
from pathlib import Path

import torch

from teachers.dp_iqa.model import Conditioning, DpIqa
from teachers.dp_iqa.sources import Sources
from teachers.dp_iqa.teacher import DpIqaTeacher, Input
from teachers.launch import PRECISIONS, check_precision


@dataclass(frozen=True)
class Speed:
    """Settings of speed and memory; only ``precision`` changes scores by more than rounding.

    Attributes:
        precision: ``fp32`` or ``bf16``; the layers from the feature map to the score always compute in float32. Fit in
            ``fp32``, with autocast.
        channels_last: use the channels-last memory layout for convolutions, faster on GPUs with tensor cores.
        attention_slicing: ``auto``, ``max`` or a number of heads, for devices without memory-efficient attention; None
            computes attention at once.
        compile: ``torch.compile`` the autoencoder's encoder and the U-Net.
        checkpoint_blocks: save memory during fitting by computing the U-Net's blocks again in the backward pass.
    """

    precision: str = "fp32"
    channels_last: bool = False
    attention_slicing: str | int | None = None
    compile: bool = False
    checkpoint_blocks: bool = False

    def __post_init__(self) -> None:
        check_precision(self.precision)

    def apply(self, model: DpIqa) -> None:
        """Change how a model computes, once all its weights are loaded.

        Raises:
            PocketiqaError: ``attention_slicing`` is no setting that the U-Net can use.
        """
        if self.precision != "fp32":
            model.lower_precision(PRECISIONS[self.precision])
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] - torch's own stub lacks it
        if self.attention_slicing is not None:
            model.slice_attention(self.attention_slicing)
        if self.checkpoint_blocks:
            model.checkpoint_blocks()
        if self.compile:  # last: what is compiled must be what runs
            model.compile_parts()


def build_dp_iqa(
    *,
    variant: str = "sd15",
    weights: str | Path | None = None,
    head: str | Path | None = None,
    official: str | Path | None = None,
    clip: str | Path | None = None,
    prompts: str | Path | None = None,
    prompt_cache: str | Path | None = None,
    pretrained: bool = True,
    download: bool = False,
    seed: int = 0,
    trainable: str = "all",
    input_side_px: int = 0,
    interpolation: str = "bicubic",
    timestep: int = 1,
    posterior: str = "mode",
    posterior_seed: int = 0,
    scale_input: bool = False,
    precision: str = "fp32",
    channels_last: bool = False,
    attention_slicing: str | int | None = None,
    compile: bool = False,
    checkpoint_blocks: bool = False,
) -> DpIqaTeacher:
    """Build a DP-IQA teacher on the CPU; equal options give equal weights.

    Four classes explain the options: ``Sources`` those up to ``seed``, ``Input`` ``input_side_px`` (0 means the
    variant's) and ``interpolation``, ``Conditioning`` those from ``timestep`` to ``scale_input``, and ``Speed`` the
    others. ``trainable`` is a key of ``model.TRAINABLE``: ``all`` for everything but the autoencoder, ``head`` for
    adapters and decoder.

    Raises:
        PocketiqaError: an unknown choice, no head, or weights that are missing, corrupt or of another model.
    """
    sources = Sources(
        variant=variant,
        weights=weights,
        head=head,
        official=official,
        clip=clip,
        prompts=prompts,
        prompt_cache=prompt_cache,
        pretrained=pretrained,
        download=download,
        seed=seed,
    )
    speed = Speed(precision, channels_last, attention_slicing, compile, checkpoint_blocks)
    conditioning = Conditioning(timestep, posterior, posterior_seed, scale_input)
    image_input = Input(input_side_px or sources.sizes.input_side_px, interpolation)
    # New adapters and decoders are drawn from torch's generator of the CPU: seeded here, and put back for the caller.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = sources.model(conditioning=conditioning, trainable=trainable)
    # Before the precision is lowered: the stamp and a fitted head are about the float32 weights.
    teacher = DpIqaTeacher(model, image_input, sources, precision)
    speed.apply(model)
    return teacher
