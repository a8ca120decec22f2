"""SEAGULL's mask-based feature extractor: two embeddings of each region, of 4096 values, for the language model.

Source: Chen et al. 2024, "SEAGULL: No-reference Image Quality Assessment for Regions of Interest via Vision-Language
Instruction Tuning", arXiv 2411.10161, section 4.2; names and order of the layers as in the published checkpoint.

The global embedding joins what the mask covers in four feature maps with what those maps hold as a whole. The local one
is of the region's crop alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.tensor_files import assign, read_tensors, tensors_only

LEVELS = ("res2", "res3", "res4", "res5")
"""Names of the four feature maps, finest first: a quarter to a 32nd of the side of the input."""
PREFIX = "mask_extractor."
"""Before the names of this part in a checkpoint of the whole model."""

_STRIDES = (4, 8, 16, 32)
_LOCAL_STRIDE = 16  # two average poolings over 4x4 pixels
_EMPTY = 1e-8  # added to the number of cells under a mask, so that a mask without any gives zeros


@dataclass(frozen=True)
class ExtractorSizes:
    """Sizes of the extractor; the defaults are the published ones.

    Attributes:
        side_px: side of the square input of the vision tower, of masks and of crops, in pixels.
        widths: channels of the four feature maps.
        width: channels of a region inside the extractor.
        embedding: values of each of the two embeddings, the width of the language model.
        heads: attention heads.
        block_hidden: hidden width of the attention block's multilayer perceptron.
        local_hidden: hidden width of the local embedding's multilayer perceptron.
        mask_side: side of the masks that the unused part ``mask_linear`` was made for.
    """

    side_px: int = 512
    widths: tuple[int, int, int, int] = (192, 384, 768, 1536)
    width: int = 1024
    embedding: int = 4096
    heads: int = 8
    block_hidden: int = 2048
    local_hidden: int = 512
    mask_side: int = 112

    @property
    def map_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """[channels, height, width] of each feature map."""
        sides = [self.side_px // stride for stride in _STRIDES]
        return tuple((width, side, side) for width, side in zip(self.widths, sides, strict=True))

    @property
    def local_width(self) -> int:
        """Values of a crop after both poolings: 32 x 32 of a crop of 512 x 512 pixels."""
        return (self.side_px // _LOCAL_STRIDE) ** 2


class Perceptron(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """[..., widths[0]] -> [..., widths[-1]]."""
        for layer in list(self.layers)[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


class Attention(nn.Module):
    """Scaled dot-product attention in several heads, between the tokens of one picture.

    Args:
        width: channels of a token.
        heads: number of heads.
        inner: channels of all heads together.
    """

    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, width)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """[q, width], attending to [n, width] -> [q, width]."""
        split = [
            projection(tokens).unflatten(1, (self.heads, -1)).transpose(0, 1)
            for projection, tokens in ((self.q_proj, queries), (self.k_proj, context), (self.v_proj, context))
        ]
        # With a batch axis: the fused kernels take nothing else.
        attended = functional.scaled_dot_product_attention(*(part.unsqueeze(0) for part in split)).squeeze(0)
        return self.out_proj(attended.transpose(0, 1).flatten(1))

    def alone(self, tokens: Tensor) -> Tensor:
        """Each token attending to itself alone, where the softmax is over one value, 1: [q, width] -> [q, width]."""
        return self.out_proj(self.v_proj(tokens))


class _Hidden(nn.Module):
    """Perceptron of the attention block, under the published names."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(functional.relu(self.lin1(x)))


