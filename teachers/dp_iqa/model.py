"""The DP-IQA network and its parts: image -> latents -> U-Net conditioned on prompts and on the image -> quality.

``Conditioning`` holds the settings of the forward pass. The parts are the text adapter, the image adapter, attention
that projects the prompts once per batch, and the reader of the U-Net's up blocks. ``DpIqa`` joins them with the
decoder; ``assemble``, ``random_model`` and ``meta_model`` build it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.adapter import T2IAdapter
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.decoder import DecoderSizes, Quality, QualityDecoder
from teachers.dp_iqa.variants import Variant, build_unet, build_vae, variant_named
from teachers.fitting import evaluate_frozen

POSTERIORS = ("mode", "sample")
TRAINABLE: dict[str, tuple[str, ...]] = {
    "all": ("unet.", "text_adapter.", "image_adapter.", "decoder."),
    "head": ("text_adapter.", "image_adapter.", "decoder."),
}
"""Choice of what is fitted -> prefixes of parameter names.

``all`` is everything but the autoencoder, as in the paper; ``head`` is only what is not Stable Diffusion's (ours).
"""

# Layers after the last tap, and the autoencoder's way back from latents to images: no score depends on them and no
# gradient reaches them. An optimiser or a digest that held them would only take memory and change for no reason.
_UNUSED = ("unet.conv_norm_out.", "unet.conv_out.", "vae.decoder.", "vae.post_quant_conv.")
_LAST_TIMESTEP = 999
_FIRST_GAMMA = 1e-4


@dataclass(frozen=True)
class Conditioning:
    """Settings of the forward pass; the defaults are the paper's, except ``posterior``.

    Attributes:
        timestep: diffusion timestep that conditions the U-Net, 0 to 999; no noise is added to the latents.
        posterior: ``mode`` takes the mean of the autoencoder's posterior; ``sample`` draws from it, as the authors do,
            which makes scores random.
        seed: seed of the draw. Every image gets the same noise, so that its score does not depend on the batch; only in
            training mode each image gets its own.
        scale_input: scale the autoencoder's input to [-1, 1], as in Stable Diffusion's training, instead of [0, 1]
            (ours). The image adapter gets [0, 1] either way, as T2I adapters were trained.

    Raises:
        PocketiqaError: the timestep is out of range, or the posterior is unknown.
    """

    timestep: int = 1
    posterior: str = "mode"
    seed: int = 0
    scale_input: bool = False

    def __post_init__(self) -> None:
        if (
            isinstance(self.timestep, bool)
            or not isinstance(self.timestep, int)
            or not 0 <= self.timestep <= _LAST_TIMESTEP
        ):
            raise PocketiqaError(f"timestep is {self.timestep!r}, but an integer from 0 to {_LAST_TIMESTEP} is needed")
        if self.posterior not in POSTERIORS:
            raise PocketiqaError(f"posterior is {self.posterior!r}: choose {' or '.join(POSTERIORS)}")


class TextAdapter(nn.Module):
    """``e + gamma * MLP(e)`` on each prompt feature e; gamma is one factor per channel and starts near zero.

    Ours: where the U-Net's cross-attention has another width than the text features (Stable Diffusion 2.x has 1024,
    CLIP ViT-L/14 gives 768), a linear map without bias follows. It starts at random, so such a model must be fitted.

    Args:
        width: channels of a text feature.
        context_width: channels of the U-Net's context.
    """

    def __init__(self, width: int, context_width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.gamma = nn.Parameter(torch.full((width,), _FIRST_GAMMA))
        # Identity adds no tensor, so that models of equal widths have exactly the published ones.
        self.widen = nn.Identity() if width == context_width else nn.Linear(width, context_width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[prompts, width] to [prompts, context_width]."""
        return self.widen(features + self.gamma * self.layers(features))


def build_image_adapter(channels: Sequence[int], downscale: int) -> T2IAdapter:
    """The full T2I adapter of diffusers: image [B, 3, H, W] -> one residual for each down block of the U-Net.

    Args:
        channels: number of channels of each down block of the U-Net, in order.
        downscale: side of a latent in pixels, 8 for Stable Diffusion.
    """
    return T2IAdapter(channels=list(channels), downscale_factor=downscale, adapter_type="full_adapter")


