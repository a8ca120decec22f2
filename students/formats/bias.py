"""Biases of a quantised network such that the mean of each channel behind each convolution stays that of the float one.

Rounding weights moves the mean of a channel, and every later layer sees it (Nagel et al., "Data-free quantization
through weight equalization and bias correction", ICCV 2019, section 4.2; here with measured means).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from students.session import INPUT

_FATAL_ONLY = 4


def correct_biases(quantised: onnx.ModelProto, source: onnx.ModelProto, batches: Sequence[np.ndarray]) -> None:
    """Change biases in place, convolution by convolution, each with those before it corrected already.

    The quantised network is walked through once, in pieces that end with a convolution, and the maps between them are
    kept: a bias is changed, and its map with it, before anything reads that map.

    Args:
        quantised: graph whose convolutions have the names that they have in ``source``.
        source: float graph.
        batches: inputs, uint8 [1, H, W, 3] each; the maps of all are held at once.
    """
    wanted = _channel_means(source, batches)
    producers = {output: node for node in quantised.graph.node for output in node.output}
    tensors = {tensor.name: tensor for tensor in quantised.graph.initializer}
    values: list[dict[str, np.ndarray]] = [{INPUT: batch} for batch in batches]
    for nodes, kept, needed in _pieces(quantised.graph):
        made = {name for node in nodes for name in node.output}
        given = {name for node in nodes for name in node.input if name and name not in tensors} - made
        session = start_unchecked(_piece(quantised, nodes, {name: values[0][name] for name in sorted(given)}, kept))
        for value in values:
            outputs = session.run(kept, {name: value[name] for name in given})
            value.update(zip(kept, map(np.asarray, outputs), strict=True))
        last = nodes[-1]
        if last.name in wanted and len(last.input) > 2:
            name = last.output[0]
            means = np.mean([value[name].mean((0, 2, 3), dtype=np.float64) for value in values], axis=0)
            change = (wanted[last.name] - means).astype(np.float32)
            _add_to_bias(last.input[2], change, producers, tensors)
            for value in values:
                value[name] = value[name] + change[:, None, None]
        for value in values:
            for name in set(value) - needed:
                del value[name]


def _pieces(graph: onnx.GraphProto) -> Iterator[tuple[list[onnx.NodeProto], list[str], set[str]]]:
    """Nodes up to and with each convolution, what is read of their outputs later, and all that is read later.

    What follows the last convolution has no bias and is left out.
    """
    nodes = list(graph.node)
    ends = [number for number, node in enumerate(nodes, start=1) if node.op_type == "Conv"]
    outputs = {one.name for one in graph.output}
    for start, end in pairwise([0, *ends]):
        needed = {name for node in nodes[end:] for name in node.input} | outputs
        made = [name for node in nodes[start:end] for name in node.output]
        # That of the convolution in any case: its mean is wanted.
        yield nodes[start:end], [name for name in made if name in needed or name == made[-1]], needed


def _piece(
    whole: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], given: dict[str, np.ndarray], kept: Sequence[str]
) -> onnx.ModelProto:
    """A model of some nodes; the values it is given tell the types of its inputs, whose shapes stay open."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
        for name, value in given.items()
    ]
    names = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in whole.graph.initializer if tensor.name in names]
    # Outputs without a type: ONNX Runtime infers it.
    graph = helper.make_graph(nodes, "piece", inputs, [onnx.ValueInfoProto(name=name) for name in kept], tensors)
    return helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)


def start_unchecked(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session of a graph of our own making, which may be a part of a student, or have further outputs.

    What stands in 8 bits is computed in float, between rounding and its reverse: the sums are those of processors that
    multiply 8 bits without saturating, so that a file is made and judged alike on all. x86 before VNNI saturates.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _channel_means(source: onnx.ModelProto, batches: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Name of each convolution -> mean of each of its channels over all inputs, before the activation function."""
    model = onnx.ModelProto()
    model.CopyFrom(source)
    convolutions = [node for node in source.graph.node if node.op_type == "Conv"]
    outputs = [f"channel_means_{number}" for number in range(len(convolutions))]
    for node, output in zip(convolutions, outputs, strict=True):
        model.graph.node.append(helper.make_node("ReduceMean", [node.output[0]], [output], axes=[0, 2, 3], keepdims=0))
        model.graph.output.append(onnx.ValueInfoProto(name=output))
    session = start_unchecked(model)
    runs = [list(map(np.asarray, session.run(outputs, {INPUT: batch}))) for batch in batches]
    return {
        node.name: np.asarray(np.mean([run[number] for run in runs], axis=0, dtype=np.float64))
        for number, node in enumerate(convolutions)
    }


def _add_to_bias(
    name: str, change: np.ndarray, producers: dict[str, onnx.NodeProto], tensors: dict[str, TensorProto]
) -> None:
    if name in tensors:  # in float
        _replace(tensors[name], numpy_helper.to_array(tensors[name]) + change)
        return
    # In whole steps of the scale, which is that of the inputs times that of the weights: fine enough to be exact.
    stored, scale = producers[name].input[:2]
    steps = np.round(change / numpy_helper.to_array(tensors[scale])).astype(np.int64)
    limits = np.iinfo(np.int32)
    total = np.clip(numpy_helper.to_array(tensors[stored]).astype(np.int64) + steps, limits.min, limits.max)
    _replace(tensors[stored], total.astype(np.int32))


def _replace(tensor: TensorProto, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
