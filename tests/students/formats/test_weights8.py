import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from students.formats.convert import FloatStudent
from students.formats.halves import widened
from students.formats.weights8 import store_in_eight_bits
from students.session import check_graph, start_session


def test_weights_are_rounded_to_half_a_step_of_their_channel(tiny_float: FloatStudent):
    before = tiny_float.graph.SerializeToString()
    model = store_in_eight_bits(tiny_float.graph, few=0)
    assert tiny_float.graph.SerializeToString() == before
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    weights = {one.name: numpy_helper.to_array(one) for one in tiny_float.graph.graph.initializer}
    rounded = [name for name in weights if f"{name}.int8" in stored]
    assert len(rounded) > 10
    for name in rounded:
        scale = stored[f"{name}.scale.float16"].astype(np.float32)
        assert scale.size == weights[name].shape[0]
        assert np.abs(stored[f"{name}.int8"] * scale - weights[name]).max() <= scale.max() / 2 * 1.001
        assert np.abs(stored[f"{name}.int8"]).max(axis=(1, 2, 3)).min() >= 126  # each channel uses the whole range
    # Biases, and whatever would not get smaller, are in the file as they were.
    for name in set(weights) - set(rounded):
        np.testing.assert_array_equal(stored[name], weights[name])


def test_the_graph_is_one_that_students_have_and_runs_at_any_size(tiny_float: FloatStudent):
    data = store_in_eight_bits(tiny_float.graph, few=0).SerializeToString()
    check_graph(data, "w8")
    source = start_session(tiny_float.graph.SerializeToString(), 1, "float")
    batch = np.random.default_rng(0).integers(0, 256, (2, 97, 65, 3), dtype=np.uint8)
    rounded = start_session(data, 1, "w8")
    for ours, theirs in zip(source.run(None, {"rgb": batch}), rounded.run(None, {"rgb": batch}), strict=True):
        assert np.asarray(ours).shape == np.asarray(theirs).shape
        assert 0 < np.abs(np.asarray(ours) - np.asarray(theirs)).mean() < 0.05  # of noise, by weights of chance


def test_matrices_are_rounded_by_column_and_by_row_as_their_operator_reads_them():
    """The scale is that of an output: last axis of MatMul, first of a transposed Gemm, second of another."""
    rng = np.random.default_rng(0)
    weights = {name: (rng.normal(size=(16, 16)) * np.geomspace(0.01, 1, 16)).astype(np.float32) for name in "mgt"}
    weights["t"] = weights["t"].T.copy()
    nodes = [
        helper.make_node("MatMul", ["x", "m"], ["a"]),
        helper.make_node("Gemm", ["a", "g"], ["b"]),
        helper.make_node("Gemm", ["b", "t"], ["y"], transB=1),
    ]
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(weight, name) for name, weight in weights.items()]
    graph = helper.make_graph(nodes, "g", [value("x", 1, [1, 16])], [value("y", 1, [1, 16])], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rounded = store_in_eight_bits(model, few=0)
    scales = {one.name: one.dims for one in rounded.graph.initializer if ".scale" in one.name}
    assert {name: list(shape) for name, shape in scales.items()} == {
        "m.scale.float16": [1, 16],
        "g.scale.float16": [1, 16],
        "t.scale.float16": [16, 1],
    }
    x = rng.normal(size=(1, 16)).astype(np.float32)
    ours, theirs = (
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for one in (model, rounded)
    )
    np.testing.assert_allclose(np.asarray(theirs), np.asarray(ours), rtol=0.1, atol=0.02)


def test_a_channel_of_zeros_stays_zero():
    weight = np.zeros((4, 8, 3, 3), np.float32)
    weight[1] = 3
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", [], [], [numpy_helper.from_array(weight, "w")]))
    stored = {one.name: numpy_helper.to_array(one) for one in store_in_eight_bits(model, few=0).graph.initializer}
    np.testing.assert_allclose(stored["w.int8"] * stored["w.scale.float16"].astype(np.float32), weight, rtol=1e-3)


@pytest.mark.parametrize("size", [1e-7, 3e-4, 1e-3, 1.0, 1e4, 1e9])
def test_weights_of_any_size_keep_their_values(size: float):
    weight = np.random.default_rng(0).normal(size=(4, 8, 3, 3)).astype(np.float32) * np.float32(size)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", [], [], [numpy_helper.from_array(weight, "w")]))
    (read,) = (numpy_helper.to_array(one) for one in widened(store_in_eight_bits(model, few=0)).graph.initializer)
    np.testing.assert_allclose(read, weight, rtol=0, atol=np.abs(weight).max() / 127 / 2 * 1.1)


def test_weights_of_few_values_are_stored_in_sixteen_bits(tiny_float: FloatStudent):
    model = store_in_eight_bits(tiny_float.graph, few=2000)
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    weights = {one.name: numpy_helper.to_array(one) for one in tiny_float.graph.graph.initializer}
    halved = [name for name in weights if f"{name}.float16" in stored]
    assert halved
    assert any(f"{name}.int8" in stored for name in weights)
    for name in halved:
        assert weights[name].size < 2000
        np.testing.assert_allclose(stored[f"{name}.float16"], weights[name], rtol=1e-3, atol=1e-6)
    check_graph(model.SerializeToString(), "w8")