class SharedContextAttention(AttnProcessor2_0):
    """Attention whose keys and values are projected once per batch instead of once per image.

    All images are conditioned on the same 1485 prompts: their projections in the 16 cross-attentions take 28 of the
    U-Net's 461 GMACs for the first image of a batch, and nothing for the others. A context of one row is expanded
    without a copy; with a context of B rows, image i attends to row i, as in diffusers' own processor.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Attend; diffusers passes the arguments by these names.

        Args:
            attn: module with the projections.
            hidden_states: [B, positions, channels].
            encoder_hidden_states: [1 or B, tokens, context channels]; None for self-attention.
            attention_mask: not used, all prompts count.
            temb: not used.
            args: not used.
            kwargs: not used.
        """
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        images, heads = hidden_states.shape[0], attn.heads
        layers: Any = attn  # diffusers types the projections as optional
        query = _heads(layers.to_q(hidden_states), heads)
        key = _heads(layers.to_k(context), heads).expand(images, -1, -1, -1)
        value = _heads(layers.to_v(context), heads).expand(images, -1, -1, -1)
        mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        project, dropout = layers.to_out
        return dropout(project(mixed))


def _heads(tokens: Tensor, heads: int) -> Tensor:
    """[B, N, heads * C] to [B, heads, N, C]."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def share_context(unet: UNet2DConditionModel) -> None:
    """Let every cross-attention of ``unet`` accept a context of one row for the whole batch."""
    shared = SharedContextAttention()
    processors = unet.attn_processors
    # diffusers calls self-attention attn1 and cross-attention attn2.
    unet.set_attn_processor({name: shared if ".attn2." in name else own for name, own in processors.items()})


class UNetTaps:
    """Runs a U-Net and returns the outputs of its up blocks.

    Not for several threads at once: the outputs pass through this object.

    Args:
        unet: the U-Net to run; this object holds a reference, no copy.
    """

    def __init__(self, unet: UNet2DConditionModel):
        self._unet = unet
        self._outputs: list[Tensor] = []
        # Set once, before anything is compiled, because ``torch.compile`` does not look for later hooks. Bound methods,
        # not closures: a deep copy of the model then has hooks that write to the copy's own list.
        for block in unet.up_blocks:
            block.register_forward_hook(self._keep)

    def _keep(self, _block: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._outputs.append(output)

    def __call__(self, latents: Tensor, timestep: int, context: Tensor, residuals: Sequence[Tensor]) -> list[Tensor]:
        """Run the U-Net on latents that carry no diffusion noise.

        Args:
            latents: [B, channels, h, w].
            timestep: diffusion timestep, 0 to 999.
            context: [1 or B, tokens, width], the tokens that cross-attention reads.
            residuals: one tensor for each down block, added to its output before its downsampler.

        Returns:
            [B, channels, height, width] for each up block, from the coarsest.
        """
        self._outputs.clear()
        try:
            # A copy of the residuals, because diffusers empties the list that it gets.
            self._unet(
                latents,
                timestep,
                encoder_hidden_states=context,
                down_intrablock_additional_residuals=list(residuals),
                return_dict=False,
            )
            return list(self._outputs)
        finally:
            self._outputs.clear()  # otherwise the last batch's maps would stay in memory


class DpIqa(nn.Module):
    """DP-IQA, assembled from built parts.

    ``encode``, ``taps`` and ``decoder`` are the steps of the forward pass and can be called alone.

    Args:
        unet: U-Net; its cross-attention is changed in place to share the prompts among the images of a batch.
        vae: autoencoder, always frozen.
        text_adapter: turns prompt features into the U-Net's context.
        image_adapter: turns images into one residual for each down block.
        decoder: decoder built for the channels of ``unet``'s up blocks.
        prompts: features [prompts, width] for ``text_adapter``; None if they are passed to each call of ``taps``.
        conditioning: settings of the forward pass; None means the defaults.
        trainable: key of ``TRAINABLE``.

    Raises:
        PocketiqaError: ``trainable`` is unknown.
    """

    prompts: Tensor | None

    def __init__(
        self,
        *,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_adapter: TextAdapter,
        image_adapter: T2IAdapter,
        decoder: QualityDecoder,
        prompts: Tensor | None,
        conditioning: Conditioning | None = None,
        trainable: str = "all",
    ):
        super().__init__()
        if trainable not in TRAINABLE:
            raise PocketiqaError(f"trainable is {trainable!r}: choose {' or '.join(TRAINABLE)}")
        self.vae, self.unet = vae, unet
        self.text_adapter, self.image_adapter, self.decoder = text_adapter, image_adapter, decoder
        self.conditioning = conditioning or Conditioning()
        self.trainable = trainable
        # Computed by a text encoder and cached in a prompt bank: no part of a checkpoint, but part of the digest.
        self.register_buffer("prompts", prompts, persistent=False)
        share_context(unet)
        self._shared_context = True
        self._unet_taps = UNetTaps(unet)
        trained = self._trained_names()
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trained)

    def _trained_names(self) -> set[str]:
        prefixes = TRAINABLE[self.trainable]
        names = (name for name, _ in self.named_parameters())
        return {name for name in names if name.startswith(prefixes) and not name.startswith(_UNUSED)}

    @property
    def latent_px(self) -> int:
        """Side of a latent in pixels, 8 for Stable Diffusion."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def patch_px(self) -> int:
        """Side in pixels of a cell of the U-Net's coarsest level, 64 for Stable Diffusion.

        Both sides of the input must be multiples of it.
        """
        return self.latent_px * 2 ** (len(self.unet.config["block_out_channels"]) - 1)

    def train(self, mode: bool = True) -> "DpIqa":
        """Set the mode of the fitted parts; frozen parts stay in evaluation mode."""
        super().train(mode)
        evaluate_frozen(self)
        return self

    def forward(self, images: Tensor) -> Quality:
        """Score RGB images [B, 3, H, W] in [0, 1], H and W multiples of ``patch_px``; errors as in ``encode``."""
        return self.decoder(self.taps(self.encode(images), images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images -> latents [B, 4, H / 8, W / 8], times the autoencoder's scaling factor; never with a gradient.

        In training mode ``posterior: sample`` draws new noise for each image, from torch's default generator of the
        device; in evaluation mode all images of all calls get the same noise.

        Args:
            images: RGB [B, 3, H, W] in [0, 1].

        Raises:
            PocketiqaError: another shape, or a side that is no multiple of ``patch_px``.
        """
        self._check_images(images)
        # The authors pass [0, 1], although the autoencoder was trained on [-1, 1].
        pixels = images * 2 - 1 if self.conditioning.scale_input else images
        posterior = self.vae.encode(pixels.to(self.vae.dtype), return_dict=False)[0]
        if self.conditioning.posterior == "mode":
            latents = posterior.mode()
        else:
            mean = posterior.mean
            latents = mean + posterior.std * self._noise(mean.shape, mean.device).to(mean.dtype)
        return latents * self.vae.config["scaling_factor"]

    def _noise(self, shape: Sequence[int], device: torch.device) -> Tensor:
        if self.training:
            return torch.randn(shape, device=device)
        # Drawn on the CPU, so that every device uses the same noise.
        seeded = torch.Generator().manual_seed(self.conditioning.seed)
        return torch.randn((1, *shape[1:]), generator=seeded).to(device)

    def _check_images(self, images: Tensor) -> None:
        patch = self.patch_px
        if images.ndim == 4 and images.shape[1] == 3 and all(side and side % patch == 0 for side in images.shape[2:]):
            return
        raise PocketiqaError(
            f"images have the shape {list(images.shape)}, but [B, 3, H, W] with H and W a multiple of {patch} is needed"
        )

    def taps(self, latents: Tensor, images: Tensor, prompts: Tensor | None = None) -> list[Tensor]:
        """Outputs of the U-Net's up blocks.

        Args:
            latents: output of ``encode``.
            images: the same images, [B, 3, H, W] in [0, 1], for the image adapter.
            prompts: features [prompts, width] to use instead of the model's own.

        Returns:
            From the coarsest; at 512x512 with Stable Diffusion 1.5: [B, 1280, 16, 16], [B, 1280, 32, 32],
            [B, 640, 64, 64], [B, 320, 64, 64].

        Raises:
            PocketiqaError: neither the model nor the call has prompts.
        """
        prompts = self.prompts if prompts is None else prompts
        if prompts is None:
            raise PocketiqaError(
                "DP-IQA has no prompt features: give prompts=[1485, width], for which see teachers.dp_iqa.prompts"
            )
        dtype = self.unet.dtype
        # One row for the whole batch, see ``SharedContextAttention``.
        context = self.text_adapter(prompts.to(dtype))[None]
        if not self._shared_context:
            context = context.expand(len(latents), -1, -1)
        residuals = self.image_adapter(images.to(dtype))
        return self._unet_taps(latents.to(dtype), self.conditioning.timestep, context, residuals)

    def frozen_state(self) -> dict[str, Tensor]:
        """The tensors that a score depends on and that fitting does not change: frozen parameters, and the prompts."""
        trained = self._trained_names()
        others: dict[str, Tensor] = {
            name: parameter
            for name, parameter in self.named_parameters()
            if name not in trained and not name.startswith(_UNUSED)
        }
        return others if self.prompts is None else {**others, "prompts": self.prompts}

    def checkpoint_blocks(self) -> None:
        """Compute the U-Net's blocks again in the backward pass instead of storing activations: less memory, slower."""
        self.unet.enable_gradient_checkpointing()

    def slice_attention(self, size: str | int) -> None:
        """Compute attention in diffusers' slices: less memory, slower, equal up to rounding.

        Only for devices without memory-efficient attention; the prompts are then projected for each image.

        Args:
            size: ``auto`` takes half of the heads at a time, ``max`` one head, a number that many heads.

        Raises:
            PocketiqaError: ``size`` is none of these, or more heads than the U-Net has.
        """
        if size not in ("auto", "max") and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise PocketiqaError(f"attention_slicing is {size!r}: choose auto, max or a number of heads from 1")
        try:
            self.unet.set_attention_slice(size)
        except ValueError as error:
            raise PocketiqaError(f"attention_slicing is {size!r}: {' '.join(str(error).split())}") from error
        # diffusers has put its own processors in place of ours, and these need one row of context per image.
        self._shared_context = False

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Compute in ``dtype`` up to the feature map, and in float32 from there to the score.

        All weights are rounded to ``dtype``, those of the last layers too.
        """
        self.to(dtype)
        self.decoder.tail.to(torch.float32)

    def compile_parts(self, backend: str = "inductor") -> None:
        """Compile the autoencoder's encoder and the U-Net, which take nearly all of the time.

        The first batches are slow. Scores change by rounding only. Names of parameters stay as they are.
        """
        self.vae.encoder.compile(backend=backend)
        self.unet.compile(backend=backend)


def assemble(
    unet: UNet2DConditionModel, vae: AutoencoderKL, sizes: DecoderSizes, text_width: int, **options: Any
) -> DpIqa:
    """Build adapters and decoder, with random weights, around a U-Net and its autoencoder.

    Args:
        unet: a U-Net that ``base_weights.refuse_other_families`` accepts.
        vae: autoencoder of the same model.
        sizes: sizes of the decoder.
        text_width: channels of a prompt feature.
        options: ``prompts``, ``conditioning`` and ``trainable`` of ``DpIqa``.
    """
    widths = tuple(unet.config["block_out_channels"])
    downscale = 2 ** (len(vae.config["block_out_channels"]) - 1)
    return DpIqa(
        unet=unet,
        vae=vae,
        text_adapter=TextAdapter(text_width, unet.config["cross_attention_dim"]),
        image_adapter=build_image_adapter(widths, downscale),
        decoder=QualityDecoder(tuple(reversed(widths)), sizes),
        **options,
    )


def random_model(variant: Variant, **options: Any) -> DpIqa:
    """A model of a variant's sizes with random weights, on the current default device."""
    unet, vae = build_unet(variant.unet), build_vae(variant.vae)
    return assemble(unet, vae, variant.decoder, variant.text_width, **options)


def meta_model(
    variant: str,
    *,
    prompts: Tensor | None = None,
    conditioning: Conditioning | None = None,
    trainable: str = "all",
) -> DpIqa:
    """A model of a variant's sizes on the meta device: names and shapes without memory, to be filled or counted."""
    # A device context reaches the modules of diffusers too, which take no device themselves.
    with torch.device("meta"):
        return random_model(variant_named(variant), prompts=prompts, conditioning=conditioning, trainable=trainable)
