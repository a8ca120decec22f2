"""Weights that a file stores in fewer bits: rounded to float16, and as the float32 that the network computes with."""

import numpy as np
import onnx
from onnx import numpy_helper

_NARROW = (onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)


def halved(tensor: onnx.TensorProto) -> tuple[onnx.TensorProto, onnx.NodeProto] | None:
    """A float32 weight in float16, and the cast to float32 that takes over its name, so that no other node changes.

    None if it is of another type, or has a value beyond float16's range. ONNX Runtime casts once, while it loads.
    """
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return None
    weight = numpy_helper.to_array(tensor)
    # Beyond 65,504 float16 is infinite. ``initial`` is for tensors without values.
    if np.abs(weight).max(initial=0) > np.finfo(np.float16).max:
        return None
    stored = numpy_helper.from_array(weight.astype(np.float16), f"{tensor.name}.float16")
    cast = onnx.helper.make_node(
        "Cast", [stored.name], [tensor.name], f"{tensor.name}.to_float32", to=onnx.TensorProto.FLOAT
    )
    return stored, cast


def widened(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every weight in float32; scores stay equal to the bit, and the argument as it is.

    ``pocketiqa export --half`` stores a weight in float16 and a cast to float32 behind it, ``--format onnx-w8`` in 8
    bits with a cast and a product, whose scales are in float16 (in float32 until November 2026). What reads weights by
    the name that an operator uses finds the result of these under that name, and here the values themselves.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    narrow = {one.name for one in model.graph.initializer if one.data_type in _NARROW}
    kept, made, used = [], {}, {one.name for one in model.graph.output}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in narrow:
            made[node.output[0]] = stored[node.input[0]].astype(np.float32)
        elif (
            node.op_type == "Mul"
            and node.input[0] in made
            and (scale := _either(node.input[1], made, stored)) is not None
        ):
            made[node.output[0]] = made[node.input[0]] * scale
        else:
            kept.append(node)
            used.update(node.input)
    # Copies: clearing the field would empty the nodes and tensors that are its own.
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    tensors = [one.SerializeToString() for one in model.graph.initializer if one.name in used]
    wide = {name: value for name, value in made.items() if name in used}
    tensors += [numpy_helper.from_array(value, name).SerializeToString() for name, value in wide.items()]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(onnx.TensorProto.FromString(one) for one in tensors)
    return model


def _either(name: str, *tables: dict[str, np.ndarray]) -> np.ndarray | None:
    return next((table[name] for table in tables if name in table), None)
