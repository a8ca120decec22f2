import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import sha256_bytes
from students.session import (
    CHECKSUM_BYTES,
    CHECKSUM_KEY,
    OPERATORS,
    check_graph,
    read_model,
    start_session,
    verify_checksum,
    with_checksum,
)
from students.shipped import NAMES, model_path


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


# --- what a graph may hold

SHAPE = ["batch", "height", "width", 3]


def student_like(*nodes: onnx.NodeProto, tensors: tuple[onnx.TensorProto, ...] = (), **given: Any) -> bytes:
    """The smallest graph that maps what a student maps, with further nodes and tensors."""
    value, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    last = [
        onnx.helper.make_node("Cast", ["rgb"], ["float"], to=types.FLOAT),
        onnx.helper.make_node("ReduceMean", ["float"], ["score"], axes=[1, 2, 3], keepdims=0),
        onnx.helper.make_node("ReduceMean", ["float"], ["quality_map"], axes=[3], keepdims=0),
        onnx.helper.make_node("Identity", ["quality_map"], ["weight_map"]),
    ]
    graph = onnx.helper.make_graph(
        [*nodes, *last],
        "g",
        given.get("inputs", [value("rgb", types.UINT8, SHAPE)]),
        given.get(
            "outputs",
            [
                value("score", types.FLOAT, ["batch"]),
                value("quality_map", types.FLOAT, ["batch", "h", "w"]),
                value("weight_map", types.FLOAT, ["batch", "h", "w"]),
            ],
        ),
        list(tensors),
    )
    opsets = [onnx.helper.make_opsetid("", 17), *given.get("opsets", [])]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def shape_of(*sides: int) -> onnx.TensorProto:
    return onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [len(sides)], sides)


def loop() -> onnx.NodeProto:
    """A loop whose condition is always true."""
    kinds = onnx.TensorProto
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["condition"], ["again"])],
        "body",
        [
            onnx.helper.make_tensor_value_info("step", kinds.INT64, []),
            onnx.helper.make_tensor_value_info("condition", kinds.BOOL, []),
        ],
        [onnx.helper.make_tensor_value_info("again", kinds.BOOL, [])],
    )
    return onnx.helper.make_node("Loop", ["", "true"], [], body=body)


def hollow(data_type: int = onnx.TensorProto.FLOAT) -> onnx.TensorProto:
    """A tensor that claims 4 GB and holds 4 bytes."""
    return onnx.TensorProto(name="hollow", dims=[1 << 15, 1 << 15], data_type=data_type, raw_data=bytes(4))


def outside() -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="w", dims=[1], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def if_inside() -> onnx.NodeProto:
    node = onnx.helper.make_node("Relu", ["float"], ["y"])
    node.attribute.append(onnx.helper.make_attribute("g", onnx.GraphProto(name="x")))
    return node