class CrossBlock(nn.Module):
    """Regions attend to each other, then to the channels of a feature map; residuals, no norm at the end."""

    def __init__(self, sizes: ExtractorSizes):
        super().__init__()
        width = sizes.width
        self.self_attn = Attention(width, sizes.heads, width)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = Attention(width, sizes.heads, width // 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _Hidden(width, sizes.block_hidden)

    def forward(self, regions: Tensor, channels: Tensor, *, together: bool = True) -> Tensor:
        """Regions [q, width] and channels [C, width] -> [q, width].

        Without ``together``, each region gets what it would get if it were the only one.
        """
        others = self.self_attn(regions, regions) if together else self.self_attn.alone(regions)
        regions = self.norm1(regions + others)
        regions = self.norm2(regions + self.cross_attn(regions, channels))
        return regions + self.mlp(regions)


class MaskExtractor(nn.Module):
    """Feature maps, masks and crops of one picture -> two embeddings of each region.

    ``mask_linear`` is in the published checkpoint and in no computation: it is here so that a checkpoint is read, and
    written again, as a whole.
    """

    def __init__(self, sizes: ExtractorSizes | None = None):
        super().__init__()
        self.sizes = sizes = sizes or ExtractorSizes()
        width, embedding = sizes.width, sizes.embedding
        self.feat_linear = nn.Linear(width, embedding)
        self.cross_feat_linear = nn.Linear(width, embedding)
        self.mask_linear = Perceptron(sizes.mask_side**2, width, width, embedding)
        self.cross_att_res = CrossBlock(sizes)
        for name, (channels, height, across) in zip(LEVELS, sizes.map_shapes, strict=True):
            self.add_module(name, nn.Linear(channels, width))
            self.add_module(f"g_{name}", nn.Linear(height * across, width))
        self.final_mlp = nn.Linear(2 * embedding, embedding)
        # Published under this name, though the LOCAL embedding comes from it.
        first, second = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 1, 1)
        layers = [layer for conv in (first, second) for layer in (conv, nn.GELU(), nn.AvgPool2d(4))]
        self.global_vit = nn.Sequential(*layers)
        self.sa = Attention(sizes.local_width, sizes.heads, sizes.local_width)
        self.mlp = Perceptron(sizes.local_width, sizes.local_hidden, sizes.local_hidden, embedding)

    def forward(
        self,
        features: Sequence[Tensor] | Mapping[str, Tensor],
        masks: Tensor,
        crops: Tensor,
        *,
        together: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Embed the regions of one picture.

        Args:
            features: the four maps of the vision tower in the order of ``LEVELS``, or by these names: [192, 128, 128],
                [384, 64, 64], [768, 32, 32] and [1536, 16, 16] in the published sizes.
            masks: [q, 512, 512], bool or numbers; above 0 is inside.
            crops: float [q, 3, 512, 512], the regions' crops, normalised as the vision tower's input is.
            together: whether the regions see each other, as the authors' code has it where several are asked at once;
                else each gets what it would get alone.

        Returns:
            The global and the local embedding, [q, 4096] each, of the type of the weights.

        Raises:
            PocketiqaError: a shape that these weights cannot take.
        """
        maps = self._checked(features, masks, crops)
        covered, seen_as_whole = self._of_masks(maps, masks, together)
        joined = torch.cat([self.cross_feat_linear(seen_as_whole), self.feat_linear(covered)], dim=-1)
        return self.final_mlp(joined), self.of_crops(crops)

    def of_crops(self, crops: Tensor) -> Tensor:
        """Local embeddings [q, 4096] of crops [q, 3, 512, 512]."""
        values = self.global_vit(crops.to(self.final_mlp.weight.dtype)).flatten(1)
        return self.mlp(self.sa.alone(values))

    def _of_masks(self, maps: Sequence[Tensor], masks: Tensor, together: bool) -> tuple[Tensor, Tensor]:
        """Sums over the levels, [q, width] each: of what a mask covers, and of that compared with the whole map."""
        dtype = self.final_mlp.weight.dtype
        inside = masks.float()
        covered, compared = [], []
        for name, level in zip(LEVELS, maps, strict=True):
            values = level.float()
            basic = self.get_submodule(name)(mean_inside(values, inside).to(dtype))
            channels = self.get_submodule(f"g_{name}")(values.flatten(1).to(dtype))
            covered.append(basic)
            compared.append(self.cross_att_res(basic, channels, together=together))
        # In float32, in which the published code adds them up as well.
        return tuple(torch.stack(parts).float().sum(0).to(dtype) for parts in (covered, compared))  # type: ignore[return-value]

    def _checked(self, features: Sequence[Tensor] | Mapping[str, Tensor], masks: Tensor, crops: Tensor) -> list[Tensor]:
        if isinstance(features, Mapping):
            missing = [name for name in LEVELS if name not in features]
            if missing:
                raise PocketiqaError(f"the feature maps lack {', '.join(missing)}: give {', '.join(LEVELS)}")
            features = [features[name] for name in LEVELS]
        side, shapes = self.sizes.side_px, [tuple(level.shape) for level in features]
        if shapes != list(self.sizes.map_shapes):
            raise PocketiqaError(
                f"feature maps of shapes {shapes} do not fit this extractor: it takes those of one picture of "
                f"{side}x{side} pixels, {list(self.sizes.map_shapes)}"
            )
        if tuple(masks.shape[1:]) != (side, side) or tuple(crops.shape) != (len(masks), 3, side, side):
            raise PocketiqaError(
                f"masks {list(masks.shape)} and crops {list(crops.shape)}: [q, {side}, {side}] and "
                f"[q, 3, {side}, {side}] are needed, one crop for each mask"
            )
        return list(features)


def mean_inside(values: Tensor, masks: Tensor) -> Tensor:
    """Mean of a map over the cells that a mask touches.

    Args:
        values: float32 [C, h, w].
        masks: float32 [q, H, W]; resized bilinearly to the map, without antialiasing, and inside where above 0.

    Returns:
        [q, C]; zeros for a mask that touches no cell, as small regions do on coarse maps.
    """
    if masks.shape[-2:] != values.shape[-2:]:
        resized = functional.interpolate(masks.unsqueeze(1), values.shape[-2:], mode="bilinear", align_corners=False)
        masks = resized.squeeze(1)
    inside = (masks > 0).to(values.dtype)
    weights = inside / (inside.sum((-2, -1), keepdim=True) + _EMPTY)
    return torch.einsum("chw,qhw->qc", values, weights)


def meta_extractor(sizes: ExtractorSizes | None = None) -> MaskExtractor:
    """The extractor on the meta device: names and shapes without memory for weights."""
    with torch.device("meta"):
        return MaskExtractor(sizes)


def load_official_extractor(
    state_dict_or_path: Mapping[str, Tensor] | str | Path, *, sizes: ExtractorSizes | None = None
) -> MaskExtractor:
    """The published extractor alone.

    Args:
        state_dict_or_path: tensors under the published names, with or without ``mask_extractor.`` before each; or a
            safetensors or torch file of them, or the index of a sharded one.
        sizes: None means the published ones.

    Returns:
        The module in evaluation mode, in float32 on the CPU.

    Raises:
        PocketiqaError: the file is missing or corrupt, or the tensors are not exactly those of the extractor.
    """
    where = "the state dict"
    if isinstance(state_dict_or_path, str | Path):
        where, tensors = str(state_dict_or_path), read_tensors(Path(state_dict_or_path).expanduser())
    else:
        tensors = tensors_only(state_dict_or_path, where)
    if tensors and all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): value for name, value in tensors.items()}
    extractor = meta_extractor(sizes)
    assign(extractor, tensors, where)
    return extractor.eval()


def parameters_in_use(extractor: MaskExtractor, *, together: bool = True) -> Iterator[nn.Parameter]:
    """The parameters that an embedding depends on.

    Not ``mask_linear``; and not the queries and keys of attention to a single token, which are those of regions too
    where they are not embedded ``together``.
    """
    unused = ("mask_linear.", "sa.q_proj.", "sa.k_proj.")
    alone = () if together else ("cross_att_res.self_attn.q_proj.", "cross_att_res.self_attn.k_proj.")
    return (value for name, value in extractor.named_parameters() if not name.startswith(unused + alone))
