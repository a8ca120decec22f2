"""An ONNX graph -> the bytes of a student's file, its contract inside, its checksum at the end; and back."""

import onnx

from pseudo_labels.errors import PocketiqaError
from students.contract import CONTRACT_KEY, StudentContract
from students.session import start_session, verify_checksum, with_checksum


def seal(graph: onnx.ModelProto, contract: StudentContract, name: str) -> tuple[bytes, str]:
    """Serialise a graph with its contract and checksum, and try what a reader will do.

    Args:
        graph: a student's graph, left as it is.
        contract: its contract.
        name: name of the file in an error.

    Returns:
        The content of the file, and the hex SHA-256 of the model.

    Raises:
        PocketiqaError: the runtime does not accept the bytes.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    model.producer_name, model.producer_version = "pocketiqa", contract.code_version
    onnx.helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    # Full: the shapes of all nodes are inferred and compared too.
    onnx.checker.check_model(model, full_check=True)
    data = with_checksum(model.SerializeToString())
    digest = verify_checksum(data, name)
    # The bytes that will be written, with metadata and checksum, must be what the runtime accepts.
    start_session(data, 1, name)
    return data, digest


def unsealed(data: bytes, name: str) -> tuple[onnx.ModelProto, StudentContract, str]:
    """Inverse of ``seal``.

    Args:
        data: content of the file.
        name: name of the file in an error.

    Returns:
        The graph without metadata, the contract, and the hex SHA-256 of the model.

    Raises:
        PocketiqaError: it is no student (``IntegrityError``: altered).
    """
    digest = verify_checksum(data, name)
    text = start_session(data, 1, name).get_modelmeta().custom_metadata_map.get(CONTRACT_KEY)
    if text is None:
        raise PocketiqaError(f"{name} holds no student contract: export it with `pocketiqa export`")
    graph = onnx.load_from_string(data)
    del graph.metadata_props[:]
    return graph, StudentContract.from_json(text), digest