make = onnx.helper.make_node
HOSTILE = {
    "a loop": (lambda: student_like(loop()), "operator 'Loop'"),
    "a function": (
        lambda: onnx.ModelProto(
            graph=onnx.load_from_string(student_like()).graph, functions=[onnx.FunctionProto(name="f")]
        ).SerializeToString(),
        "functions or training steps",
    ),
    "a graph in an attribute": (lambda: student_like(if_inside()), "a Relu holds a graph"),
    "another domain": (lambda: student_like(make("Relu", ["a"], ["b"], domain="evil")), "operator 'Relu'"),
    "operators of others": (lambda: student_like(opsets=[onnx.helper.make_opsetid("x.y", 1)]), "operators of 'x.y'"),
    "a hollow tensor": (lambda: student_like(tensors=(hollow(),)), "claims 1073741824 elements, but the file holds at"),
    "a tensor of text": (lambda: student_like(tensors=(hollow(onnx.TensorProto.STRING),)), "an element type that"),
    "a tensor outside": (lambda: student_like(tensors=(outside(),)), "lies outside the file"),
    "a hollow constant": (lambda: student_like(make("Constant", [], ["c"], value=hollow())), "'of a Constant' claims"),
    "zeros by the gigabyte": (
        lambda: student_like(make("ConstantOfShape", ["shape"], ["c"]), tensors=(shape_of(1 << 15, 1 << 15),)),
        "a ConstantOfShape makes a tensor of more than 67108864",
    ),
    "copies by the gigabyte": (
        lambda: student_like(
            make("Constant", [], ["s"], value=shape_of(1 << 30)), make("Expand", ["float", "s"], ["c"])
        ),
        "an? Expand makes a tensor of more than",
    ),
    "too many nodes": (lambda: student_like(*[make("Relu", ["a"], ["b"])] * 20_001), "20005 nodes, above the limit"),
    "another input": (
        lambda: student_like(inputs=[onnx.helper.make_tensor_value_info("x", 2, SHAPE)]),
        r"maps \['x'\] to .*, but a student maps \['rgb'\]",
    ),
    "an input of floats": (
        lambda: student_like(inputs=[onnx.helper.make_tensor_value_info("rgb", 1, SHAPE)]),
        "other types or dimensions",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_graphs_that_no_export_writes_are_refused_unrun(what: str) -> None:
    make_model, reason = HOSTILE[what]
    with pytest.raises(PocketiqaError, match=reason) as caught:
        start_session(make_model(), 1, "m.onnx")
    assert len(str(caught.value)) < 400


def test_the_smallest_student_runs() -> None:
    session = start_session(student_like(tensors=(shape_of(1 << 26),)), 1, "m.onnx")
    score, _, _ = session.run(None, {"rgb": np.full((2, 64, 64, 3), 7, np.uint8)})
    np.testing.assert_allclose(np.asarray(score), [7, 7])


def test_bytes_that_are_no_graph_are_refused(model: bytes) -> None:
    rng = random.Random(1)
    for data in (b"", b"\x80" * 40, b"\x3a\xff\xff\xff\xff\x7f", rng.randbytes(500)):
        with pytest.raises(PocketiqaError):
            check_graph(data, "m.onnx")
    for cut in range(1, len(model)):
        with pytest.raises(PocketiqaError):
            check_graph(model[:cut], "m.onnx")


def test_shipped_models_and_every_operator_of_their_exports_are_accepted() -> None:
    for name in NAMES:
        data = read_model(model_path(name))
        check_graph(data, name)
        assert {node.op_type for node in onnx.load_from_string(data).graph.node} <= OPERATORS
    assert not OPERATORS & {"If", "Loop", "Scan", "SequenceMap", "RandomNormal", "RandomUniform", "Bernoulli"}


def test_runs_have_a_limit_of_memory() -> None:
    """A shape that is computed, so that nothing is seen in the file: in a process of its own, with a small limit."""
    code = """
import sys, numpy as np
from students import session
session._ARENA_BYTES = session._ARENA_BYTES_PER_CORE = 64 << 20
started = session.start_session(open(sys.argv[1], 'rb').read(), 1, 'm')
try: started.run(None, {'rgb': np.ones((1, 64, 64, 3), np.uint8)})
except Exception as error: print(error)
print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) >> 10)
"""
    big = onnx.helper.make_tensor("side", onnx.TensorProto.INT64, [1], [1 << 14])
    nodes = [
        make("Concat", ["side", "side", "side"], ["computed"], axis=0),
        make("Cast", ["rgb"], ["f"], to=onnx.TensorProto.FLOAT),
        make("ReduceMean", ["f"], ["one"], keepdims=0),
        make("Mul", ["computed", "batch"], ["shape2"]),
        make("Shape", ["rgb"], ["batch4"]),
        make("Slice", ["batch4", "zero", "first"], ["batch"]),
        make("Expand", ["one", "shape2"], ["large"]),
        make("ReduceSum", ["large"], ["sum"], keepdims=0),
    ]
    nodes = [nodes[4], nodes[5], nodes[0], nodes[3], nodes[1], nodes[2], nodes[6], nodes[7]]
    numbers = [onnx.helper.make_tensor(name, 7, [1], [value]) for name, value in (("zero", 0), ("first", 1))]
    data = onnx.load_from_string(student_like(*nodes, tensors=(big, *numbers)))
    data.graph.node[-4].input[0] = "with_sum"
    data.graph.node[-4].op_type = "Cast"
    data.graph.node.insert(len(nodes), make("Add", ["f", "sum"], ["with_sum"]))
    with tempfile.NamedTemporaryFile() as file:
        file.write(data.SerializeToString())
        file.flush()
        done = subprocess.run([sys.executable, "-c", code, file.name], capture_output=True, text=True, check=True)
    *error, peak = done.stdout.splitlines()
    assert "Available memory" in " ".join(error)
    assert int(peak) < 400  # MB; the tensor would have 16 TB


def test_large_model_files_are_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "m.onnx", "wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(PocketiqaError, match="1073741825 bytes, above the limit of 1073741824"):
        read_model(tmp_path / "m.onnx")
