"""From options to a teacher."""

from pathlib import Path

import torch

from teachers.dp_iqa.model import Conditioning
from teachers.dp_iqa.sources import Sources
from teachers.dp_iqa.speed import Speed
from teachers.dp_iqa.teacher import DpIqaTeacher, Input


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
