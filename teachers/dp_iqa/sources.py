"""Where weights and prompt features come from, and the model that is built from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa import base_weights
from teachers.dp_iqa.base_weights import load_official
from teachers.dp_iqa.model import DpIqa, assemble, random_model
from teachers.dp_iqa.prompts import PromptBank, load_bank, prompt_bank, stand_in_bank
from teachers.dp_iqa.variants import Variant, variant_named
from teachers.fitting import UNFITTED, head_file
from teachers.needs import NEW_HEAD, STABLE_DIFFUSION_FILES, TEXT_ENCODER_FILES, find_folder, has_projection, no_head

_LICENCE = "Stable Diffusion weights: CreativeML OpenRAIL-M (or as their repository says)"
_OFFICIAL_LICENCE = "DP-IQA weights: CC BY-NC-SA 4.0; Stable Diffusion weights: CreativeML OpenRAIL-M"
_OFFICIAL_SCALE = "MOS / 100 of the set that this DP-IQA checkpoint was fitted to"
_RANDOM_LICENCE = "random weights"


@dataclass(frozen=True)
class Sources:
    """Origin of everything that a score depends on.

    Attributes:
        variant: ``sd15``, the paper's sizes, or ``tiny`` for tests. U-Net and autoencoder get their sizes from
            ``weights``, so any Stable Diffusion 1.x or 2.x checkpoint can be given.
        weights: folder in the diffusers layout, or ``owner/name`` of a repository on the hub; None means the variant's.
        head: file that ``pocketiqa fit-teacher`` made, or ``new`` for random adapters and a random decoder, to be
            fitted. May be left out only with ``official`` or with random weights.
        official: file of the authors' checkpoint, instead of ``weights`` and ``head``. A file as ``head`` is then a
            fit that started from this checkpoint.
        clip: folder or hub repository of the text encoder; None means the one in ``weights`` if it has a projection,
            else the variant's.
        prompts: file of a prompt bank, instead of a text encoder.
        prompt_cache: folder where prompt banks are cached; None means ``~/.cache/pocketiqa/prompts``.
        pretrained: False takes random weights (and random prompt features unless some are given), for tests and
            measurements.
        download: fetch missing files from the hub.
        seed: seed of random weights.

    Raises:
        PocketiqaError: an unknown variant, two origins that exclude each other, or no head.
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
        # All contradictions are refused before anything is read: loading takes minutes.
        variant_named(self.variant)
        named = {"weights": self.weights, "official": self.official, "pretrained=False": not self.pretrained}
        given = [name for name, value in named.items() if value]
        if len(given) > 1:
            raise PocketiqaError(f"{' and '.join(given)} are given, but a model has one origin: drop all but one")
        if self.official and str(self.head) == NEW_HEAD:
            raise PocketiqaError(
                f"official and head={NEW_HEAD!r} are given, but the official checkpoint has a head: drop one"
            )
        if self.head is None and not self.official and self.pretrained:
            raise PocketiqaError(no_head(f"dp_iqa {self.variant}", "official=FILE of the authors"))

    @property
    def sizes(self) -> Variant:
        """Sizes and default repositories of the variant."""
        return variant_named(self.variant)

    @property
    def fitted_head(self) -> Path | None:
        """File of a fitted head to load into the model; None for ``new`` and for no head."""
        return head_file(self.head)

    @property
    def scale(self) -> str:
        """Meaning of the scores 0 and 1, before a fitted head brings its own."""
        return _OFFICIAL_SCALE if self.official else UNFITTED

    @property
    def licence(self) -> str:
        """Licence of the weights, before a fitted head adds its own."""
        if self.official:
            return _OFFICIAL_LICENCE
        return _LICENCE if self.pretrained else _RANDOM_LICENCE

    def model(self, **options: Any) -> DpIqa:
        """The model in float32 on the CPU, without a fitted head; random parts come from torch's global generator.

        Args:
            options: ``conditioning`` and ``trainable`` of ``DpIqa``.

        Raises:
            PocketiqaError: weights or prompts are missing, corrupt or of another model.
        """
        if self.official:
            # The authors' file has all weights but no text encoder.
            checkpoint = Path(self.official).expanduser()
            prompts = self._bank(None).features
            return load_official(checkpoint, prompts=prompts, variant=self.variant, **options).model
        if not self.pretrained:
            return random_model(self.sizes, prompts=self._bank(None).features, **options)
        folder = self._base_folder()
        base_weights.check_folder(folder)  # before the text encoder runs, which may take minutes
        prompts = self._bank(folder).features
        unet, vae = base_weights.load_base(folder)
        return assemble(unet, vae, self.sizes.decoder, prompts.shape[1], prompts=prompts, **options)

    def _base_folder(self) -> Path:
        weights = self.weights or self.sizes.repository
        if not weights:
            raise PocketiqaError(
                f"variant {self.variant!r} has no published weights: give weights=FOLDER, or pretrained=False"
            )
        return find_folder(weights, option="weights", patterns=STABLE_DIFFUSION_FILES, download=self.download)

    def _bank(self, base: Path | None) -> PromptBank:
        if self.prompts:
            return load_bank(Path(self.prompts).expanduser())
        if not self.pretrained and not self.clip:
            return stand_in_bank(self.sizes.text_width, self.seed)
        cache = Path(self.prompt_cache) if self.prompt_cache else None
        # Repositories of Stable Diffusion ship CLIP's text encoder without its projection, which DP-IQA's features
        # need: such a folder is passed over, and the whole CLIP is looked for.
        if base is not None and not self.clip and has_projection(base):
            return prompt_bank(base, cache)
        clip = self.clip or self.sizes.clip
        if not clip:
            raise PocketiqaError("there is no text encoder with a projection: give clip=FOLDER or prompts=FILE")
        folder = find_folder(clip, option="clip", patterns=TEXT_ENCODER_FILES, download=self.download)
        return prompt_bank(folder, cache)
