"""The SAM-IQA network, in its no-reference and its full-reference form.

In the order of the forward pass: SAM's image encoder with faster attention (``SamEncoder``), a spatial and a Fourier
branch for each of its taps (``SpatialFrequency``), and the block that computes the score (``RegressionBlock``).
``SamIqa`` joins them, ``SamIqaConfig`` holds the settings.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pseudo_labels.errors import PocketiqaError
from teachers.fitting import evaluate_frozen
from teachers.launch import full_precision
from teachers.sam_iqa.variants import TAPS, SamVariant, variant_named

# Choice of what is fitted -> prefixes of parameter names. The head always is.
TRAINABLE: dict[str, tuple[str, ...]] = {
    "head": ("branches.", "regression."),
    "neck": ("branches.", "regression.", "encoder.vit.neck."),
    "all": ("branches.", "regression.", "encoder."),
}
FORMS = ("nr", "fr")  # no reference, full reference
# Of RGB in [0, 255], as in SAM's training.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

MAP_SIDE = 16
"""Side in cells of the map that is returned as a feature: [64, 16, 16] in float16 take 32 KiB per image."""

_EPSILON = 1e-6  # added to a variance, so that the gradient of its root stays finite on a constant map
_CHANNELS_PER_GROUP = 16


@dataclass(frozen=True)
class SamIqaConfig:
    """Settings that must be equal in a fitted file and in the model that it is loaded into.

    Attributes:
        variant: key of ``VARIANTS``.
        form: ``nr`` scores an image alone, ``fr`` compares it with its reference.
        input_side_px: side in pixels of the square that images are resized to; 0 means the encoder's native size.
        trainable: ``head``, ``neck`` (head and SAM's neck) or ``all`` (head and the whole encoder).

    Raises:
        PocketiqaError: an unknown name, or a size that the encoder cannot take.
    """

    variant: str = "vit_b"
    form: str = "nr"
    input_side_px: int = 0
    trainable: str = "head"

    def __post_init__(self) -> None:
        sizes = variant_named(self.variant)
        for name, value, known in (("form", self.form, FORMS), ("trainable", self.trainable, TRAINABLE)):
            if value not in known:
                raise PocketiqaError(f"{name} {value!r}: choose {', '.join(known)}")
        # Replaced here, so that 0 and the native size are equal settings and give equal stamps.
        if self.input_side_px == 0:
            object.__setattr__(self, "input_side_px", sizes.native_side_px)
        sizes.check_side(self.input_side_px)

    @property
    def sizes(self) -> SamVariant:
        """Sizes of the variant."""
        return variant_named(self.variant)

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return asdict(self)


class FusedAttention(nn.Module):
    """Attention of segment-anything, computed by torch's fused kernel: equal values, less time and memory.

    It uses the layers and parameters of the original under their names, so that state dicts stay the same. The bias of
    query (i, j) for key (k, l) is ``q . h[i - k] + q . w[j - l]``, with the unscaled query (decomposed relative
    positions: Li et al. 2022, "MViTv2", arXiv 2112.01526, equation 4).

    Args:
        attention: the attention to replace.
    """

    def __init__(self, attention: Attention):
        super().__init__()
        self.num_heads = attention.num_heads
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to the same shape."""
        batch, height, width, channels = x.shape
        packed = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        positions = query.unflatten(2, (height, width))
        vertical = torch.einsum("bnhwc,hkc->bnhwk", positions, get_rel_pos(height, height, self.rel_pos_h))
        horizontal = torch.einsum("bnhwc,wlc->bnhwl", positions, get_rel_pos(width, width, self.rel_pos_w))
        # [B, heads, H, W, H, W] to [B, heads, queries, keys]; the kernel adds it after it has scaled the query.
        bias = (vertical.unsqueeze(-1) + horizontal.unsqueeze(-2)).flatten(4).flatten(2, 3)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(attended.transpose(1, 2).reshape(batch, height, width, channels))


def fuse_attention(vit: ImageEncoderViT) -> None:
    """Replace the attention of every block in place; the parameters are the same objects."""
    for block in vit.blocks:
        block.attn = FusedAttention(block.attn)  # type: ignore[arg-type] - blocks are known only as modules


def resize_position_embedding(embedding: Tensor, side: int) -> Tensor:
    """Absolute position embedding for another number of patches: bicubic, antialiased when it shrinks.

    Args:
        embedding: [1, native side, native side, channels], sides in patches.
        side: new side, in patches.

    Returns:
        [1, side, side, channels]; ``embedding`` itself at the native size.
    """
    # The image is resized with the input, so a position stays at the same fraction of the image. The relative position
    # embeddings need no change: segment-anything stretches those of the global blocks in every forward pass, and those
    # of the windows do not depend on the size of the image.
    if embedding.shape[1:3] == (side, side):
        return embedding
    planes = embedding.permute(0, 3, 1, 2)
    resized = functional.interpolate(planes, (side, side), mode="bicubic", antialias=True, align_corners=False)
    return resized.permute(0, 2, 3, 1).contiguous()


class SamEncoder(nn.Module):
    """SAM's image encoder, which returns the outputs of some blocks and of its neck.

    Args:
        vit: encoder of segment-anything at its native size, weights loaded. It is changed in place: its position
            embedding is resized to ``side_px`` and its attention replaced.
        variant: sizes that it was built from.
        side_px: side of the square input in pixels, checked by ``SamVariant.check_side``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vit: ImageEncoderViT, variant: SamVariant, side_px: int):
        super().__init__()
        if vit.pos_embed is None:
            raise ValueError("SAM's encoder has an absolute position embedding, this one has none")
        resized = resize_position_embedding(vit.pos_embed.detach(), side_px // variant.patch_px)
        vit.pos_embed = nn.Parameter(resized)
        vit.img_size = side_px
        fuse_attention(vit)
        self.vit = vit
        self.side_px = side_px
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD).reshape(3, 1, 1), persistent=False)
        self._outputs: dict[int, Tensor] = {}
        for index in variant.taps:
            vit.blocks[index].register_forward_hook(partial(self._keep, index))

    def _keep(self, index: int, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self._outputs[index] = output

    def forward(self, rgb: Tensor) -> tuple[list[Tensor], Tensor]:
        """Encode images.

        Args:
            rgb: uint8 [B, 3, side_px, side_px].

        Returns:
            Each tap [B, embed_dim, side, side], from the shallowest, and the neck's output [B, neck_width, side, side],
            with the side in patches; in float32, whatever the encoder computes in.
        """
        weight = self.vit.patch_embed.proj.weight
        images = ((rgb.float() - self.mean) / self.std).to(weight.dtype)
        trained = any(parameter.requires_grad for parameter in self.vit.parameters())
        try:
            # Without gradients, a frozen encoder takes only the time and memory of inference while the head is fitted.
            with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
                neck = self.vit(images)
                taps = [output.permute(0, 3, 1, 2).float() for output in self._outputs.values()]
        finally:
            self._outputs.clear()  # otherwise the last batch's outputs would stay in memory
        return taps, neck.float()

    def checkpoint_blocks(self) -> None:
        """Store only the blocks' inputs and compute the rest again in the backward pass: less memory, slower.

        The gradients are the same.
        """
        for block in self.vit.blocks:
            # Only ``forward`` is replaced, so that the hooks that read the taps are still called around it.
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def fourier_convolution(x: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
    """Real FFT over height and width, ``mix`` on the half spectrum, inverse FFT; all orthonormal.

    By the convolution theorem, a ``mix`` that multiplies each channel's spectrum by constants is a circular convolution
    over the whole image. The output of ``mix`` need not be the spectrum of a real image: the inverse over the height is
    a complex transform, and the one over the width ignores the imaginary parts of its zero and Nyquist frequencies.

    Args:
        x: [B, C, H, W], any size from 1x1. Half precision is computed in float32: there is no FFT for bfloat16.
        mix: [B, 2C, H, W // 2 + 1] to [B, 2D, H, W // 2 + 1]; the first half of the channels are real parts, the
            second imaginary parts. Frequencies along the height are in FFT order.

    Returns:
        [B, D, H, W], of the type of ``x``.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    spectrum = torch.fft.rfft2(wide, norm="ortho")
    mixed = mix(torch.cat((spectrum.real, spectrum.imag), dim=1)).to(wide.dtype)
    # In two steps: for a spectrum of no real image, a joint two-dimensional inverse depends on the FFT library, so that
    # devices could differ.
    columns = torch.fft.ifft(torch.complex(*mixed.chunk(2, dim=1)), dim=-2, norm="ortho")
    return torch.fft.irfft(columns, n=x.shape[-1], dim=-1, norm="ortho").to(x.dtype)


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation over groups of channels of one image (ours; Chi et al. use batch normalisation)."""
    # A score must not depend on the batch, and beside an encoder of this size there is no memory for batches that are
    # large enough for batch statistics.
    return nn.GroupNorm(max(1, channels // _CHANNELS_PER_GROUP), channels)


class SpatialUnit(nn.Module):
    """3x3 convolution, normalisation and activation, added to the input.

    Args:
        channels: number of channels in and out.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), group_norm(channels), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        return x + self.mix(x)


class FourierUnit(nn.Module):
    """1x1 convolution, normalisation and activation on the stacked spectrum, added to the input.

    The normalisation is over groups of channels and all frequencies of one image, so it does not remove the shape of
    the spectrum, in which blur and noise differ.

    Args:
        channels: number of channels in and out.
    """

    def __init__(self, channels: int):
        super().__init__()
        stacked = 2 * channels
        self.mix = nn.Sequential(nn.Conv2d(stacked, stacked, 1, bias=False), group_norm(stacked), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        return x + fourier_convolution(x, self.mix)


class SpatialFrequency(nn.Module):
    """Turns the encoder's taps into spatial and frequency features.

    Each tap is reduced by a 1x1 convolution, then normalised over channels as in SAM's neck: outputs of transformer
    blocks are not normalised, and their scale grows with depth. The output of SAM's neck, which reads the same block as
    the last tap, is added to that tap: SAM was trained through it, and ``trainable: neck`` fits it.

    Args:
        taps: number of taps.
        embed_dim: channels of a tap.
        width: channels of a reduced tap, and of the neck's output.
    """

    def __init__(self, taps: int, embed_dim: int, width: int):
        super().__init__()
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Conv2d(embed_dim, width, 1, bias=False), LayerNorm2d(width)) for _ in range(taps)
        )
        self.spatial = nn.ModuleList(SpatialUnit(width) for _ in range(taps))
        self.frequency = nn.ModuleList(FourierUnit(width) for _ in range(taps))

    def forward(self, taps: Sequence[Tensor], neck: Tensor) -> Tensor:
        """Features of all taps.

        Args:
            taps: each [B, embed_dim, h, w], from the shallowest.
            neck: [B, width, h, w].

        Returns:
            [B, 2 * taps * width, h, w]: tap by tap its spatial, then its frequency features.
        """
        reduced = [reduce(tap) for reduce, tap in zip(self.reduce, taps, strict=True)]
        reduced[-1] = reduced[-1] + neck
        branches = zip(reduced, self.spatial, self.frequency, strict=True)
        return torch.cat([branch(x) for x, *both in branches for branch in both], dim=1)


