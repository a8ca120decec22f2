"""A model file -> its verified checksum, an ONNX Runtime session and its contract, or one clear error.

The checksum is the last entry of the model's metadata and has a fixed length: the file is valid ONNX for every reader,
and is verified here before anything parses it. Both are done on bytes, as the runtime has neither onnx nor protobuf.
"""

from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from pseudo_labels.errors import IntegrityError, PocketiqaError, system_words
from pseudo_labels.files import sha256_bytes
from students.contract import CONTRACT_KEY, StudentContract
from students.shipped import NAMES

INPUT = "rgb"
OUTPUTS = ("score", "quality_map", "weight_map")
# Lowest severity that ONNX Runtime prints. Its errors are raised as well, and told in our words.
_FATAL_ONLY = 4
CHECKSUM_KEY = "pocketiqa.sha256"
_DIGEST_HEX = 64
# Field numbers of ModelProto.metadata_props and of StringStringEntryProto (onnx.proto), and protobuf's wire type.
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_LENGTH_DELIMITED = 2


@dataclass(frozen=True)
class OpenedModel:
    """A model ready to run.

    Attributes:
        session: ONNX Runtime's session; thread-safe.
        contract: preprocessing, scale, teachers, data and metrics of the model.
        digest: hex SHA-256 of the model, its verified checksum.
    """

    session: onnxruntime.InferenceSession
    contract: StudentContract
    digest: str


def open_model(path: str | Path, threads: int = 1) -> OpenedModel:
    """Verify the checksum, then load the model from the verified bytes.

    Args:
        path: model file.
        threads: number of threads for one image.

    Raises:
        PocketiqaError: the file is missing, altered (``IntegrityError``), no model, or has no contract of this version.
    """
    # Read once: the file may be replaced between a check and a second reading.
    data = read_model(path)
    digest = verify_checksum(data, str(path))
    session = start_session(data, threads, str(path))
    text = session.get_modelmeta().custom_metadata_map.get(CONTRACT_KEY)
    if text is None:
        raise PocketiqaError(f"{path} holds no student contract: export it with `pocketiqa export`")
    return OpenedModel(session, StudentContract.from_json(text), digest)


def read_model(path: str | Path) -> bytes:
    """The bytes of a model file.

    Raises:
        PocketiqaError: there is no such file, or it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise PocketiqaError(
            f"no model at {path}: check the path, take a model of the package ({', '.join(NAMES)}), or make one with "
            "`pocketiqa export`"
        ) from error
    except OSError as error:
        refused, step = system_words(error)
        raise PocketiqaError(f"the model at {path} cannot be read ({refused}): {step}") from error


def start_session(model: bytes, threads: int, name: str) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU that leaves the other cores alone.

    Args:
        model: serialised ONNX model.
        threads: number of threads of one run; runs may overlap.
        name: name of the model in an error.

    Raises:
        IntegrityError: ONNX Runtime does not accept the bytes.
        PocketiqaError: the inputs or outputs are not those of a student.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    # Waiting threads sleep in place of spinning: decoding needs the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Memory plans are kept for every input size ever seen, and photographs have many.
    options.enable_mem_pattern = False
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
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


def _field(number: int, content: bytes) -> bytes:
    """One length-delimited protobuf field; both numbers here are below 128, so each takes one byte."""
    return bytes([number << 3 | _LENGTH_DELIMITED, len(content)]) + content


def _entry(digest: str) -> bytes:
    pair = _field(_KEY, CHECKSUM_KEY.encode()) + _field(_VALUE, digest.encode())
    return _field(_METADATA_PROPS, pair)


CHECKSUM_BYTES = len(_entry("0" * _DIGEST_HEX))


def with_checksum(model: bytes) -> bytes:
    """Serialised model -> the same with its checksum at the end.

    Appending bytes suffices: protobuf joins the entries of a repeated field, wherever in the message they are.
    """
    return model + _entry(sha256_bytes(model))


def verify_checksum(data: bytes, name: str) -> str:
    """Verify the checksum of a model file.

    Args:
        data: content of the whole file.
        name: name of the file in an error.

    Returns:
        The hex SHA-256 of the model, which identifies it.

    Raises:
        IntegrityError: there is no checksum at the end, or it is not that of the bytes before it.
    """
    model, tail = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    digest = tail[-_DIGEST_HEX:]
    if len(data) <= CHECKSUM_BYTES or tail[:-_DIGEST_HEX] != _entry("0" * _DIGEST_HEX)[:-_DIGEST_HEX]:
        raise IntegrityError(
            f"{name} does not end with a pocketiqa checksum: it was cut, appended to or not exported by pocketiqa; "
            "fetch it again or export it with `pocketiqa export`"
        )
    actual = sha256_bytes(model)
    if digest != actual.encode():
        raise IntegrityError(
            f"{name} was altered: its checksum is {digest[:12].decode('ascii', 'replace')}..., that of its content is "
            f"{actual[:12]}...; fetch it again or export it with `pocketiqa export`"
        )
    return actual
