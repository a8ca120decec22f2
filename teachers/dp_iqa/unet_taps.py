"""diffusers' U-Net as it is, read through forward hooks: what its up blocks give."""

from collections.abc import Sequence
from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn


class UNetTaps:
    """Runs a U-Net and returns the outputs of its up blocks.

    The hooks are set once, before anything is compiled, because ``torch.compile`` does not look for later ones. One
    call at a time: the outputs pass through this object.

    Args:
        unet: kept by reference; it is not a part of this object.
    """

    def __init__(self, unet: UNet2DConditionModel):
        self._unet = unet
        self._outputs: list[Tensor] = []
        for block in unet.up_blocks:
            block.register_forward_hook(self._keep)

    def _keep(self, _block: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._outputs.append(output)

    def __call__(self, latents: Tensor, timestep: int, context: Tensor, residuals: Sequence[Tensor]) -> list[Tensor]:
        """Run the U-Net on latents that carry no diffusion noise.

        Args:
            latents: [B, channels, h, w].
            timestep: that the U-Net is told.
            context: [1 or B, tokens, width], what cross-attention sees.
            residuals: one for each down block, added at its end, before its downsampler.

        Returns:
            [B, channels, height, width] for each up block, from the coarsest.
        """
        self._outputs.clear()
        try:
            # diffusers empties the list that it is given.
            self._unet(
                latents,
                timestep,
                encoder_hidden_states=context,
                down_intrablock_additional_residuals=list(residuals),
                return_dict=False,
            )
            return list(self._outputs)
        finally:
            self._outputs.clear()  # or the last batch would keep its memory
