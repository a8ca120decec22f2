import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from students.formats.agreement import inputs_of_several_sizes, measure_agreement
from students.formats.bias import correct_biases, start_unchecked
from students.formats.convert import FloatStudent
from students.formats.int8 import nodes_in_float, quantise
from students.session import EMBEDDING, OUTPUTS, check_graph, start_session
from tests.helpers.tiny_students import photographs


@pytest.fixture(scope="module")
def batches(tiny_float: FloatStudent) -> list[np.ndarray]:
    return inputs_of_several_sizes(photographs(), tiny_float.contract.preprocess)[::3]


@pytest.fixture(scope="module")
def quantised(tiny_float: FloatStudent, batches: list[np.ndarray]) -> onnx.ModelProto:
    """With one output more than a student has today."""
    graph = onnx.ModelProto()
    graph.CopyFrom(tiny_float.graph)
    graph.graph.node.append(helper.make_node("Identity", ["weight_map"], ["importance"], "further_output"))
    graph.graph.output.append(helper.make_tensor_value_info("importance", 1, ["batch", "map_height", "map_width"]))
    seen: list[tuple[int, int]] = []
    before = graph.SerializeToString()
    result = quantise(graph, batches, lambda done, total: seen.append((done, total)))
    assert graph.SerializeToString() == before
    assert seen == [(done, len(batches)) for done in range(1, len(batches) + 1)]
    return result


def run(model: onnx.ModelProto):
    session = start_unchecked(model)
    return lambda batch: [np.asarray(one) for one in session.run(list(OUTPUTS), {"rgb": batch})]


def test_most_weights_are_int8_per_channel_and_further_outputs_stay(quantised: onnx.ModelProto):
    assert [one.name for one in quantised.graph.output] == [*OUTPUTS, "importance", EMBEDDING]
    tensors = {one.name: numpy_helper.to_array(one) for one in quantised.graph.initializer}
    makers = {node.output[0]: node for node in quantised.graph.node}
    whole = [node for node in quantised.graph.node if node.op_type == "Conv" and node.input[1] in makers]
    # The stem, the first block of two more, and the head are in float.
    assert len([node for node in quantised.graph.node if node.op_type == "Conv"]) - len(whole) in (2, 4)
    for node in whole:
        weight, scale = (tensors[name] for name in makers[node.input[1]].input[:2])
        assert weight.dtype == np.int8
        assert scale.shape == weight.shape[:1]
    used = {name for node in quantised.graph.node for name in node.input}
    assert set(tensors) <= used  # nothing is left over from folded activations


def test_scores_follow_on_other_sizes(tiny_float: FloatStudent, quantised: onnx.ModelProto):
    inputs = inputs_of_several_sizes(photographs(), tiny_float.contract.preprocess)
    agreement = measure_agreement(run(tiny_float.graph), run(quantised), inputs)
    # Weights of chance bear less than trained ones.
    assert agreement.srcc > 0.9
    assert 0 < agreement.mean < 0.02


def test_a_reader_of_students_accepts_the_graph(tiny_float: FloatStudent, batches: list[np.ndarray]):
    data = quantise(tiny_float.graph, batches[:8]).SerializeToString()
    check_graph(data, "int8")
    start_session(data, 1, "int8").run(None, {"rgb": np.zeros((2, 64, 96, 3), np.uint8)})


def test_equal_photographs_give_equal_bytes(tiny_float: FloatStudent, batches: list[np.ndarray]):
    first, second = (quantise(tiny_float.graph, batches[:8]).SerializeToString() for _ in range(2))
    assert first == second


def test_biases_bring_the_means_of_channels_back(tiny_float: FloatStudent, quantised: onnx.ModelProto):
    """Against a shift that nobody would miss: all biases of one quantised convolution moved."""
    shifted = onnx.ModelProto()
    shifted.CopyFrom(quantised)
    makers = {node.output[0]: node for node in shifted.graph.node}
    tensors = {one.name: one for one in shifted.graph.initializer}
    convolution = [node for node in shifted.graph.node if node.op_type == "Conv" and node.input[2] in makers][3]
    stored, scale = makers[convolution.input[2]].input[:2]
    moved = numpy_helper.to_array(tensors[stored]) + (0.5 / numpy_helper.to_array(tensors[scale])).astype(np.int32)
    tensors[stored].CopyFrom(numpy_helper.from_array(moved.astype(np.int32), stored))
    batch = tiny_float.contract.preprocess.resize(photographs()[0])[None]
    good, bad = (measure_one(tiny_float.graph, model, batch) for model in (quantised, shifted))
    assert bad > 3 * good
    named = onnx.ModelProto()
    named.CopyFrom(tiny_float.graph)
    correct_biases(shifted, named, [tiny_float.contract.preprocess.resize(one)[None] for one in photographs()])
    assert measure_one(tiny_float.graph, shifted, batch) < 2 * good + 0.003


def measure_one(source: onnx.ModelProto, other: onnx.ModelProto, batch: np.ndarray) -> float:
    return float(np.abs(run(source)(batch)[1] - run(other)(batch)[1]).mean())


def chain(*groups: int) -> onnx.ModelProto:
    """Convolutions one behind the other, named by number, an activation behind each."""
    nodes, tensors, last = [], [], "rgb"
    for number, group in enumerate(groups):
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], f"conv{number}", group=group))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"], f"relu{number}"))
        tensors.append(numpy_helper.from_array(np.zeros((8, 8 // group, 1, 1), np.float32), f"w{number}"))
        last = f"r{number}"
    return helper.make_model(helper.make_graph(nodes, "chain", [], [onnx.ValueInfoProto(name=last)], tensors))


def test_the_first_block_and_the_last_convolution_stay_in_float():
    kept = set(nodes_in_float(chain(1, 8, 1, 1, 1)))
    assert {name for name in kept if name.startswith("conv")} == {"conv0", "conv1", "conv2", "conv4"}
    assert {"relu0", "relu1", "relu4"} <= kept
    assert not {"relu2", "relu3"} & kept
    # Without a depthwise convolution the first block is the convolution on the pixels.
    assert {name for name in nodes_in_float(chain(1, 1, 8, 1)) if name.startswith("conv")} == {"conv0", "conv3"}
