import random

import onnx
import pytest

from pseudo_labels.errors import IntegrityError
from pseudo_labels.files import sha256_bytes
from students.session import CHECKSUM_BYTES, CHECKSUM_KEY, verify_checksum, with_checksum


@pytest.fixture(scope="module")
def model() -> bytes:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    shape = [None, 3]
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]).SerializeToString()


def test_file_with_checksum_is_valid_onnx_and_the_onnx_package_reads_it(model: bytes) -> None:
    loaded = onnx.load_from_string(with_checksum(model))
    onnx.checker.check_model(loaded, full_check=True)
    assert {entry.key: entry.value for entry in loaded.metadata_props} == {CHECKSUM_KEY: sha256_bytes(model)}
    # Independent of our bytes: the onnx package writes the same entry.
    plain = onnx.load_from_string(model)
    onnx.helper.set_model_props(plain, {CHECKSUM_KEY: sha256_bytes(model)})
    assert plain.SerializeToString() == with_checksum(model)


def test_checksum_is_the_last_bytes_and_is_accepted(model: bytes) -> None:
    data = with_checksum(model)
    assert data[:-CHECKSUM_BYTES] == model
    assert verify_checksum(data, "m") == sha256_bytes(model)


def test_every_changed_byte_is_noticed(model: bytes) -> None:
    data = with_checksum(model)
    rng = random.Random(0)
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= rng.randrange(1, 256)
        with pytest.raises(IntegrityError, match=r"^photo-model "):
            verify_checksum(bytes(altered), "photo-model")


def test_cut_and_extended_files_are_noticed(model: bytes) -> None:
    data = with_checksum(model)
    for cut in range(len(data)):
        with pytest.raises(IntegrityError, match="does not end with a pocketiqa checksum"):
            verify_checksum(data[:cut], "m")
    with pytest.raises(IntegrityError, match="does not end with a pocketiqa checksum"):
        verify_checksum(data + b"\0", "m")
    with pytest.raises(IntegrityError, match=r"was altered: its checksum is .*, that of its content is"):
        verify_checksum(data[1:], "m")
    with pytest.raises(IntegrityError, match="does not end"):
        verify_checksum(model, "m")
