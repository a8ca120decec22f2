"""Float ONNX -> the same with its weights stored in 8 bits, which are floats again before anything is computed."""

import math

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from students.formats.halves import halved

_STEPS = 127
# Ten steps of the smallest numbers of float16: from here on a scale that is rounded up is a tenth larger at most.
_LEAST_HALF = 10 * float(np.finfo(np.float16).smallest_subnormal)
_FINE = 100
# Weights of fewer values are stored in 16 bits: those of the first blocks and the depthwise ones, a twentieth of all,
# on which most of the error lies. With them in 8 bits the scores of 12 Kodak photographs by pocket-s and pocket-m of
# 2026-11-30 move by 0.0035 and 0.007 on average, so by 0.0006 and 0.003.
_FEW = 5000
# Which axis of the weight counts the output channels, by operator (ONNX operator specification).
_CHANNELS = {"Conv": 0, "MatMul": -1}


def store_in_eight_bits(graph: onnx.ModelProto, few: int = _FEW) -> onnx.ModelProto:
    """Round weights to 8 bits per output channel, those of few values to 16; the argument and biases stay as they are.

    As Cast and Mul, which ONNX Runtime computes once while it loads the model, so that the network runs as fast as
    before. DequantizeLinear would be computed in each run, at twice the time.

    Args:
        graph: float graph.
        few: weights of fewer values are stored in 16 bits.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    axes = {node.input[1]: _CHANNELS[node.op_type] for node in model.graph.node if node.op_type in _CHANNELS} | {
        node.input[1]: _gemm_axis(node) for node in model.graph.node if node.op_type == "Gemm"
    }
    before, stored = [], []
    for tensor in model.graph.initializer:
        half = halved(tensor) if _is_small(tensor, few) and tensor.name in axes else None
        if half is not None:
            stored.append(half[0])
            before.append(half[1])
            continue
        parts = _rounded(tensor, axes[tensor.name]) if tensor.name in axes else None
        if parts is None:
            stored.append(tensor)
            continue
        name, (whole, scale) = tensor.name, parts
        half = halved(scale) if numpy_helper.to_array(scale).max() >= _LEAST_HALF * _FINE else None
        stored += [whole, scale if half is None else half[0]]
        before += [] if half is None else [half[1]]
        before += [
            onnx.helper.make_node(
                "Cast", [whole.name], [f"{name}.cast"], f"{name}.to_float", to=onnx.TensorProto.FLOAT
            ),
            # The product takes over the name of the weight, so that no other node changes.
            onnx.helper.make_node("Mul", [f"{name}.cast", scale.name], [name], f"{name}.scaled"),
        ]
    # ONNX wants nodes in an order in which each comes after those it depends on.
    nodes = [*before, *model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(stored)
    return model


def _gemm_axis(node: onnx.NodeProto) -> int:
    return 0 if any(one.name == "transB" and one.i for one in node.attribute) else 1


def _is_small(tensor: onnx.TensorProto, few: int) -> bool:
    return len(tensor.dims) > 1 and 0 < math.prod(tensor.dims) < few


def _rounded(tensor: onnx.TensorProto, axis: int) -> tuple[onnx.TensorProto, onnx.TensorProto] | None:
    """The whole numbers and the scales of a weight; None if that would be no smaller, or it is not in float32.

    A scale is one of float16, no smaller than the largest weight asks for (see ``_next_half``).
    """
    if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
        return None
    weight = numpy_helper.to_array(tensor)
    axis %= weight.ndim
    others = tuple(number for number in range(weight.ndim) if number != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True) / np.float32(_STEPS)
    scale = _next_half(scale)
    # A channel of zeros stays one.
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    whole = np.clip(np.round(weight / scale), -_STEPS, _STEPS).astype(np.int8)
    if whole.nbytes + scale.nbytes >= weight.nbytes:
        return None
    return (
        numpy_helper.from_array(whole, f"{tensor.name}.int8"),
        numpy_helper.from_array(scale, f"{tensor.name}.scale"),
    )


def _next_half(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The next numbers of float16 that are not smaller; as they are where all are too large or too small for it.

    Channels that are next to nothing beside the others get steps as fine as float16 can tell.
    """
    if not _LEAST_HALF * _FINE <= scale.max() <= np.finfo(np.float16).max:
        return scale
    half = np.where(scale > 0, np.maximum(scale, _LEAST_HALF), 0).astype(np.float16)
    return np.where(half < scale, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)
