"""A seal that shows whether an ONNX file was altered, written and checked without the onnx package.

The last bytes of a sealed file are one more entry of ModelProto's ``metadata_props`` (field 14): the key
``pocketiqa.sha256`` and the digest of all bytes before it. A protobuf message may be concatenated with further
fields of itself, so a sealed file is a valid ONNX file. The seal is a checksum against damage and careless edits; it
holds no secret, so it does not prove who made the file.
"""

from pseudo_labels.errors import TamperedError
from pseudo_labels.files import sha256_bytes

SEAL_KEY = "pocketiqa.sha256"
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_LENGTH_DELIMITED = 2
_DIGEST_HEX = 64


def _field(number: int, content: bytes) -> bytes:
    """One length-delimited protobuf field; both numbers here are below 128, so each takes one byte."""
    return bytes([number << 3 | _LENGTH_DELIMITED, len(content)]) + content


def _entry(digest: str) -> bytes:
    pair = _field(_KEY, SEAL_KEY.encode()) + _field(_VALUE, digest.encode())
    return _field(_METADATA_PROPS, pair)


SEAL_BYTES = len(_entry("0" * _DIGEST_HEX))


def seal(model: bytes) -> bytes:
    """Serialised model -> the same with its seal at the end."""
    return model + _entry(sha256_bytes(model))


def check_seal(data: bytes, name: str) -> str:
    """Verify a sealed file's bytes.

    Args:
        data: the whole file.
        name: what the error calls it.

    Returns:
        The hex digest in the seal, which identifies the file's content.

    Raises:
        TamperedError: there is no seal at the end, or it does not fit the bytes before it.
    """
    model, tail = data[:-SEAL_BYTES], data[-SEAL_BYTES:]
    digest = tail[-_DIGEST_HEX:]
    if len(data) <= SEAL_BYTES or tail[:-_DIGEST_HEX] != _entry("0" * _DIGEST_HEX)[:-_DIGEST_HEX]:
        raise TamperedError(
            f"{name} does not end with a pocketiqa seal: it was cut, appended to or not exported by pocketiqa; "
            "fetch it again or export it with `pocketiqa export`"
        )
    actual = sha256_bytes(model)
    if digest != actual.encode():
        raise TamperedError(
            f"{name} was altered: its seal says {digest[:12].decode('ascii', 'replace')}..., its content is "
            f"{actual[:12]}...; fetch it again or export it with `pocketiqa export`"
        )
    return actual
