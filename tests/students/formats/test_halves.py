import numpy as np
import onnx
from onnx import TensorProto

from students.export import halve_weights
from students.formats.convert import FloatStudent
from students.formats.halves import widened
from students.formats.weights8 import store_in_eight_bits
from students.session import OUTPUTS, check_graph, start_session


def test_a_halved_student_is_the_same_in_float32(tiny_float: FloatStudent):
    halved = halve_weights(tiny_float.graph)
    before = halved.SerializeToString()
    wide = widened(halved)
    assert halved.SerializeToString() == before
    check_graph(wide.SerializeToString(), "wide")
    assert TensorProto.FLOAT16 in {one.data_type for one in halved.graph.initializer}
    assert TensorProto.FLOAT16 not in {one.data_type for one in wide.graph.initializer}
    # The names that operators use are those of the float student again.
    assert {one.name for one in wide.graph.initializer} == {one.name for one in tiny_float.graph.graph.initializer}
    batch = np.random.default_rng(0).integers(0, 256, (2, 97, 65, 3), dtype=np.uint8)
    runs = [start_session(one.SerializeToString(), 1, "m").run(list(OUTPUTS), {"rgb": batch}) for one in (halved, wide)]
    for ours, theirs in zip(*runs, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_weights_in_eight_bits_are_floats_again(tiny_float: FloatStudent):
    stored = store_in_eight_bits(tiny_float.graph, few=200)
    wide = widened(stored)
    kinds = {one.data_type for one in stored.graph.initializer}
    assert {TensorProto.FLOAT16, TensorProto.INT8} <= kinds
    assert not {TensorProto.FLOAT16, TensorProto.INT8} & {one.data_type for one in wide.graph.initializer}
    assert {one.name for one in wide.graph.initializer} == {one.name for one in tiny_float.graph.graph.initializer}
    assert len(wide.graph.node) == len(tiny_float.graph.graph.node)
    batch = np.random.default_rng(0).integers(0, 256, (2, 97, 65, 3), dtype=np.uint8)
    runs = [start_session(one.SerializeToString(), 1, "m").run(list(OUTPUTS), {"rgb": batch}) for one in (stored, wide)]
    for ours, theirs in zip(*runs, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_a_float_student_stays_as_it_is(tiny_float: FloatStudent):
    assert widened(tiny_float.graph) == onnx.ModelProto.FromString(tiny_float.graph.SerializeToString())
