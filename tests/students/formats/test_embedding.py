from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from pseudo_labels.errors import PocketiqaError
from students.base import score_images
from students.formats.embedding import add_embedding, with_embedding, without_embedding
from students.formats.sealing import unsealed
from students.runtime import Scorer
from students.session import EMBEDDING, OUTPUTS, read_model, start_session
from students.shipped import model_path
from tests.helpers.predictors import write_knowing_student
from tests.helpers.tiny_students import photographs, tiny_student


def test_an_export_gives_what_torch_gives(tiny_file: Path):
    scorer, student = Scorer(tiny_file), tiny_student()
    for image, expected in zip(photographs(), score_images(student, list(photographs())), strict=True):
        result = scorer.score(image)
        assert result.embedding is not None
        assert expected.embedding is not None
        width = student.config.head_width
        assert expected.embedding.shape == (width,)
        # By hand: the mean of the fused map over its cells, weighted as the score is.
        weight, features = expected.weight_map.numpy(), expected.features.numpy()
        by_hand = (features * weight).sum((1, 2)) / weight.sum()
        np.testing.assert_allclose(expected.embedding.numpy(), by_hand, rtol=1e-5)
        np.testing.assert_allclose(result.embedding[:width], by_hand, rtol=1e-3, atol=1e-4)
    parity = scorer.contract.parity
    assert parity is not None
    assert 0 < parity[EMBEDDING] <= parity["limit"]


def test_it_holds_mean_and_deviation_of_what_is_fused_and_of_the_first_convolution(tiny_file: Path):
    scorer, student, image = Scorer(tiny_file), tiny_student(), photographs()[0]
    maps: dict[str, np.ndarray] = {}

    def normalised(norm: Any, pixels: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(pixels, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)

    def keep(name: str, value: Any) -> None:
        maps[name] = value.detach().numpy()[0]

    first = next(part for part in student.backbone.modules() if isinstance(part, nn.BatchNorm2d))
    fused = student.neck.fuse.register_forward_pre_hook(lambda _, given: keep("fused", given[0]))
    behind = first.register_forward_hook(lambda norm, given, _: keep("first", normalised(norm, given[0])))
    with torch.inference_mode():
        student(torch.from_numpy(scorer.contract.preprocess.resize(image)[None]))
    fused.remove()
    behind.remove()
    result = scorer.score(image)
    assert result.embedding is not None
    # Of this backbone (SiLU) before its activation, which works on more than the map alone.
    moments = [part for one in maps.values() for part in (one.mean((1, 2)), one.std((1, 2)))]
    by_order = [moments[2], moments[3], moments[0], moments[1]] if next(iter(maps)) == "first" else moments
    expected = np.concatenate(by_order)
    got = result.embedding[student.config.head_width :]
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_an_embedding_of_an_earlier_version_gets_what_came_later():
    graph = unsealed(read_model(model_path("pocket-s")), "pocket-s")[0]
    whole = with_embedding(graph, "pocket-s")
    # As earlier versions wrote it: the weighted mean alone is the output.
    earlier = without_embedding(graph)
    earlier.graph.node.extend(node for node in whole.graph.node if node.name in _EARLIER)
    earlier.graph.initializer.extend(one for one in whole.graph.initializer if one.name.startswith("pocketiqa_"))
    next(node for node in earlier.graph.node if node.op_type == "Div" and node.name == _EARLIER[-1]).output[0] = (
        EMBEDDING
    )
    earlier.graph.output.append(whole.graph.output[-1])
    grown = add_embedding(earlier)
    assert grown.SerializeToString() == whole.SerializeToString()
    batch = np.stack([image[:128, :160] for image in photographs()])
    narrow, wide = (
        np.asarray(start_session(one.SerializeToString(), 1, "pocket-s").run([EMBEDDING], {"rgb": batch})[0])
        for one in (earlier, grown)
    )
    assert narrow.shape[1] < wide.shape[1]
    assert np.array_equal(wide[:, : narrow.shape[1]], narrow)


_EARLIER = tuple(f"pocketiqa_embedding_{part}" for part in ("weight", "weighted", "sum", "total", "mean"))


@pytest.mark.parametrize("name", ["pocket-s", "pocket-s-int8"])
def test_a_file_gains_it_and_loses_no_bit(name: str):
    bare = without_embedding(unsealed(read_model(model_path(name)), name)[0])
    onnx.checker.check_model(bare, full_check=True)
    before = bare.SerializeToString()
    grown = with_embedding(bare, name)
    assert bare.SerializeToString() == before
    assert [one.name for one in grown.graph.output] == [*(one.name for one in bare.graph.output), EMBEDDING]
    assert grown.graph.output[-1].name == EMBEDDING
    sessions = [start_session(one.SerializeToString(), 1, name) for one in (bare, grown)]
    batch = np.stack([image[:128, :160] for image in photographs()])
    ours, theirs = (session.run(list(OUTPUTS), {"rgb": batch}) for session in sessions)
    assert all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in zip(ours, theirs, strict=True))
    (embedding,) = sessions[1].run([EMBEDDING], {"rgb": batch})
    assert np.ptp(np.asarray(embedding), axis=0).max() > 0.01
    assert add_embedding(grown).SerializeToString() == grown.SerializeToString()
    assert without_embedding(grown).SerializeToString() == before


def test_a_network_without_features_is_refused(tmp_path: Path):
    path = write_knowing_student(tmp_path / "knowing.onnx", photographs()[0])
    with pytest.raises(PocketiqaError, match="it can have no embedding"):
        with_embedding(unsealed(path.read_bytes(), "knowing")[0], "knowing")
    assert Scorer(path).score(photographs()[0]).embedding is None
