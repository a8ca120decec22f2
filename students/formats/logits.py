"""The last correction of a network in 8 bits: its quality logits stretched and shifted so that scores fit on average.

Rounding adds noise to all features, and what adds noise lowers clean photographs and hardly moves bad ones, so that the
error depends on the score: measured on pocket-m, -0.006 on good photographs, +0.001 on a mixture.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from students.formats.bias import start_unchecked
from students.session import INPUT, OUTPUTS

_SCORE, _QUALITY, _WEIGHT = OUTPUTS
_STEPS = 8
"""Of Gauss and Newton; the scores are nearly linear in both numbers."""
_DELTA = 1e-4
_LEAST, _MOST = 0.5, 2.0
"""A stretch beyond these corrects nothing: the network is broken, and the comparison will say so."""
Floats = NDArray[np.float64]


def correct_logits(quantised: onnx.ModelProto, source: onnx.ModelProto, batches: Sequence[np.ndarray]) -> bool:
    """Insert a stretch and a shift before the sigmoid of the quality map, fitted by least squares of the scores.

    Args:
        quantised: graph, changed in place; left as it is where the quality map is not the sigmoid of something.
        source: float graph.
        batches: inputs, uint8 [1, H, W, 3] each.

    Returns:
        Whether the graph was changed.
    """
    nodes = list(quantised.graph.node)
    position = next((number for number, node in enumerate(nodes) if _QUALITY in node.output), None)
    if position is None or nodes[position].op_type != "Sigmoid":
        return False
    ours = start_unchecked(source)
    theirs = start_unchecked(quantised)
    wanted = np.array([float(np.asarray(ours.run([_SCORE], {INPUT: batch})[0])[0]) for batch in batches])
    maps = []
    for batch in batches:
        quality, weight = (np.asarray(one, np.float64) for one in theirs.run([_QUALITY, _WEIGHT], {INPUT: batch}))
        quality = np.clip(quality, 1e-9, 1 - 1e-9)
        maps.append((np.log(quality / (1 - quality)), weight / weight.sum()))
    stretch, shift = fit_logits(maps, wanted)
    if not _LEAST < stretch < _MOST:
        return False
    sigmoid = quantised.graph.node[position]
    logits = sigmoid.input[0]
    sigmoid.input[0] = "corrected_quality_logits"
    for name, value in (("quality_stretch", stretch), ("quality_shift", shift)):
        quantised.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    inserted = [
        helper.make_node("Mul", [logits, "quality_stretch"], ["stretched_quality_logits"], "stretch_quality"),
        helper.make_node("Add", ["stretched_quality_logits", "quality_shift"], [sigmoid.input[0]], "shift_quality"),
    ]
    for node in reversed(inserted):
        quantised.graph.node.insert(position, node)
    return True


def fit_logits(maps: Sequence[tuple[Floats, Floats]], wanted: Floats) -> tuple[float, float]:
    """Stretch and shift of logits with which weighted means of their sigmoids come nearest to ``wanted``.

    Args:
        maps: logits, and weights that sum to one, of any equal shape, for each image.
        wanted: score of each image.
    """

    def scores(stretch: float, shift: float) -> Floats:
        return np.array([(weight / (1 + np.exp(-stretch * logit - shift))).sum() for logit, weight in maps])

    stretch, shift = 1.0, 0.0
    for _ in range(_STEPS):
        now = scores(stretch, shift)
        slopes = [scores(stretch + _DELTA, shift) - now, scores(stretch, shift + _DELTA) - now]
        change, *_ = np.linalg.lstsq(np.stack(slopes, axis=1) / _DELTA, wanted - now, rcond=None)
        stretch, shift = stretch + float(change[0]), shift + float(change[1])
    return stretch, shift
