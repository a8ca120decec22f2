"""Students with known behaviour: functions of the pixels, and an exported file that contains one clean photograph."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pseudo_labels.images import decode, load
from students.contract import CONTRACT_KEY, StudentContract
from students.preprocess import Preprocess
from students.regions import MaskInput
from students.runtime import ImageInput, Result, Scorer
from students.session import INPUT, OUTPUTS, with_checksum

CELL_PX = 32
SIDE_PX = 128
# Loss of score for each grey level of mean error, where the error is small.
_STEEPNESS = 0.01


class Predictor(Scorer):
    """A scorer without a network: its score is a function of the decoded pixels."""

    def __init__(self, quality_of: Callable[[np.ndarray], np.ndarray]):
        """Take a function from uint8 HxWx3 to a quality map in [0, 1]; the score is its mean."""
        self._quality_of = quality_of

    def score(self, image: ImageInput, *, regions: Iterable[MaskInput] | None = None) -> Result:
        if regions is not None:
            raise NotImplementedError("a scorer for tests of whole images")
        if isinstance(image, np.ndarray):
            rgb = image
        else:
            rgb = decode(image) if isinstance(image, bytes) else load(str(image))
        quality = self._quality_of(rgb)
        return Result(float(quality.mean()), quality, np.ones_like(quality))


def knowing(clean: np.ndarray) -> Predictor:
    """Compares with the clean picture, of the same size: every prediction is right."""

    def quality_of(rgb: np.ndarray) -> np.ndarray:
        error = np.abs(rgb.astype(float) - clean).mean(axis=2)
        height, width = (side // CELL_PX for side in error.shape)
        blocks = error[: height * CELL_PX, : width * CELL_PX].reshape(height, CELL_PX, width, CELL_PX)
        return np.exp(-_STEEPNESS * blocks.mean(axis=(1, 3)))

    return Predictor(quality_of)


def constant() -> Predictor:
    """Gives every image the score 0.5."""
    return Predictor(lambda rgb: np.full((4, 4), 0.5))


def write_knowing_student(path: Path, clean: np.ndarray) -> Path:
    """An exported student that scores like ``knowing``, after it has resized every picture to 128x128 pixels."""
    preprocess = Preprocess(max_side=SIDE_PX, min_side=SIDE_PX)
    resized = preprocess.resize(clean).astype(np.float32)
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "clean"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["error"]),
        helper.make_node("Transpose", ["error"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[CELL_PX] * 2, strides=[CELL_PX] * 2),
        helper.make_node("ReduceMean", ["cells"], ["levels"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["levels", "slope"], ["exponent"]),
        helper.make_node("Exp", ["exponent"], [OUTPUTS[1]]),
        helper.make_node("ReduceMean", [OUTPUTS[1]], [OUTPUTS[0]], axes=[1, 2], keepdims=0),
        helper.make_node("Pow", [OUTPUTS[1], "zero"], [OUTPUTS[2]]),
    ]
    constants = {"clean": resized, "slope": np.float32(-_STEEPNESS), "zero": np.float32(0)}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "knowing",
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", SIDE_PX, SIDE_PX, 3])],
            [
                helper.make_tensor_value_info(OUTPUTS[0], TensorProto.FLOAT, ["batch"]),
                helper.make_tensor_value_info(OUTPUTS[1], TensorProto.FLOAT, ["batch", 4, 4]),
                helper.make_tensor_value_info(OUTPUTS[2], TensorProto.FLOAT, ["batch", 4, 4]),
            ],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    contract = StudentContract("knowing", {}, preprocess, "none", parameters=0, macs=0, code_version="0")
    helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(with_checksum(model.SerializeToString()))
    return path
