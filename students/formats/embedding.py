"""The output ``embedding`` of a student: what it saw of a photograph, as numbers that heads read, float32 [N, E].

It says more of a photograph than one number, at hardly any cost: heads that are fitted later read it
(``students.pairs``, ``students.damage``), without another network and without torch. It is added to a graph, of a new
export as of an old file, and no other output changes by a bit. In this order, where a student has the map:

- the mean of its fused map, weighted as its score is: C numbers, what files had before and what torch gives too;
- mean and deviation over the cells of the maps that are fused (each level reduced, at one stride);
- mean and deviation of the map of the first convolution, which sees colours, edges and noise.

A head that was fitted on fewer numbers reads those that it knows, the first ones.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pseudo_labels.errors import PocketiqaError
from students.session import EMBEDDING, INPUT, OUTPUTS, start_session

_, _, _WEIGHT = OUTPUTS
# What stands between the convolution of both maps and the weight map; each works cell by cell.
_CELL_BY_CELL = ("Add", "Cast", "Gather", "Mul", "Sigmoid", "Slice", "Squeeze")
# What stands between the fused map and those that are fused.
_FUSING = ("Clip", "Conv", "DequantizeLinear", "QuantizeLinear", "Relu")
_RECTIFIERS = ("Clip", "Relu")
_PREFIX = "pocketiqa_embedding"
_PARTS = f"{_PREFIX}_parts"
# Height and width of pictures on which the other outputs are compared: odd and oblong ones, and more than one.
_TRIED = ((1, 64, 96), (2, 97, 65), (1, 288, 201))


def add_embedding(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with a last output more; the argument stays as it is.

    One that has it already is copied, and an embedding of an earlier version gets the numbers that came later.

    Raises:
        PocketiqaError: its weight map is not made from a map of features, cell by cell.
    """
    has_all = any(node.name == _PARTS for node in graph.graph.node)
    model = graph if has_all else without_embedding(graph)
    if has_all:
        model = onnx.ModelProto()
        model.CopyFrom(graph)
        return model
    features = _features(model.graph)
    parts = [_add_weighted_mean(model.graph, features)]
    for name, feature_map in (("fused", _levels(model.graph, features)), ("first", _first_map(model.graph))):
        if feature_map is not None:
            parts += _add_moments(model.graph, feature_map, name)
    model.graph.node.append(helper.make_node("Concat", parts, [EMBEDDING], _PARTS, axis=1))
    model.graph.output.append(helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["batch", None]))
    return model


def _add_weighted_mean(graph: onnx.GraphProto, features: str) -> str:
    """Append the nodes of the mean of a map over its cells, weighted by the weight map; its name."""

    def name(part: str) -> str:
        return f"{_PREFIX}_{part}"

    cells, channel, mean = name("cells"), name("channel"), name("mean")
    graph.initializer.extend(
        [numpy_helper.from_array(np.array([2, 3]), cells), numpy_helper.from_array(np.array([1]), channel)]
    )
    graph.node.extend(
        [
            helper.make_node("Unsqueeze", [_WEIGHT, channel], [name("weight")], name("weight")),
            helper.make_node("Mul", [features, name("weight")], [name("weighted")], name("weighted")),
            helper.make_node("ReduceSum", [name("weighted"), cells], [name("sum")], name("sum"), keepdims=0),
            helper.make_node("ReduceSum", [name("weight"), cells], [name("total")], name("total"), keepdims=0),
            helper.make_node("Div", [name("sum"), name("total")], [mean], mean),
        ]
    )
    return mean


def _add_moments(graph: onnx.GraphProto, feature_map: str, of: str) -> list[str]:
    """Append the nodes of mean and deviation of a map over its cells; their names."""

    def name(part: str) -> str:
        return f"{_PREFIX}_{of}_{part}"

    # The mean is subtracted first: the difference of two large numbers would lose small deviations.
    graph.node.extend(
        [
            helper.make_node("ReduceMean", [feature_map], [name("means")], name("means"), axes=[2, 3], keepdims=1),
            helper.make_node("Sub", [feature_map, name("means")], [name("rest")], name("rest")),
            helper.make_node("Mul", [name("rest"), name("rest")], [name("squares")], name("squares")),
            helper.make_node(
                "ReduceMean", [name("squares")], [name("variance")], name("variance"), axes=[2, 3], keepdims=0
            ),
            helper.make_node("Sqrt", [name("variance")], [name("deviation")], name("deviation")),
            helper.make_node("ReduceMean", [feature_map], [name("mean")], name("mean"), axes=[2, 3], keepdims=0),
        ]
    )
    return [name("mean"), name("deviation")]


def without_embedding(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph as it was before ``add_embedding``; the argument stays as it is."""
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    parts: tuple[Any, ...] = (model.graph.node, model.graph.initializer, model.graph.output)
    for part in parts:
        kept = [one for one in part if not one.name.startswith(f"{_PREFIX}_") and one.name != EMBEDDING]
        del part[:]
        part.extend(kept)
    return model


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in graph.node for output in node.output}


def _levels(graph: onnx.GraphProto, features: str) -> str | None:
    """Name of the maps that are fused, side by side; None where there is but one."""
    makers, name = _makers(graph), features
    while (node := makers.get(name)) is not None and node.op_type in _FUSING:
        name = node.input[0]
    return None if node is None or node.op_type != "Concat" else name


def _first_map(graph: onnx.GraphProto) -> str | None:
    """Name of what the first convolution gives, rectified if it is; None if the pixels reach none."""
    reached = {INPUT}
    for node in graph.node:
        if reached.isdisjoint(node.input):
            continue
        reached.update(node.output)
        if node.op_type == "Conv":
            return next(_rectified(graph, node.output[0]), node.output[0])
    return None


def _rectified(graph: onnx.GraphProto, name: str) -> Iterator[str]:
    return (one.output[0] for one in graph.node if name in one.input and one.op_type in _RECTIFIERS)


def _features(graph: onnx.GraphProto) -> str:
    """Name of the map that the last convolution before the weight map reads."""
    makers = _makers(graph)
    waiting = [_WEIGHT]
    while waiting:
        node = makers.get(waiting.pop(0))
        if node is not None and node.op_type == "Conv":
            return node.input[0]
        if node is not None and node.op_type in _CELL_BY_CELL:
            waiting += node.input
    raise PocketiqaError("this student has no map of features that its maps are made of, so it can have no embedding")


def with_embedding(graph: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """``add_embedding`` to the graph of a file; scores and maps are compared before and after, bit by bit.

    Args:
        graph: graph of an exported student, in float or in 8 bits.
        name: name of the file in an error.

    Raises:
        PocketiqaError: there are no features, or another output changed.
    """
    grown = add_embedding(graph)
    outputs = [one.name for one in graph.graph.output if one.name != EMBEDDING]
    before, after = (_run(model, outputs, name) for model in (graph, grown))
    if any(not np.array_equal(one, other) for one, other in zip(before, after, strict=True)):
        raise PocketiqaError(
            f"{name} scores otherwise once it has an embedding, with this version of onnxruntime: export it anew with "
            "`pocketiqa export`"
        )
    return grown


def _run(graph: onnx.ModelProto, outputs: Sequence[str], name: str) -> list[np.ndarray]:
    session, pixels = start_session(graph.SerializeToString(), 1, name), np.random.default_rng(0)
    batches = [pixels.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in _TRIED]
    return [np.asarray(value) for batch in batches for value in session.run(list(outputs), {INPUT: batch})]