@dataclass
class Quality:
    """Scores of a batch, with the features that they were computed from.

    Attributes:
        score: [B] in (0, 1), 1 best.
        map: [B, width / 4, 16, 16], averaged over cells from the map that is pooled; smaller if that one is smaller.
        pooled: [B, width / 2], mean and deviation of the channels over the image; input of the last layers.
    """

    score: Tensor
    map: Tensor
    pooled: Tensor


class RegressionBlock(nn.Module):
    """Two 1x1 convolutions, pooling by mean and deviation, two linear layers, sigmoid (all ours).

    The convolutions come before the pooling, because the mean of a Fourier unit's output is only its zero frequency.
    The score is computed from the map, so that a student that imitates the map learns what the score depends on.

    Args:
        features: number of input channels.
        width: channels after the first convolution; the map has a quarter of them.
    """

    def __init__(self, features: int, width: int):
        super().__init__()
        channels = width // 4
        self.fuse = nn.Sequential(nn.Conv2d(features, width, 1), nn.GELU(), nn.Conv2d(width, channels, 1), nn.GELU())
        self.head = nn.Sequential(nn.Linear(2 * channels, channels), nn.GELU(), nn.Linear(channels, 1))

    def forward(self, features: Tensor) -> Quality:
        """[B, features, h, w] to scores."""
        fused = self.fuse(features)
        # The population's variance: it also exists for a map of a single cell.
        deviation = (fused.var(dim=(2, 3), correction=0) + _EPSILON).sqrt()
        pooled = torch.cat((fused.mean(dim=(2, 3)), deviation), dim=1)
        side = min(MAP_SIDE, *fused.shape[-2:])
        reduced = functional.adaptive_avg_pool2d(fused, side)
        return Quality(self.head(pooled).sigmoid().squeeze(1), reduced, pooled)


