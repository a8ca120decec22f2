import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from students.formats.agreement import inputs_of_several_sizes
from students.formats.convert import FloatStudent
from students.formats.logits import correct_logits, fit_logits
from students.session import check_graph, start_session
from tests.helpers.tiny_students import photographs


def test_the_fit_finds_stretch_and_shift_that_scores_were_made_with():
    rng = np.random.default_rng(0)
    maps = []
    for middle in np.linspace(-2, 2, 15):
        weight = rng.uniform(0.1, 1, (3, 4))
        maps.append((rng.normal(middle, 1, (3, 4)), weight / weight.sum()))
    wanted = np.array([(weight / (1 + np.exp(-1.2 * logit + 0.3))).sum() for logit, weight in maps])
    assert fit_logits(maps, wanted) == pytest.approx((1.2, -0.3), abs=1e-6)


@pytest.fixture
def moved(tiny_float: FloatStudent) -> onnx.ModelProto:
    """A student whose quality bias is wrong, so that all of its scores are too high."""
    model = onnx.ModelProto()
    model.CopyFrom(tiny_float.graph)
    bias = next(one for one in model.graph.initializer if one.name.endswith("heads.bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.array([0.5, 0], np.float32), bias.name))
    return model


def scores(model: onnx.ModelProto, batches: list[np.ndarray]) -> np.ndarray:
    session = start_session(model.SerializeToString(), 1, "m")
    return np.array([np.asarray(session.run(["score"], {"rgb": batch})[0])[0] for batch in batches])


def test_a_shift_of_all_scores_is_undone_in_the_graph(tiny_float: FloatStudent, moved: onnx.ModelProto):
    batches = inputs_of_several_sizes(photographs(), tiny_float.contract.preprocess)
    wanted = scores(tiny_float.graph, batches)
    assert np.abs(scores(moved, batches) - wanted).max() > 0.05
    assert correct_logits(moved, tiny_float.graph, batches)
    check_graph(moved.SerializeToString(), "m")
    np.testing.assert_allclose(scores(moved, batches), wanted, atol=1e-5)


def test_a_map_that_is_no_sigmoid_is_left_alone(tiny_float: FloatStudent, moved: onnx.ModelProto):
    sigmoid = next(node for node in moved.graph.node if "quality_map" in node.output)
    sigmoid.op_type = "Tanh"
    before = moved.SerializeToString()
    assert not correct_logits(moved, tiny_float.graph, [np.zeros((1, 64, 64, 3), np.uint8)])
    assert moved.SerializeToString() == before
