"""safetensors files of ours: tensors with a head that describes them, and a digest over both.

The digest is a checksum against corruption and careless edits; it has no secret, so it does not prove the origin.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import canonical_json, digest_of, parse_json, write_atomic

FORMAT = 1
HALVES_FORMAT = 2
"""Of files in which tensors are stored in fewer bits than they have; others keep the format of earlier versions."""
_WORTH_HALVING = 4096  # values of a tensor; small ones save nothing


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values; independent of order, device and file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        # Type and shape too: the same bytes in another shape are another tensor.
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        # As bytes, because numpy has no bfloat16; flat, because torch does not view a tensor without dimensions as
        # bytes.
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_checksummed(path: Path, kind: str, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a file in one step; equal content gives equal bytes.

    Large float32 tensors whose values float16 holds exactly (those of an average that was rounded) are stored in it.

    Args:
        path: path of the file; its folder exists.
        kind: what the file is, in words.
        head: JSON values.
        tensors: tensors by name, on any device.

    Raises:
        StorageFullError: the disk is full; an earlier file is untouched.
    """
    own = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    record: dict[str, Any] = {"format": FORMAT, "head": dict(head), "digest": _digest(kind, head, own)}
    halves = {name: value.half() for name, value in own.items() if _is_half(value)}
    if halves:
        record |= {"format": HALVES_FORMAT, "halves": sorted(halves)}
    # One entry only: safetensors does not keep the order of several.
    write_atomic(path, save(own | halves, {_key(kind): canonical_json(record).decode()}))


def _is_half(value: Tensor) -> bool:
    """Whether a float32 tensor has nothing that float16 would lose."""
    if value.dtype != torch.float32 or value.numel() < _WORTH_HALVING:
        return False
    return torch.equal(value.half().float(), value)


def read_checksummed(path: Path, kind: str, *, mend: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Head and tensors of a file that ``write_checksummed`` wrote.

    Args:
        path: path of the file.
        kind: the kind that it was written as.
        mend: what the user can do, for messages.

    Raises:
        PocketiqaError: it is not there, of another kind, or of another format version.
        IntegrityError: it is corrupt, or not what was written.
    """
    if not path.is_file():
        raise PocketiqaError(f"no {kind} at {path}: {mend}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} is cut off or corrupt ({error}): {mend}") from error
    if _key(kind) not in metadata:
        raise PocketiqaError(f"{path} is no {kind}: {mend}")
    record = _record(metadata[_key(kind)], path, mend)
    head, halves = record.get("head"), record.get("halves")
    # Before the digest, which is that of the tensors as they were given.
    tensors |= {name: value.float() for name, value in tensors.items() if isinstance(halves, list) and name in halves}
    # The digest covers kind and head as well, so that a scale or licence that was edited by hand is noticed.
    if not isinstance(head, dict) or _digest(kind, head, tensors) != record.get("digest"):
        raise IntegrityError(f"{path} was altered, it is not what was written as a {kind}: {mend}")
    return head, tensors


def _record(text: str, path: Path, mend: str) -> dict[str, Any]:
    try:
        record = parse_json(text)
    except ValueError as error:
        raise IntegrityError(f"{path} was altered, its head is not JSON ({error}): {mend}") from error
    version = record.get("format") if isinstance(record, dict) else None
    # Before the digest is compared: another format may compute it in another way, and would count as corrupt.
    if version not in (FORMAT, HALVES_FORMAT):
        raise PocketiqaError(
            f"{path} has format {version!r}, but this pocketiqa reads {FORMAT} and {HALVES_FORMAT}: upgrade pocketiqa"
        )
    return record


def _digest(kind: str, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    return digest_of({"kind": kind, "head": dict(head), "tensors": tensor_digest(tensors)})


def _key(kind: str) -> str:
    return f"pocketiqa.{kind.replace(' ', '_')}"
