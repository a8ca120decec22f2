"""Settings that change how fast a model is and what memory it needs; the precision alone changes scores noticeably."""

from dataclasses import dataclass

import torch

from teachers.dp_iqa.model import DpIqa
from teachers.precision import PRECISIONS, check_precision


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
