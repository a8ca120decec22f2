import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from students.formats.bias import correct_biases

RNG = np.random.default_rng(0)
WEIGHTS = [RNG.normal(size=(4, 3, 3, 3)).astype(np.float32), RNG.normal(size=(2, 4, 1, 1)).astype(np.float32)]
BATCHES = [RNG.integers(0, 256, (1, 12, 9 + index, 3), dtype=np.uint8) for index in range(3)]


def network(weights: list[np.ndarray], biases: list[np.ndarray]) -> onnx.ModelProto:
    """Two convolutions in float with a rectifier between them, on pixels that are transposed and scaled."""
    tensors = {"w0": weights[0], "w1": weights[1], "b0": biases[0], "b1": biases[1], "scale": np.float32(1 / 255)}
    nodes = [
        helper.make_node("Transpose", ["rgb"], ["planes"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], "cast", to=1),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"], "mul"),
        helper.make_node("Conv", ["scaled", "w0", "b0"], ["c0"], "conv0"),
        helper.make_node("Relu", ["c0"], ["r0"], "relu0"),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], "conv1"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("rgb", 2, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info("c1", 1, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_means_behind_each_convolution_are_those_of_the_float_network():
    zeros = [np.zeros(4, np.float32), np.zeros(2, np.float32)]
    source = network(WEIGHTS, zeros)
    # Weights that are wrong by up to a tenth, as if rounded to very few bits.
    wrong = [weight + RNG.uniform(-0.1, 0.1, weight.shape).astype(np.float32) for weight in WEIGHTS]
    other = network(wrong, zeros)
    correct_biases(other, source, BATCHES)

    def means(model: onnx.ModelProto) -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        runs = [np.asarray(session.run(["c1"], {"rgb": batch})[0]).mean((0, 2, 3)) for batch in BATCHES]
        return np.mean(runs, axis=0)

    np.testing.assert_allclose(means(other), means(source), atol=1e-5)
    assert np.abs(means(network(wrong, zeros)) - means(source)).max() > 1e-2
    biases = {one.name: numpy_helper.to_array(one) for one in other.graph.initializer}
    # The first is corrected for its own weights alone: by the closed form, (W - W') times the mean of its inputs.
    expected = np.zeros(4)
    for batch in BATCHES:
        pixels = batch[0].transpose(2, 0, 1) / 255
        height, width = pixels.shape[1] - 2, pixels.shape[2] - 2
        for channel, row, column in np.ndindex(3, 3, 3):
            mean = pixels[channel, row : row + height, column : column + width].mean()
            expected += (WEIGHTS[0] - wrong[0])[:, channel, row, column] * mean / len(BATCHES)
    np.testing.assert_allclose(biases["b0"], expected, atol=1e-5)


def test_the_source_stays_as_it_is():
    zeros = [np.zeros(4, np.float32), np.zeros(2, np.float32)]
    source = network(WEIGHTS, zeros)
    before = source.SerializeToString()
    correct_biases(network(WEIGHTS, zeros), source, BATCHES)
    assert source.SerializeToString() == before
    assert pytest.approx(0) == float(np.abs(numpy_helper.to_array(source.graph.initializer[2])).max())
