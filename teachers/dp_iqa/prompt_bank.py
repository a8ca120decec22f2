"""The prompt bank: CLIP's pooled, projected text feature of each prompt, computed once and kept on disk.

A bank's file is safetensors; its head names the prompts and the text encoder by digest. A file that was made of other
prompts or by another encoder is made anew; one that was altered is made anew if the encoder is at hand, and refused if
not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of
from teachers.dp_iqa.prompts import PROMPTS
from teachers.dp_iqa.text_encoder import TextEncoder, encoder_digest
from teachers.sealed import read_sealed, write_sealed

DEFAULT_CACHE = Path("~/.cache/pocketiqa/prompts")
_KIND = "prompt bank"
_FEATURES = "features"
_NAME_DIGITS = 16
_MEND = "give clip=FOLDER to make one anew, or a file that pocketiqa made"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PromptBank:
    """Text features of all prompts.

    Attributes:
        features: float32 [1485, width], in the order of ``PROMPTS``.
        encoder: digest of the text encoder's files; says how they came about otherwise.
    """

    features: Tensor
    encoder: str


def prompt_bank(clip: Path, cache: Path | None = None, *, progress: Progress | None = None) -> PromptBank:
    """The bank of a text encoder, from the cache or made now (a minute or two on a CPU for ViT-L/14).

    Args:
        clip: folder of the encoder, see ``text_encoder``.
        cache: folder for banks; None means ``~/.cache/pocketiqa/prompts``.
        progress: called with prompts done and prompts in all, if the bank has to be made.

    Raises:
        PocketiqaError: the encoder is missing, incomplete or has no text projection.
    """
    encoder = encoder_digest(clip)
    folder = (cache or DEFAULT_CACHE).expanduser()
    path = folder / f"dp_iqa-{digest_of([encoder, _prompts_digest()])[:_NAME_DIGITS]}.safetensors"
    if path.is_file():
        try:
            bank = load_bank(path)
        except PocketiqaError:
            bank = None  # altered or of another format: the encoder is at hand
        if bank is not None and bank.encoder == encoder:
            return bank
    bank = PromptBank(TextEncoder(clip).features(PROMPTS, progress=progress), encoder)
    folder.mkdir(parents=True, exist_ok=True)
    save_bank(path, bank)
    return bank


def save_bank(path: Path, bank: PromptBank) -> None:
    """Write a bank in one step; equal banks give equal bytes."""
    write_sealed(path, _KIND, {"prompts": _prompts_digest(), "encoder": bank.encoder}, {_FEATURES: bank.features})


def load_bank(path: Path) -> PromptBank:
    """Read and verify a bank.

    Raises:
        PocketiqaError: not there, not a bank, or one of other prompts.
        TamperedError: damaged or altered.
    """
    head, tensors = read_sealed(path, _KIND, mend=_MEND)
    features = tensors[_FEATURES]
    if head["prompts"] != _prompts_digest() or len(features) != len(PROMPTS):
        raise PocketiqaError(f"the prompt bank {path} was made of other prompts than these {len(PROMPTS)}: {_MEND}")
    return PromptBank(features, head["encoder"])


def _prompts_digest() -> str:
    return digest_of(list(PROMPTS))


def stand_in_bank(width: int, seed: int) -> PromptBank:
    """Random features for random weights, where no text encoder has a say."""
    generator = torch.Generator().manual_seed(seed)
    return PromptBank(torch.randn(len(PROMPTS), width, generator=generator), f"random, seed {seed}")
