"""Weights by folder or by hub name, found on this machine; nothing is fetched without being asked."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download

from pseudo_labels.errors import PocketiqaError

WEIGHTS_VARIABLE = "POCKETIQA_WEIGHTS"
_DEFAULT_FOLDER = Path("~/.cache/pocketiqa/weights")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def find_folder(name: str | Path, *, option: str, patterns: Sequence[str], download: bool = False) -> Path:
    """The local folder of a model repository.

    Looked for, in this order: ``name`` as a folder; the repository's last name inside the folder that
    ``POCKETIQA_WEIGHTS`` names, or else inside ``~/.cache/pocketiqa/weights``; the cache of the Hugging Face hub.

    Args:
        name: a folder, or ``owner/repository`` on the hub.
        option: what the caller's option is called, for the message.
        patterns: the files needed, as the hub's client takes them.
        download: fetch them from the hub if they are not there.

    Raises:
        PocketiqaError: it is not on this machine; says what to fetch and where to put it. Or the download failed.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise PocketiqaError(
            f"{option} is the file {path}, but a folder in the diffusers layout is needed (unet/, vae/ with "
            "config.json and safetensors)"
        )
    if not _HUB_NAME.fullmatch(str(name)):
        raise PocketiqaError(f"{option} is {str(name)!r}: no such folder, and no repository name of the hub")
    place = Path(os.environ.get(WEIGHTS_VARIABLE) or _DEFAULT_FOLDER).expanduser() / path.name
    return place if place.is_dir() else _from_hub(str(name), place, option, patterns, download)


def _from_hub(name: str, place: Path, option: str, patterns: Sequence[str], download: bool) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), local_files_only=not download))
    except Exception as error:  # the hub's client raises errors of several libraries
        if download:
            reason = " ".join(str(error).split())[:160]
            raise PocketiqaError(
                f"{name} could not be fetched from the Hugging Face hub ({reason}): check the network, or fetch it "
                f"elsewhere and put it at {place}"
            ) from error
        raise PocketiqaError(
            f"no weights of {name} on this machine: fetch {', '.join(patterns)} of {name} from the Hugging Face hub "
            f"and put them at {place} (or give {option}=FOLDER, or download=True)"
        ) from error
