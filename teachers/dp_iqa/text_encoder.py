"""CLIP's text encoder with its projection, from a folder, through transformers.

Two layouts are understood: a CLIP repository (``openai/clip-vit-large-patch14``: ``config.json``,
``model.safetensors`` and the tokenizer side by side), and a Stable Diffusion folder (``text_encoder``, ``tokenizer``)
whose encoder has a projection. Stable Diffusion 1.5 itself ships the encoder *without* its projection, which therefore
must come from the CLIP repository; a random projection is never used.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of, read_json, sha256_file

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
"""What is needed of a CLIP repository."""

_WEIGHTS = "model.safetensors"
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_PROJECTION = "text_projection.weight"
_PROMPTS_AT_ONCE = 33
_FETCH = "fetch config.json, model.safetensors and the tokenizer's files of openai/clip-vit-large-patch14"


def has_projection(folder: Path) -> bool:
    """Whether this folder's text encoder is complete with its projection; reads the head of its weights only."""
    path = _model_folder(folder) / _WEIGHTS
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            return _PROJECTION in json.loads(file.read(min(size, 1 << 26)))
    except (OSError, ValueError):
        return False


def encoder_digest(folder: Path) -> str:
    """Identity of an encoder: of its weights, its configuration and its tokenizer's files.

    Raises:
        PocketiqaError: one of them is missing.
    """
    return digest_of({path.name: sha256_file(path) for path in _files(folder)})


def _files(folder: Path) -> list[Path]:
    model, tokens = _model_folder(folder), _tokenizer_folder(folder)
    for path in (model / "config.json", model / _WEIGHTS):
        if not path.is_file():
            raise PocketiqaError(f"the text encoder lacks {path}: {_FETCH} into one folder and give it as clip=FOLDER")
    for names in _TOKENIZERS:
        if all((tokens / name).is_file() for name in names):
            return [model / "config.json", model / _WEIGHTS, *(tokens / name for name in names)]
    raise PocketiqaError(
        f"the text encoder's tokenizer lacks {tokens / 'tokenizer.json'} (or vocab.json and merges.txt): {_FETCH}"
    )


def _model_folder(folder: Path) -> Path:
    return folder / "text_encoder" if (folder / "text_encoder").is_dir() else folder


def _tokenizer_folder(folder: Path) -> Path:
    return folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder


class TextEncoder:
    """Text -> CLIP's pooled, projected feature, in float32 on the CPU.

    Args:
        folder: see the module.

    Raises:
        PocketiqaError: a file is missing or damaged, or there is no text projection.
    """

    def __init__(self, folder: Path):
        _files(folder)
        model = _model_folder(folder)
        with _quiet():
            try:
                self._tokenizer = CLIPTokenizer.from_pretrained(_tokenizer_folder(folder), local_files_only=True)
                self._model, missing = _load_model(model)
            except Exception as error:  # transformers raises errors of several libraries
                reason = " ".join(str(error).split())[:160]
                raise PocketiqaError(
                    f"{folder} holds no usable CLIP text encoder ({reason}): {_FETCH} again"
                ) from error
        if missing:
            raise PocketiqaError(
                f"the text encoder at {model} lacks {missing[0]!r} (Stable Diffusion ships it without the projection): "
                f"{_FETCH} and give their folder as clip=FOLDER"
            )

    @torch.no_grad()
    def features(self, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """Features [len(texts), projection width], not normalised.

        A text is padded to the longest of its group only: attention is causal and the feature is read at the end
        token, so the padding behind it has no part in it.
        """
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
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    model, info = loaded
    return model.eval(), sorted(info["missing_keys"])


def _text_config(folder: Path) -> CLIPTextConfig:
    """Of a text encoder, or of the text half of a whole CLIP, whose projection width stands beside the halves."""
    record = read_json(folder / "config.json", what="configuration of the text encoder")
    values: dict[str, Any] = dict(record.get("text_config") or record)
    if "text_config" in record and "projection_dim" in record:
        values["projection_dim"] = record["projection_dim"]
    return CLIPTextConfig(**values)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting the tensors of CLIP's other half, which is not news."""
    before = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
