"""A sealed model file -> an ONNX Runtime session and its contract, or one clear error."""

from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import sha256_bytes
from students.contract import CONTRACT_KEY, StudentContract
from students.shipped import NAMES

CHECKSUM_KEY = "pocketiqa.sha256"
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_LENGTH_DELIMITED = 2
_DIGEST_HEX = 64


def _field(number: int, content: bytes) -> bytes:
    """One length-delimited protobuf field; both numbers here are below 128, so each takes one byte."""
    return bytes([number << 3 | _LENGTH_DELIMITED, len(content)]) + content


def _entry(digest: str) -> bytes:
    pair = _field(_KEY, CHECKSUM_KEY.encode()) + _field(_VALUE, digest.encode())
    return _field(_METADATA_PROPS, pair)


CHECKSUM_BYTES = len(_entry("0" * _DIGEST_HEX))


def with_checksum(model: bytes) -> bytes:
    """Serialised model -> the same with its seal at the end."""
    return model + _entry(sha256_bytes(model))


def verify_checksum(data: bytes, name: str) -> str:
    """Verify a sealed file's bytes.

    Args:
        data: the whole file.
        name: what the error calls it.

    Returns:
        The hex digest in the seal, which identifies the file's content.

    Raises:
        TamperedError: there is no seal at the end, or it does not fit the bytes before it.
    """
    model, tail = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    digest = tail[-_DIGEST_HEX:]
    if len(data) <= CHECKSUM_BYTES or tail[:-_DIGEST_HEX] != _entry("0" * _DIGEST_HEX)[:-_DIGEST_HEX]:
        raise IntegrityError(
            f"{name} does not end with a pocketiqa seal: it was cut, appended to or not exported by pocketiqa; "
            "fetch it again or export it with `pocketiqa export`"
        )
    actual = sha256_bytes(model)
    if digest != actual.encode():
        raise IntegrityError(
            f"{name} was altered: its seal says {digest[:12].decode('ascii', 'replace')}..., its content is "
            f"{actual[:12]}...; fetch it again or export it with `pocketiqa export`"
        )
    return actual


INPUT = "rgb"
OUTPUTS = ("score", "quality_map", "weight_map")
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class OpenedModel:
    """A model ready to run.

    Attributes:
        session: thread-safe.
        contract: what the model promises.
        digest: hex SHA-256 of the model, from its verified seal.
    """

    session: onnxruntime.InferenceSession
    contract: StudentContract
    digest: str


def read_model(path: str | Path) -> bytes:
    """The bytes of a model file.

    Raises:
        PocketiqaError: there is no such file, or it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise PocketiqaError(
            f"no model at {path}: check the path, take one that comes along ({', '.join(NAMES)}), or make one with "
            "`pocketiqa export`"
        ) from error
    except OSError as error:
        raise PocketiqaError(f"the model at {path} cannot be read ({error.strerror}): check the path") from error


def open_model(path: str | Path, threads: int = 1) -> OpenedModel:
    """Verify the seal, then load the model from the verified bytes.

    Raises:
        PocketiqaError: the file is missing, altered (``IntegrityError``), no model, or has no contract we can read.
    """
    data = read_model(path)
    digest = verify_checksum(data, str(path))
    session = start_session(data, threads, str(path))
    text = session.get_modelmeta().custom_metadata_map.get(CONTRACT_KEY)
    if text is None:
        raise PocketiqaError(f"{path} holds no student contract: export it with `pocketiqa export`")
    return OpenedModel(session, StudentContract.from_json(text), digest)


def start_session(model: bytes, threads: int, name: str) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU that leaves the other cores alone.

    Args:
        model: a serialised ONNX model.
        threads: for one run; runs may overlap.
        name: what an error calls the model.

    Raises:
        TamperedError: ONNX Runtime does not accept the bytes.
        PocketiqaError: the inputs or outputs are not those of a student.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Waiting threads sleep instead of spinning: decoding needs the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Memory plans are kept for every input size ever seen, and photographs have many.
    options.enable_mem_pattern = False
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        reason = " ".join(str(error).split())[:200]
        raise IntegrityError(f"{name} is not a model that ONNX Runtime can load: {reason}") from error
    inputs = [item.name for item in session.get_inputs()]
    outputs = [item.name for item in session.get_outputs()]
    if inputs != [INPUT] or outputs != list(OUTPUTS):
        raise PocketiqaError(
            f"{name} maps {inputs} to {outputs}, but a student maps {[INPUT]} to {list(OUTPUTS)}: "
            "export it with `pocketiqa export`"
        )
    return session
