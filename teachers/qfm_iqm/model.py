"""The QFM-IQM network: a backbone at one or more sizes of the image, tokens, and a decoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from teachers.launch import full_precision
from teachers.qfm_iqm.backbone import Backbone, CachedSummaries
from teachers.qfm_iqm.sizes import BackboneConfig, maps_by_size
from teachers.qfm_iqm.tokens import Quality, QualityDecoder, Tokeniser, Tokens, summary

HEAD, ALL = "head", "all"
_BACKBONE = "backbone.model."


@dataclass(frozen=True)
class QfmConfig(BackboneConfig):
    """Settings that must be equal in a fitted file and in the model that it is loaded into.

    Attributes:
        square_px: side of the square that every image is resized to instead; None keeps the aspect ratio.
        cells: rows and columns of cells at each level.
        width: channels of a token.
        heads: number of attention heads; divides the width.
        trainable: names of the backbone's modules that are fitted besides the head; ``all`` for all of them, ``head``
            for none.

    Raises:
        PocketiqaError: a number out of range.
    """

    square_px: int | None
    cells: int
    width: int
    heads: int
    trainable: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("cells", "width", "heads")
        if self.square_px is not None and (type(self.square_px) is not int or self.square_px < 1):
            raise PocketiqaError(f"square_px {self.square_px!r}: a whole number, at least 1, or none is needed")
        if self.width % self.heads:
            raise PocketiqaError(f"width {self.width} and heads {self.heads}: the heads must divide the width")


class QfmIqm(nn.Module):
    """Backbone, tokens and decoder.

    Under autocast only the backbone computes in lower precision: the rest costs little, and a score in bfloat16 would
    have no more than 256 steps.

    Args:
        config: sizes, and the parts that are trainable.
        backbone: backbone of the config, weights loaded.

    Attributes:
        summary_cache: cache of summaries, only for a frozen backbone; None computes them each time.

    Raises:
        PocketiqaError: ``trainable`` names a module that the backbone does not have, or ``halvings`` an input that it
            does not take.
    """

    summary_cache: CachedSummaries | None = None

    def __init__(self, config: QfmConfig, backbone: Backbone):
        super().__init__()
        if backbone.fixed_px and (config.halvings or config.square_px):
            height, width = backbone.fixed_px
            raise PocketiqaError(
                f"{config.backbone} takes {width}x{height} pixels only: choose halvings=0 and leave square_px out"
            )
        self.config, self.backbone = config, backbone
        sizes = 1 + config.halvings  # of the image; each is read at all depths
        self.tokeniser = Tokeniser(backbone.channels * sizes, len(backbone.depths), config.width, config.cells)
        self.decoder = QualityDecoder(len(backbone.depths) * sizes, config.cells, config.width, config.heads)
        self._freeze()

    def _freeze(self) -> None:
        trained = [name for name in self.config.trainable if name != HEAD]
        modules = {name for name, _ in self.backbone.model.named_modules() if name}
        unknown = [name for name in trained if name not in modules | {ALL}]
        if unknown:
            raise PocketiqaError(
                f"trainable {unknown[0]!r}: {self.config.backbone} has no such part; choose {HEAD}, {ALL}, or names "
                f"such as {', '.join(self.backbone.depths)}"
            )
        # With the dot, so that blocks.1 does not name blocks.10 too; "" is a prefix of every name.
        prefixes = tuple("" if name == ALL else f"{name}." for name in trained)
        for name, parameter in self.backbone.model.named_parameters():
            parameter.requires_grad_(name.startswith(prefixes) if prefixes else False)

    def encode(self, rgb: Tensor) -> Tokens:
        """Uint8 RGB [B, 3, H, W] to the decoder's input."""
        cache = self.summary_cache
        summed = self.summarise(rgb) if cache is None else cache.of(rgb, self.summarise)
        with full_precision(rgb.device.type):
            return self.tokeniser(summed)

    def summarise(self, rgb: Tensor) -> Tensor:
        """Uint8 RGB [B, 3, H, W] to the summary [B, D] that tokens are computed from, see ``tokens.summary``."""
        maps = [one for maps in maps_by_size(self.backbone, self.config.halvings, rgb) for one in maps]
        with full_precision(rgb.device.type):
            return summary(maps, self.config.cells)

    def decode(self, tokens: Tokens, *, gated: bool = True) -> Quality:
        """Compute scores from the decoder's input; ``gated=False`` leaves the feature selection out."""
        with full_precision(tokens.whole.device.type):
            return self.decoder(tokens, gated=gated)

    def forward(self, rgb: Tensor) -> Quality:
        """Score uint8 RGB images [B, 3, H, W], without any noise."""
        return self.decode(self.encode(rgb))


def frozen_state(model: QfmIqm) -> dict[str, Tensor]:
    """The tensors that a score depends on and fitting does not change: the backbone's, without those it trains."""
    trained = {name for name, value in model.backbone.model.named_parameters() if value.requires_grad}
    # Of the state dict, not of the parameters: the statistics of batch normalisation change a score too.
    return {name: value for name, value in model.backbone.model.state_dict().items() if name not in trained}


def names_in(value: str | Sequence[Any]) -> tuple[str, ...]:
    """Names from a list, or from one string separated by commas; empty ones are dropped."""
    names = value.split(",") if isinstance(value, str) else value
    return tuple(text for name in names if (text := str(name).strip()))
