"""The 1485 sentences that DP-IQA conditions its U-Net on (Fu et al. 2024, arXiv 2405.19996), and their text features.

``PROMPTS`` are the sentences. ``prompt_bank`` computes their features with a CLIP text encoder once and caches them in
a file, so that later runs need no text encoder; ``load_bank`` reads such a file.

A text encoder's folder is either a CLIP repository, or a Stable Diffusion one with ``text_encoder`` and ``tokenizer``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of, read_json, sha256_file
from pseudo_labels.parallel import Progress
from teachers.checksummed import read_checksummed, write_checksummed
from teachers.launch import quiet_transformers
from teachers.needs import text_model_folder

QUALITIES = ("bad", "poor", "fair", "good", "perfect")
SCENES = ("animal", "cityscape", "human", "indoor", "landscape", "night", "plant", "still_life", "others")
DISTORTIONS = (
    "jpeg2000 compression",
    "jpeg compression",
    "white noise",
    "gaussian blur",
    "fastfading",
    "fnoise",
    "contrast",
    "lens",
    "motion",
    "diffusion",
    "shifting",
    "color quantization",
    "oversaturation",
    "desaturation",
    "white with color",
    "impulse",
    "multiplicative",
    "white noise with denoise",
    "brighten",
    "darken",
    "shifting the mean",
    "jitter",
    "noneccentricity patch",
    "pixelate",
    "quantization",
    "color blocking",
    "sharpness",
    "realistic blur",
    "realistic noise",
    "underexposure",
    "overexposure",
    "realistic contrast change",
    "other realistic",
)

PROMPTS: tuple[str, ...] = tuple(
    f"a photo of a {scene} with {distortion} artifacts, which is of {quality} quality"
    for quality, scene, distortion in product(QUALITIES, SCENES, DISTORTIONS)
)
"""Quality changes slowest, distortion fastest.

