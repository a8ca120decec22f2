import random

import onnx
import pytest

from pseudo_labels.errors import TamperedError
from pseudo_labels.files import sha256_bytes
from students.session import SEAL_BYTES, SEAL_KEY, check_seal, seal


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


def test_sealed_file_is_valid_onnx_and_the_onnx_package_reads_the_seal(model: bytes) -> None:
    loaded = onnx.load_from_string(seal(model))
    onnx.checker.check_model(loaded, full_check=True)
    assert {entry.key: entry.value for entry in loaded.metadata_props} == {SEAL_KEY: sha256_bytes(model)}
    # A second opinion on the bytes: the onnx package writes the same entry.
    plain = onnx.load_from_string(model)
    onnx.helper.set_model_props(plain, {SEAL_KEY: sha256_bytes(model)})
    assert plain.SerializeToString() == seal(model)


def test_seal_is_the_last_bytes_and_is_accepted(model: bytes) -> None:
    sealed = seal(model)
    assert sealed[:-SEAL_BYTES] == model
    assert check_seal(sealed, "m") == sha256_bytes(model)


def test_every_changed_byte_is_noticed(model: bytes) -> None:
    sealed = seal(model)
    rng = random.Random(0)
    for at in range(len(sealed)):
        altered = bytearray(sealed)
        altered[at] ^= rng.randrange(1, 256)
        with pytest.raises(TamperedError, match=r"^photo-model "):
            check_seal(bytes(altered), "photo-model")


def test_cut_and_extended_files_are_noticed(model: bytes) -> None:
    sealed = seal(model)
    for cut in range(len(sealed)):
        with pytest.raises(TamperedError, match="does not end with a pocketiqa seal"):
            check_seal(sealed[:cut], "m")
    with pytest.raises(TamperedError, match="does not end with a pocketiqa seal"):
        check_seal(sealed + b"\0", "m")
    with pytest.raises(TamperedError, match=r"was altered: its seal says .* its content is"):
        check_seal(sealed[1:], "m")
    with pytest.raises(TamperedError, match="does not end"):
        check_seal(model, "m")
