"""From options to a teacher."""

from dataclasses import dataclass
from pathlib import Path

import torch

from teachers.dp_iqa.model import Conditioning, DpIqa
from teachers.dp_iqa.sources import Sources
from teachers.dp_iqa.teacher import DpIqaTeacher, Input
from teachers.launch import PRECISIONS, check_precision


@dataclass(frozen=True)
class Speed:
    """How the model is run.

    Attributes:
        precision: ``fp32`` or ``bf16``; the last layers compute in fp32 always. Fit in ``fp32``, with autocast.
        channels_last: memory layout of the convolutions, faster on GPUs with tensor cores.
        attention_slicing: ``auto``, ``max`` or a number of heads, for devices without memory-efficient attention.
        compile: ``torch.compile`` the autoencoder's encoder and the U-Net.
        checkpoint_blocks: save memory while fitting, by computing blocks twice.
    """

    precision: str = "fp32"
    channels_last: bool = False
    attention_slicing: str | int | None = None
    compile: bool = False
    checkpoint_blocks: bool = False

    def __post_init__(self) -> None:
        check_precision(self.precision)

    def apply(self, model: DpIqa) -> None:
        """Prepare a model that has all its weights.

        Raises:
            PocketiqaError: ``attention_slicing`` is not possible.
        """
        if self.precision != "fp32":
            model.lower_precision(PRECISIONS[self.precision])
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] - torch's own stub lacks it
        if self.attention_slicing is not None:
            model.slice_attention(self.attention_slicing)
        if self.checkpoint_blocks:
            model.checkpoint_blocks()
        if self.compile:
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

    The options up to ``seed`` are those of ``Sources``; ``trainable`` is a key of ``model.TRAINABLE``: ``all`` but the
    autoencoder, or the ``head``, which is adapters and decoder; ``input_side_px`` (0 means the variant's) and
    ``interpolation`` are those of ``Input``; ``timestep`` to ``scale_input`` those of ``Conditioning``; the others
    those of ``Speed``.

    Raises:
        PocketiqaError: an unknown choice, no head, or weights that are missing, damaged or of another model.
    """
    sources = Sources(variant, weights, head, official, clip, prompts, prompt_cache, pretrained, download, seed)
    speed = Speed(precision, channels_last, attention_slicing, compile, checkpoint_blocks)
    conditioning = Conditioning(timestep, posterior, posterior_seed, scale_input)
    image_input = Input(input_side_px or sources.sizes.input_side_px, interpolation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = sources.model(conditioning=conditioning, trainable=trainable)
    teacher = DpIqaTeacher(model, image_input, sources, precision)
    speed.apply(model)
    return teacher