Cross-attention does not depend on this order, but the features in cached banks are stored in it.
"""

_WEIGHTS = "model.safetensors"
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_PROMPTS_AT_ONCE = 33  # one quality and one scene with all distortions
_FETCH = "fetch config.json, model.safetensors and the tokenizer's files of openai/clip-vit-large-patch14"

DEFAULT_CACHE = Path("~/.cache/pocketiqa/prompts")
_KIND = "prompt bank"
_FEATURES = "features"
_NAME_DIGITS = 16
_MEND = "give clip=FOLDER to compute one, or a file that pocketiqa wrote"


@dataclass(frozen=True)
class PromptBank:
    """Text features of all prompts.

    Attributes:
        features: float32 [1485, width], in the order of ``PROMPTS``.
        encoder: digest of the text encoder's files; for features without an encoder, a note on their origin.
    """

    features: Tensor
    encoder: str


def prompt_bank(clip: Path, cache: Path | None = None, *, progress: Progress | None = None) -> PromptBank:
    """The bank of a text encoder, from the cache or computed now (a minute or two on a CPU for ViT-L/14).

    Args:
        clip: folder of the text encoder, see the module.
        cache: folder of cached banks; None means ``~/.cache/pocketiqa/prompts``.
        progress: called with the number of prompts done and of all prompts, if the bank has to be computed.

    Raises:
        PocketiqaError: the encoder is missing, incomplete or has no text projection.
    """
    encoder = encoder_digest(clip)
    # Named by encoder and prompts, so that a change of either computes a new bank instead of reading a stale one.
    folder = (cache or DEFAULT_CACHE).expanduser()
    path = folder / f"dp_iqa-{digest_of([encoder, _prompts_digest()])[:_NAME_DIGITS]}.safetensors"
    if path.is_file():
        try:
            bank = load_bank(path)
        except PocketiqaError:
            bank = None  # altered or of another format: it can be computed again, so this is no error
        if bank is not None and bank.encoder == encoder:  # the name has only some of the digest's digits
            return bank
    bank = PromptBank(TextEncoder(clip).features(PROMPTS, progress=progress), encoder)
    folder.mkdir(parents=True, exist_ok=True)
    save_bank(path, bank)
    return bank


def save_bank(path: Path, bank: PromptBank) -> None:
    """Write a bank whole or not at all; equal banks give equal bytes."""
    write_checksummed(path, _KIND, {"prompts": _prompts_digest(), "encoder": bank.encoder}, {_FEATURES: bank.features})


def load_bank(path: Path) -> PromptBank:
    """Read a bank and verify its checksum.

    Raises:
        PocketiqaError: there is no file, it is no bank, or its prompts are not ``PROMPTS``.
        IntegrityError: the file is corrupt or altered.
    """
    head, tensors = read_checksummed(path, _KIND, mend=_MEND)
    features = tensors[_FEATURES]
    if head["prompts"] != _prompts_digest() or len(features) != len(PROMPTS):
        raise PocketiqaError(f"the prompt bank {path} was made of other prompts than these {len(PROMPTS)}: {_MEND}")
    return PromptBank(features, head["encoder"])


def _prompts_digest() -> str:
    return digest_of(list(PROMPTS))


def stand_in_bank(width: int, seed: int) -> PromptBank:
    """Random features [1485, width] for models with random weights, which need no text encoder."""
    generator = torch.Generator().manual_seed(seed)
    return PromptBank(torch.randn(len(PROMPTS), width, generator=generator), f"random, seed {seed}")


def encoder_digest(folder: Path) -> str:
    """Digest of a text encoder: of its weights, its configuration and its tokenizer's files.

    Raises:
        PocketiqaError: a file is missing.
    """
    return digest_of({path.name: sha256_file(path) for path in _files(folder)})


def _files(folder: Path) -> list[Path]:
    """The files that a text feature depends on; a missing one is an error."""
    model, tokens = text_model_folder(folder), _tokenizer_folder(folder)
    for path in (model / "config.json", model / _WEIGHTS):
        if not path.is_file():
            raise PocketiqaError(f"the text encoder lacks {path}: {_FETCH} into one folder and give it as clip=FOLDER")
    for names in _TOKENIZERS:
        if all((tokens / name).is_file() for name in names):
            return [model / "config.json", model / _WEIGHTS, *(tokens / name for name in names)]
    raise PocketiqaError(
        f"the text encoder's tokenizer lacks {tokens / 'tokenizer.json'} (or vocab.json and merges.txt): {_FETCH}"
    )


def _tokenizer_folder(folder: Path) -> Path:
    return folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder


class TextEncoder:
    """Text -> CLIP's pooled, projected feature, in float32 on the CPU.

    Args:
        folder: folder of the text encoder, see the module.

    Raises:
        PocketiqaError: a file is missing or corrupt, or there is no text projection.
    """

    def __init__(self, folder: Path):
        _files(folder)
        model = text_model_folder(folder)
        with quiet_transformers():
            try:
                self._tokenizer = CLIPTokenizer.from_pretrained(_tokenizer_folder(folder), local_files_only=True)
                self._model, missing = _load_model(model)
            except Exception as error:  # transformers raises errors of several libraries
                reason = " ".join(str(error).split())[:160]
                raise PocketiqaError(
                    f"{folder} holds no usable CLIP text encoder ({reason}): {_FETCH} again"
                ) from error
        if missing:  # transformers fills missing tensors with random numbers and only logs it
            raise PocketiqaError(
                f"the text encoder at {model} lacks {missing[0]!r} (Stable Diffusion ships it without the projection): "
                f"{_FETCH} and give their folder as clip=FOLDER"
            )

    @torch.no_grad()
    def features(self, texts: Sequence[str], *, progress: Progress | None = None) -> Tensor:
        """Features [len(texts), projection width], not normalised.

        Args:
            texts: sentences; longer ones than the encoder's positions are truncated.
            progress: called with the number of texts done and of all texts.
        """
        # Padded only to the longest text of a group: attention is causal and the feature is read at the end token, so
        # the padding after it changes nothing.
        parts = []
        for start in range(0, len(texts), _PROMPTS_AT_ONCE):
            group = list(texts[start : start + _PROMPTS_AT_ONCE])
            tokens = self._tokenizer(
                group, padding=True, truncation=True, max_length=self._model.config.max_position_embeddings,
                return_tensors="pt",
            )  # fmt: skip
            parts.append(self._model(**tokens).text_embeds)
            if progress:
                progress(start + len(group), len(texts))
        return torch.cat(parts)


def _load_model(folder: Path) -> tuple[CLIPTextModelWithProjection, list[str]]:
    """The model, and the names of the tensors that its file lacks."""
    loaded: Any = CLIPTextModelWithProjection.from_pretrained(
        folder,
        config=_text_config(folder),
        # Whatever the file holds: the features are cached for all precisions, and are part of the digest of the
        # teacher.
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    model, info = loaded
    return model.eval(), sorted(info["missing_keys"])


def _text_config(folder: Path) -> CLIPTextConfig:
    """Configuration of a text encoder, or of the text half of a whole CLIP."""
    record = read_json(folder / "config.json", what="configuration of the text encoder")
    values: dict[str, Any] = dict(record.get("text_config") or record)
    # A whole CLIP has one projection width for both halves, outside of their configurations; the width inside the text
    # half is only a default there.
    if "text_config" in record and "projection_dim" in record:
        values["projection_dim"] = record["projection_dim"]
    return CLIPTextConfig(**values)
