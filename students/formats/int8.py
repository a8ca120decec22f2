"""Float ONNX -> the same network in 8 bits: quantised by ONNX Runtime's tool, then corrected so that means stay.

Weights are int8 per output channel, activations uint8 per tensor between the least and greatest value that calibration
photographs reach, written as QuantizeLinear and DequantizeLinear (QDQ), which every runtime reads. The first block and
the convolutions that make the outputs stay in float.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from pseudo_labels.parallel import Progress
from students.formats.bias import correct_biases
from students.formats.embedding import add_embedding, without_embedding
from students.formats.logits import correct_logits
from students.formats.photographs import evenly
from students.session import EMBEDDING, INPUT

# Activation functions are among them so that the tool folds them into the ranges of what comes before.
_QUANTISED = ["Conv", "Add", "Clip", "Relu"]
# The correction holds maps of all its images at once; their means need no more.
_MOST_CORRECTED = 12
_BLOCK_END = 3
"""Number of convolutions in the first block."""


def quantise(
    graph: onnx.ModelProto, batches: Sequence[np.ndarray], progress: Progress | None = None
) -> onnx.ModelProto:
    """The network in 8 bits; further outputs of the graph are kept.

    Args:
        graph: float graph as an export of a student writes it, left as it is.
        batches: inputs to calibrate on, uint8 [1, H, W, 3] each, photographs as in use.
        progress: called with (done, total) images.
    """
    # The tool does not see the embedding: the network in 8 bits is the same with and without it.
    source = without_embedding(graph)
    # The tool would copy contract and checksum, which are not those of the result.
    del source.metadata_props[:]
    for number, node in enumerate(source.graph.node):
        node.name = node.name or f"node_{number}"
    # Files, for a model in memory would be moved to a file of its own, and the argument changed.
    with tempfile.TemporaryDirectory() as staged, _quiet():
        given, out = Path(staged) / "float.onnx", Path(staged) / "int8.onnx"
        onnx.save(source, given)
        quantize_static(
            given,
            out,
            _Photographs(batches, progress),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            per_channel=True,
            # Needed by x86 processors before VNNI alone, and costs more accuracy than all else.
            reduce_range=False,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=nodes_in_float(source),
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantised = onnx.load(out)
    _drop_unused(quantised)
    correct_biases(quantised, source, evenly(batches, _MOST_CORRECTED))
    correct_logits(quantised, source, batches)
    return add_embedding(quantised) if any(one.name == EMBEDDING for one in graph.graph.output) else quantised


def nodes_in_float(graph: onnx.ModelProto) -> list[str]:
    """Names of the nodes that stay in float: the first block, the last convolutions, and what comes after them.

    The first block is the convolution on the pixels and, behind it, a depthwise one with the convolution that reads it.
    Its maps are the largest of all: measured on pocket-m, it is slower in 8 bits than in float, and gives half of the
    error.
    """
    nodes = graph.graph.node
    channels = {tensor.name: tensor.dims[0] for tensor in graph.graph.initializer if tensor.dims}
    depth: dict[str, int] = {}  # tensor -> convolutions before it, up to the end of the first block
    names = []
    for node in nodes:
        before = max((depth.get(name, 0) for name in node.input), default=0)
        if before < _BLOCK_END:
            depthwise = node.op_type == "Conv" and _groups(node) == channels.get(node.input[1]) != 1
            if node.op_type == "Conv" and before == 1 and not depthwise:
                before = _BLOCK_END
            else:
                names.append(node.name)
                before += node.op_type == "Conv"
        depth.update(dict.fromkeys(node.output, before))
    behind: set[str] = set()  # tensors with a convolution behind them
    for node in reversed(nodes):
        followed = behind & set(node.output)
        if not followed:
            names.append(node.name)
        if node.op_type == "Conv" or followed:
            behind.update(node.input)
    return names


def _groups(node: onnx.NodeProto) -> int:
    return next((one.i for one in node.attribute if one.name == "group"), 1)


class _Photographs(CalibrationDataReader):
    """The inputs one by one, as the tool asks for them."""

    def __init__(self, batches: Sequence[np.ndarray], progress: Progress | None):
        self._batches, self._progress, self._given = batches, progress, 0

    def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self._progress is not None and self._given:
            self._progress(self._given, len(self._batches))
        if self._given == len(self._batches):
            return None
        self._given += 1
        return {INPUT: self._batches[self._given - 1]}


def _drop_unused(model: onnx.ModelProto) -> None:
    """Remove constants and tensors that the tool has left without a reader (limits of folded activations)."""
    used = {name for node in model.graph.node for name in node.input} | {one.name for one in model.graph.output}
    nodes = [node for node in model.graph.node if node.op_type != "Constant" or used & set(node.output)]
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensors)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tool's advice on preparations that our graphs have had, and ONNX Runtime's on unused constants."""
    onnxruntime.set_default_logger_severity(_ERRORS)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        onnxruntime.set_default_logger_severity(_WARNINGS)


# Severities of ONNX Runtime; the second is what it starts with.
_ERRORS, _WARNINGS = 3, 2
