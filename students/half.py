"""Weights of an ONNX graph stored in float16 and computed with in float32: half the file, the same speed."""

import numpy as np
import onnx
from onnx import numpy_helper

_WEIGHTED = ("Conv", "Gemm", "MatMul")


def halve_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Round the weights to float16, each with a cast back to float32 before it is used; the argument stays as it is.

    ONNX Runtime casts once, while it loads the model, so the network runs as before. Biases and constants stay in
    float32: they are few, and an error in them does not average out. So do weights that float16 cannot reach.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    weights = {node.input[1] for node in model.graph.node if node.op_type in _WEIGHTED}
    casts = []
    for initializer in model.graph.initializer:
        if initializer.name in weights and _fits(initializer):
            casts.append(_halve(initializer))
    # A node must stand behind those that it depends on.
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _fits(initializer: onnx.TensorProto) -> bool:
    if initializer.data_type != onnx.TensorProto.FLOAT:
        return False
    return bool(np.abs(numpy_helper.to_array(initializer)).max(initial=0) <= np.finfo(np.float16).max)


def _halve(initializer: onnx.TensorProto) -> onnx.NodeProto:
    """Round it in place; the cast takes over its name, so that no other node changes."""
    name = initializer.name
    stored = numpy_helper.from_array(numpy_helper.to_array(initializer).astype(np.float16), f"{name}.float16")
    initializer.CopyFrom(stored)
    return onnx.helper.make_node("Cast", [stored.name], [name], f"{name}.to_float32", to=onnx.TensorProto.FLOAT)
