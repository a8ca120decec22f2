"""Where weights and prompts come from, and the model that is made of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa import base_weights
from teachers.dp_iqa.base_weights import find_folder, load_official
from teachers.dp_iqa.model import DpIqa, assemble, random_model
from teachers.dp_iqa.prompts import (
    TEXT_ENCODER_FILES,
    PromptBank,
    has_projection,
    load_bank,
    prompt_bank,
    stand_in_bank,
)
from teachers.dp_iqa.variants import Variant, variant_named
from teachers.fitting import NEW_HEAD, UNFITTED, head_file

_LICENCE = "Stable Diffusion weights: CreativeML OpenRAIL-M (or as their repository says)"
_OFFICIAL_LICENCE = "DP-IQA weights: CC BY-NC-SA 4.0; Stable Diffusion weights: CreativeML OpenRAIL-M"
_OFFICIAL_SCALE = "MOS / 100 of the set that this DP-IQA checkpoint was fitted to"
_RANDOM_LICENCE = "random weights"


@dataclass(frozen=True)
class Sources:
    """Where everything that a score depends on comes from.

    Attributes:
        variant: ``sd15``, the paper's sizes, or ``tiny`` for tests. U-Net and autoencoder have the sizes that
            ``weights`` says, so any Stable Diffusion 1.x or 2.x checkpoint can be given.
        weights: folder in the diffusers layout, or name of a repository on the hub; None means that of the variant.
        head: file that ``pocketiqa fit-teacher`` made, or ``new`` for random adapters and decoder that are to be
            fitted. May be left out with ``official`` or random weights only.
        official: the authors' checkpoint instead of ``weights`` and ``head``; with a file as ``head``, that file is
            what was fitted from there on.
        clip: folder or repository of the text encoder; None looks for one with a projection in ``weights``, then for
            that of the variant.
        prompts: a prompt bank's file instead of a text encoder.
        prompt_cache: folder where banks are kept.
        pretrained: False takes random weights (and random prompt features unless some are named), for tests and
            measurements.
        download: fetch what is missing from the hub.
        seed: of random weights.
    """

    variant: str = "sd15"
    weights: str | Path | None = None
    head: str | Path | None = None
    official: str | Path | None = None
    clip: str | Path | None = None
    prompts: str | Path | None = None
    prompt_cache: str | Path | None = None
    pretrained: bool = True
    download: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        variant_named(self.variant)
        named = {"weights": self.weights, "official": self.official, "pretrained=False": not self.pretrained}
        given = [name for name, value in named.items() if value]
        if len(given) > 1:
            raise PocketiqaError(f"{' and '.join(given)} are given, but only one can say what to start from")
        if self.official and str(self.head) == NEW_HEAD:
            raise PocketiqaError(
                f"official and head={NEW_HEAD!r} are given, but the official checkpoint has a head: drop one"
            )
        if self.head is None and not self.official and self.pretrained:
            raise PocketiqaError(
                f"dp_iqa {self.variant} has no head: give head=FILE of one that `pocketiqa fit-teacher` made, "
                f"official=FILE of the authors, or head={NEW_HEAD!r} to fit one (its scores mean nothing before)"
            )

    @property
    def sizes(self) -> Variant:
        """Of the variant."""
        return variant_named(self.variant)

    @property
    def fitted_head(self) -> Path | None:
        """The file to be loaded into the model, if there is one."""
        return head_file(self.head)

    @property
    def scale(self) -> str:
        """What 0 and 1 mean, before a fitted head says more."""
        return _OFFICIAL_SCALE if self.official else UNFITTED

    @property
    def licence(self) -> str:
        """Of the weights, likewise."""
        if self.official:
            return _OFFICIAL_LICENCE
        return _LICENCE if self.pretrained else _RANDOM_LICENCE

    def model(self, **options: Any) -> DpIqa:
        """The model in float32 on the CPU, without a fitted head; random parts from the current generator.

        Args:
            options: ``conditioning`` and ``trainable`` of ``DpIqa``.

        Raises:
            PocketiqaError: weights or prompts are missing, damaged or of another model.
        """
        if self.official:
            checkpoint = Path(self.official).expanduser()
            prompts = self._bank(None).features
            return load_official(checkpoint, prompts=prompts, variant=self.variant, **options).model
        if not self.pretrained:
            return random_model(self.sizes, prompts=self._bank(None).features, **options)
        folder = self._base_folder()
        base_weights.check_folder(folder)  # before the text encoder is asked for, which may take minutes
        prompts = self._bank(folder).features
        unet, vae = base_weights.load_base(folder)
        return assemble(unet, vae, self.sizes.decoder, prompts.shape[1], prompts=prompts, **options)

    def _base_folder(self) -> Path:
        weights = self.weights or self.sizes.repository
        if not weights:
            raise PocketiqaError(
                f"variant {self.variant!r} has no published weights: give weights=FOLDER, or pretrained=False"
            )
        return find_folder(weights, option="weights", patterns=base_weights.FILES, download=self.download)

    def _bank(self, base: Path | None) -> PromptBank:
        if self.prompts:
            return load_bank(Path(self.prompts).expanduser())
        if not self.pretrained and not self.clip:
            return stand_in_bank(self.sizes.text_width, self.seed)
        cache = Path(self.prompt_cache) if self.prompt_cache else None
        if base is not None and not self.clip and has_projection(base):
            return prompt_bank(base, cache)
        clip = self.clip or self.sizes.clip
        if not clip:
            raise PocketiqaError("there is no text encoder with a projection: give clip=FOLDER or prompts=FILE")
        folder = find_folder(clip, option="clip", patterns=TEXT_ENCODER_FILES, download=self.download)
        return prompt_bank(folder, cache)