class SamIqa(nn.Module):
    """Encoder, spatial-and-frequency module and regression block.

    Under autocast only the encoder computes in lower precision: the rest costs little, and a score in bfloat16 would
    have no more than 256 steps.

    Args:
        config: sizes, form, and the parts that are trainable.
        vit: encoder of ``config.variant`` at its native size, weights loaded; changed in place by ``SamEncoder``.
    """

    def __init__(self, config: SamIqaConfig, vit: ImageEncoderViT):
        super().__init__()
        sizes = config.sizes
        self.config = config
        self.encoder = SamEncoder(vit, sizes, config.input_side_px)
        self.branches = SpatialFrequency(TAPS, sizes.embed_dim, sizes.neck_width)
        self.regression = RegressionBlock(2 * TAPS * sizes.neck_width, sizes.neck_width)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(TRAINABLE[config.trainable]))

    def features(self, rgb: Tensor) -> Tensor:
        """uint8 [B, 3, side, side] to the spatial and frequency features [B, 6 * neck_width, patches, patches]."""
        taps, neck = self.encoder(rgb)
        with full_precision(rgb.device.type):
            return self.branches(taps, neck)

    def forward(self, rgb: Tensor, reference: Tensor | None = None) -> Quality:
        """Score images.

        Args:
            rgb: uint8 [B, 3, side, side].
            reference: the clean images, of the same shape, in the full-reference form; None in the other.

        Raises:
            ValueError: reference images are missing in the full-reference form, or given in the other.
        """
        if (reference is not None) != (self.config.form == "fr"):
            raise ValueError(f"form {self.config.form!r} with{'out' if reference is None else ''} reference images")
        if reference is None:
            features = self.features(rgb)
        else:
            # One pass over both, so that the encoder's weights are read from memory once.
            distorted, clean = self.features(torch.cat((rgb, reference))).chunk(2)
            features = (distorted - clean).abs()
        with full_precision(rgb.device.type):
            return self.regression(features)

    def train(self, mode: bool = True) -> "SamIqa":
        """Set the mode of the fitted parts; frozen parts stay in evaluation mode."""
        super().train(mode)
        evaluate_frozen(self)
        return self
