"""The whole of SEAGULL: vision tower, extractor, projector and language model, and how a picture is asked about.

``Seagull`` joins the parts. ``preprocess`` makes its input of pixels. ``VARIANTS`` holds the published sizes and those
of a small model for tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from pseudo_labels.errors import PocketiqaError
from teachers.launch import full_precision
from teachers.seagull.extractor import ExtractorSizes, MaskExtractor
from teachers.seagull.language import Prompt

# Of RGB in [0, 1], as in CLIP's training.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
LANGUAGE_LEVEL = 2
"""Index of the feature map (``res4``) that the language model sees."""
_MOST_STRETCHED = 16  # longer over shorter side, above which a picture is not resized to its own shape first


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model.

    Attributes:
        extractor: of the extractor; the vision tower's input and channels follow from it.
        tower: timm's name of the vision tower, with maps at the strides 4, 8, 16 and 32.
        tower_options: arguments of ``timm.create_model``; the channels of its maps are ``extractor.widths``.
        language: arguments of ``LlamaConfig``.
    """

    extractor: ExtractorSizes = field(default_factory=ExtractorSizes)
    tower: str = "convnext_large_mlp"
    tower_options: dict[str, Any] = field(default_factory=dict)
    language: dict[str, Any] = field(default_factory=dict)


VARIANTS: dict[str, Sizes] = {
    "7b": Sizes(
        language={
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 11008,
            "vocab_size": 32002,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "pad_token_id": 0,
        }
    ),
    # The same structure for tests; its vocabulary is that of the tokenizer trained with it.
    "tiny": Sizes(
        ExtractorSizes(128, (16, 24, 32, 48), 32, 64, heads=4, block_hidden=64, local_hidden=32, mask_side=14),
        tower_options={
            "depths": (1, 1, 1, 1),
            "dims": (16, 24, 32, 48),
            # With the usual first value, blocks with random weights would pass on almost nothing of what they compute.
            "ls_init_value": 1.0,
        },
        language={
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "vocab_size": 414,
            "initializer_range": 0.125,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5,
            "pad_token_id": 0,
        },
    ),
}


# As the tiny one, with the maps of a MobileNetV2, whose weights are given: enough to learn from photographs on a CPU.
VARIANTS["small"] = replace(
    VARIANTS["tiny"],
    extractor=replace(VARIANTS["tiny"].extractor, widths=(24, 32, 96, 320)),
    tower="mobilenetv2_100",
    tower_options={"pad_type": "same"},
)


def variant_named(name: str) -> Sizes:
    """The variant of this name.

    Raises:
        PocketiqaError: ``name`` is no key of ``VARIANTS``; lists them.
    """
    if name not in VARIANTS:
        raise PocketiqaError(f"unknown SEAGULL variant {name!r}: choose {', '.join(VARIANTS)}")
    return VARIANTS[name]


def preprocess(image: np.ndarray, side_px: int) -> Tensor:
    """Pixels as the vision tower and the extractor take them.

    The shorter side is resized to ``side_px`` (bicubic, antialiased), values are normalised as CLIP's, and the result
    is stretched to a square (bilinear, no antialiasing). A picture more than 16 times as long as wide, such as the crop
    of a region one pixel wide, is shortened to that shape on the way (ours: the authors' way would need gigabytes).

    Args:
        image: uint8 RGB [H, W, 3].
        side_px: side of the square.

    Returns:
        float32 [3, side_px, side_px].
    """
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    longest = min(side_px * long // short, _MOST_STRETCHED * side_px)
    size = (side_px, longest) if width < height else (longest, side_px)
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    values = torch.from_numpy(resized.transpose(2, 0, 1).copy()).float() / 255
    mean, std = (torch.tensor(three).reshape(3, 1, 1) for three in (PIXEL_MEAN, PIXEL_STD))
    square = functional.interpolate(((values - mean) / std)[None], (side_px, side_px), mode="bilinear")
    return square[0]


def nearest_mask(mask: np.ndarray, side_px: int) -> np.ndarray:
    """A mask [H, W], bool, at the size of the input: bool [side_px, side_px], the pixel above and left of each."""
    height, width = mask.shape
    rows, columns = (np.arange(side_px) * length // side_px for length in (height, width))
    return mask[np.ix_(rows, columns)]


@dataclass
class Picture:
    """A picture that is asked about: what all its regions and questions have in common.

    Attributes:
        maps: the four feature maps, [C, h, w] each.
        tokens: float [n, width of the language model], the picture as the language model sees it.
        cache: keys and values of all tokens before a region's embeddings; None until something is asked.
    """

    maps: list[Tensor]
    tokens: Tensor
    cache: DynamicCache | None = None


class Seagull(nn.Module):
    """The network.

    Args:
        sizes: sizes of the parts.
        language: the language model.
    """

    def __init__(self, sizes: Sizes, language: LlamaForCausalLM):
        super().__init__()
        widths, hidden = sizes.extractor.widths, language.config.hidden_size
        maps = {"features_only": True, "out_indices": (-4, -3, -2, -1), **sizes.tower_options}
        self.tower = timm.create_model(sizes.tower, pretrained=False, **maps).eval()
        self.extractor = MaskExtractor(sizes.extractor)
        self.projector = nn.Sequential(nn.Linear(widths[LANGUAGE_LEVEL], hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.language = language
        self.sizes = sizes

    @property
    def device(self) -> torch.device:
        """Where pictures are taken in; the language model may be spread over several devices."""
        return self.projector[0].weight.device  # type: ignore[return-value] - a tensor, though modules are not typed

    @torch.no_grad()
    def feature_maps(self, pixels: Tensor) -> list[Tensor]:
        """[B, 3, side, side], as ``preprocess`` gives -> four maps [B, C, h, w] in the precision of the tower.

        Without gradients: the tower is frozen.
        """
        weight = next(self.tower.parameters())
        with full_precision(pixels.device.type):
            return list(self.tower(pixels.to(weight.device, weight.dtype)))

    def look(self, maps: Sequence[Tensor]) -> Picture:
        """Take in one picture, given its four feature maps [C, h, w]."""
        seen = maps[LANGUAGE_LEVEL].flatten(1).T  # row by row
        return Picture(list(maps), self.projector(seen.to(self.projector[0].weight.dtype)))  # type: ignore[arg-type]

    def embed(self, picture: Picture, masks: Tensor, crops: Tensor, *, together: bool = False) -> Tensor:
        """Regions of a picture as the language model sees them: [q, 2, width], the global embedding first.

        Arguments are those of ``MaskExtractor``.
        """
        device = self.device
        given = self.extractor(picture.maps, masks.to(device), crops.to(device), together=together)
        return torch.stack(given, 1)

    def words(self, ids: Sequence[int]) -> Tensor:
        """Embeddings [n, width] of token ids."""
        table = self.language.get_input_embeddings()
        weight: Tensor = table.weight  # type: ignore[assignment]
        return table(torch.tensor(list(ids), device=weight.device))

    def before_region(self, picture: Picture, prompt: Prompt) -> Tensor:
        """All that stands before a region's embeddings: [n, width]."""
        first, second = self.words(prompt.before_image), self.words(prompt.before_region)
        return torch.cat([first, picture.tokens.to(first), second])

    @torch.inference_mode()
    def answer(
        self, picture: Picture, regions: Tensor, prompt: Prompt, *, most_tokens: int, end: int
    ) -> tuple[Tensor, Tensor]:
        """Ask the same of several regions and take the likeliest answers, token by token.

        Args:
            picture: what stands before the regions is computed once and remembered here.
            regions: [q, 2, width], of ``embed``.
            prompt: of the question; before the region all questions of a picture have the same tokens.
            most_tokens: an answer ends after so many.
            end: token id that ends an answer.

        Returns:
            Tokens [q, n] of the answers (after the end, without meaning), and float32 logits [q, n, vocabulary] by
            which each was chosen; on the CPU.
        """
        if picture.cache is None:
            before = self.before_region(picture, prompt)
            picture.cache = DynamicCache(config=self.language.config)
            self.language.model(inputs_embeds=before[None], past_key_values=picture.cache, use_cache=True)
        cache = _repeated(picture.cache, len(regions))
        after = self.words(prompt.after_region)
        given = torch.cat([regions.to(after), after.expand(len(regions), -1, -1)], 1)
        ids, logits = [], []
        ended = torch.zeros(len(regions), dtype=torch.bool, device=after.device)
        while True:
            # Of the last token alone: the logits of a whole question would be a gigabyte.
            output = self.language(inputs_embeds=given, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[
                :, -1
            ]
            logits.append(output.float().cpu())
            ids.append(output.argmax(-1))
            ended |= (ids[-1] == end).to(ended.device)
            if len(ids) == most_tokens or bool(ended.all()):
                return torch.stack(ids, 1).cpu(), torch.stack(logits, 1)
            table = self.language.get_input_embeddings()
            given = table(ids[-1].to(given.device)[:, None])


def _repeated(cache: DynamicCache, times: int) -> DynamicCache:
    """A cache of one sequence as the beginning of several; the given one stays as it is."""
    copies = DynamicCache()
    for index, layer in enumerate(cache.layers):
        keys, values = (part.expand(times, -1, -1, -1) for part in (layer.keys, layer.values))  # type: ignore[union-attr]
        copies.update(keys, values, index)
    return copies


def language_config(values: dict[str, Any]) -> LlamaConfig:
    """Configuration of the language model; attention by torch's fused kernel."""
    return LlamaConfig(**{**values, "attn_implementation": "sdpa"})


def build(sizes: Sizes, config: LlamaConfig) -> Seagull:
    """The model with random weights, on the current default device (``meta`` takes no memory)."""
    return Seagull(sizes, LlamaForCausalLM(config)).eval()


def meta_model(sizes: Sizes, config: LlamaConfig) -> Seagull:
    """The model without memory for weights; what is no weight, the rotary frequencies, is on the CPU."""
    with torch.device("meta"):
        model = build(sizes, config)
    model.language.model.rotary_emb = LlamaRotaryEmbedding(config)
    return model


def parameter_counts(model: Seagull) -> dict[str, int]:
    """Parameters of each part, frozen ones too."""
    return {name: sum(value.numel() for value in part.parameters()) for name, part in model.named_children()}
