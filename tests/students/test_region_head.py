"""The region head: maps of their own, a score that does not move, and a file that computes them only when asked."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pseudo_labels.errors import PocketiqaError
from students.base import Normalise, score_images
from students.config import RegionHeadConfig, StudentConfig
from students.contract import CONTRACT_KEY
from students.model import PocketStudent
from students.region_head import PixelStatistics, RegionHead
from students.registry import build_student, new_student
from students.runtime import Scorer
from students.session import (
    EMBEDDING,
    OUTPUTS,
    REGION_OUTPUTS,
    score_graph,
    start_session,
    verify_checksum,
    with_checksum,
)
from tests.helpers.tiny_students import TINY, export_tiny, photographs, tiny_student

HEAD = RegionHeadConfig((1, 4, 8, 16), map_stride=8, width=8)
WITH_HEAD = replace(TINY, regions=HEAD)


def grown(file: Path) -> PocketStudent:
    """The student of a file, with a region head whose maps vary."""
    student = build_student(replace(WITH_HEAD, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)), init=file)
    assert isinstance(student, PocketStudent)
    assert student.regions is not None
    torch.manual_seed(3)
    torch.nn.init.normal_(student.regions.maps.weight, std=5.0)
    return student.eval()


@pytest.fixture(scope="module")
def grown_onnx(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("grown") / "grown.onnx", grown(tiny_onnx), region_scale="test").path


def test_the_first_weights_of_all_other_parts_are_those_without_it():
    plain, headed = new_student(TINY, seed=4).state_dict(), new_student(WITH_HEAD, seed=4).state_dict()
    assert {name for name in headed if not name.startswith("regions.")} == set(plain)
    assert all(torch.equal(headed[name], plain[name]) for name in plain)


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (96, 72)])
@pytest.mark.parametrize("pad_type", ["", "same"])
def test_maps_have_their_stride_on_any_size(size: tuple[int, int], pad_type: str):
    student = new_student(replace(WITH_HEAD, pad_type=pad_type)).eval()
    with torch.inference_mode():
        output = student(torch.zeros(2, *size, 3, dtype=torch.uint8))
    expected = tuple(side // 8 if pad_type else -(-side // 8) for side in size)
    for values in output.region_maps:
        assert tuple(values.shape) == (2, *expected)
    # A new head says the same of all.
    assert output.region_maps[0] == pytest.approx(0.5, abs=0.05)
    assert float(output.region_maps[1].min()) > 0


def test_without_a_head_regions_are_read_from_the_maps_of_the_score():
    output = score_images(tiny_student(), photographs()[:1])[0]
    assert output.region_quality_map is None
    assert output.region_maps[0] is output.quality_map
    assert (TINY.region_stride, WITH_HEAD.region_stride) == (16, 8)
    assert (TINY.feature_levels, replace(TINY, regions=RegionHeadConfig((2, 8), 8, 4)).feature_levels) == (
        (4, 8, 16, 32),
        (2, 4, 8, 16, 32),
    )


def test_a_finer_level_shows_what_a_mean_forgets():
    # Noise of mean 0 on one half: its average over the cells says nothing, its filtered strength does.
    torch.manual_seed(0)
    head = RegionHead({4: 1, 8: 1}, RegionHeadConfig((4, 8), 8, 4), (1.0, 1.0, 1.0)).train()
    torch.nn.init.normal_(head.maps.weight)
    fine = torch.zeros(1, 1, 16, 32)
    fine[..., 16:] = torch.tensor([1.0, -1.0]).repeat(8).expand(16, 16)
    maps = head({4: fine, 8: torch.zeros(1, 1, 8, 16)}, torch.zeros(1, 3, 64, 128))
    assert maps.shape == (1, 2, 8, 16)
    assert not torch.allclose(maps[..., 2:5], maps[..., 11:14])


def test_statistics_of_pixels_are_those_of_numpy():
    rgb = np.random.default_rng(5).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    std = (0.5, 0.25, 0.2)
    pixels = Normalise((0.1, 0.2, 0.3), std)(torch.from_numpy(rgb[None]))
    statistics = PixelStatistics(8, std)(pixels)[0].detach().numpy()
    assert statistics.shape == (24, 2, 3)
    luma = np.pad(rgb.astype(float) @ [0.299, 0.587, 0.114] / 255, 1, mode="edge")
    laplace = (luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]) / 4
    sampled = np.abs(laplace)[::2, ::2]
    cells = sampled.reshape(2, 4, 3, 4)
    assert statistics[0] == pytest.approx(np.log(cells.mean((1, 3)) + 0.5 / 255), abs=1e-5)
    quarters = sampled.reshape(2, 2, 2, 3, 2, 2).mean((2, 5))
    for number, extreme in ((8, quarters.min((1, 3))), (16, quarters.max((1, 3)))):
        assert statistics[number] == pytest.approx(np.log(extreme + 0.5 / 255), abs=1e-5)
    # A picture without differences is at the floor, whatever its colour.
    flat = PixelStatistics(8, std)(torch.full((1, 3, 16, 16), 0.7))
    assert flat.detach().numpy() == pytest.approx(np.log(0.5 / 255), abs=1e-4)


def test_the_score_is_the_same_bits_with_and_without(tiny_onnx: Path, grown_onnx: Path):
    plain, headed = Scorer(tiny_onnx), Scorer(grown_onnx)
    for image in photographs():
        before, after = plain.score(image), headed.score(image)
        with_regions = headed.score(image, regions=[(0, 0, 50, 50), (40, 60, 30, 20)])
        assert before.score == after.score == with_regions.score
        for name in ("quality_map", "weight_map"):
            assert np.array_equal(getattr(before, name), getattr(after, name))
            assert np.array_equal(getattr(before, name), getattr(with_regions, name))
        assert after.region_quality_map is None
        assert np.ptp(with_regions.region_quality_map) > 0.01  # type: ignore[arg-type]


def test_regions_are_read_from_their_own_maps_as_torch_computes_them(grown_onnx: Path, tiny_onnx: Path):
    image, scorer = photographs()[0], Scorer(grown_onnx)
    mask = np.zeros(image.shape[:2], bool)
    mask[40:90, 30:200] = True
    result = scorer.score(image, regions=[mask])
    expected = score_images(grown(tiny_onnx), [image])[0]
    quality, weight = result.region_quality_map, result.region_weight_map
    assert quality is not None
    assert weight is not None
    assert expected.region_quality_map is not None
    assert expected.region_weight_map is not None
    assert quality == pytest.approx(expected.region_quality_map.numpy(), abs=1e-4)
    assert weight == pytest.approx(expected.region_weight_map.numpy(), abs=1e-4)
    # One cell for 8 pixels of the resized image: counted pixel by pixel, of an image that keeps its size.
    resized = scorer.contract.preprocess.resize(image)
    height, width = image.shape[:2]
    rows = np.minimum(np.arange(height) * resized.shape[0] // height // 8, quality.shape[0] - 1)
    columns = np.minimum(np.arange(width) * resized.shape[1] // width // 8, quality.shape[1] - 1)
    of_pixel = np.ix_(rows, columns)
    inside = weight[of_pixel][mask]
    assert result.regions[0].quality == pytest.approx(np.average(quality[of_pixel][mask], weights=inside), abs=0.01)
    assert result.regions[0].importance == pytest.approx(inside.sum() / weight[of_pixel].sum(), rel=0.05)
    # Drawings show the map that the numbers come from.
    assert result.shown_map is quality
    assert scorer.map_extent(image.shape, quality.shape) == pytest.approx([side / 8 for side in resized.shape[:2]])
    assert scorer.map_extent(image.shape, result.quality_map.shape) == pytest.approx(
        [side / 16 for side in resized.shape[:2]]
    )


def test_no_node_of_the_head_runs_where_only_the_score_is_asked(grown_onnx: Path, tiny_onnx: Path):
    data = grown_onnx.read_bytes()
    cut = score_graph(data)
    assert cut is not None
    onnx.checker.check_model(onnx.load_from_string(cut))
    whole, left, plain = (onnx.load_from_string(one).graph for one in (data, cut, tiny_onnx.read_bytes()))
    kinds = [[node.op_type for node in graph.node] for graph in (whole, left, plain)]
    assert len(kinds[0]) > len(kinds[1])
    assert sorted(kinds[1]) == sorted(kinds[2])
    assert len(left.initializer) == len(plain.initializer)
    assert [one.name for one in left.output] == [*OUTPUTS, EMBEDDING]
    batch = np.random.default_rng(0).integers(0, 256, (2, 65, 97, 3), dtype=np.uint8)
    outputs = (start_session(one, 1, "m").run(list(OUTPUTS), {"rgb": batch}) for one in (data, cut))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(*outputs, strict=True))
    assert score_graph(tiny_onnx.read_bytes()) is None


def test_the_contract_states_the_head_and_older_files_open(grown_onnx: Path, tiny_onnx: Path):
    plain, headed = Scorer(tiny_onnx).contract, Scorer(grown_onnx).contract
    assert (plain.as_dict()["format"], headed.as_dict()["format"]) == (1, 2)
    assert plain.regions is None
    assert "regions" not in plain.as_dict() | plain.student
    assert headed.regions is not None
    own = sum(one.numel() for name, one in new_student(WITH_HEAD).named_parameters() if name.startswith("regions."))
    assert headed.regions["parameters"] == own == headed.parameters - plain.parameters
    assert (headed.regions["scale"], headed.regions["map_stride"], headed.region_stride) == ("test", 8, 8)
    assert headed.macs == plain.macs
    assert 0 < headed.regions["macs"] < plain.macs
    assert headed.parity is not None
    assert set(REGION_OUTPUTS) < set(headed.parity)
    assert plain.parity is not None
    assert not set(REGION_OUTPUTS) & set(plain.parity)
    assert StudentConfig.from_dict(headed.student).regions == HEAD
    assert verify_checksum(grown_onnx.read_bytes(), "m") == Scorer(grown_onnx).digest


def test_a_file_whose_contract_and_outputs_differ_is_refused(grown_onnx: Path, tiny_onnx: Path, tmp_path: Path):
    models = [onnx.load_from_string(path.read_bytes()) for path in (grown_onnx, tiny_onnx)]
    texts = [next(one.value for one in model.metadata_props if one.key == CONTRACT_KEY) for model in models]
    for number, (model, text) in enumerate(zip(models, texts[::-1], strict=True)):
        onnx.helper.set_model_props(model, {CONTRACT_KEY: text})
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(with_checksum(model.SerializeToString()))
        with pytest.raises(PocketiqaError, match="maps of regions that its contract does not state, or lacks"):
            Scorer(path)
    record = json.loads(texts[0])
    record["regions"] = {**record["regions"], "macs": "many"}
    onnx.helper.set_model_props(models[0], {CONTRACT_KEY: json.dumps(record)})
    (tmp_path / "types.onnx").write_bytes(with_checksum(models[0].SerializeToString()))
    with pytest.raises(PocketiqaError, match=r"str as regions\.macs"):
        Scorer(tmp_path / "types.onnx")


def test_a_student_goes_on_from_a_file_with_or_without_a_head(grown_onnx: Path, tiny_onnx: Path):
    colours = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    image = photographs()[1]
    again = build_student(replace(WITH_HEAD, **colours), init=grown_onnx).eval()
    first, second = (score_images(one, [image])[0] for one in (grown(tiny_onnx), again))
    for ours, theirs in zip(first.region_maps, second.region_maps, strict=True):
        assert ours.numpy() == pytest.approx(theirs.numpy(), abs=1e-5)
    without = build_student(replace(TINY, **colours), init=grown_onnx).eval()
    assert float(score_images(without, [image])[0].score) == pytest.approx(float(first.score), abs=1e-6)
    with pytest.raises(PocketiqaError, match="are not the"):
        build_student(replace(TINY, regions=replace(HEAD, width=4), **colours), init=grown_onnx)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"levels": ()}, r"regions\.levels is \[\]"),
        ({"levels": (8, 4)}, r"regions\.levels is \[8, 4\], but rising strides"),
        ({"map_stride": 32}, r"regions\.map_stride is 32, but it must be one of the levels"),
        ({"width": 1}, r"regions\.width is 1"),
        (
            {"levels": (1, 2), "map_stride": 2},
            r"regions\.map_stride is 2: with statistics of the pixels, choose at least 4",
        ),
    ],
)
def test_unfit_heads_are_refused(values: dict, message: str):
    with pytest.raises(PocketiqaError, match=message):
        RegionHeadConfig(**values)


def test_records_of_heads_are_read_strictly():
    record = WITH_HEAD.as_dict()
    assert StudentConfig.from_dict(record) == WITH_HEAD
    assert "regions" not in TINY.as_dict()
    with pytest.raises(PocketiqaError, match="lacks 'width'"):
        StudentConfig.from_dict({**record, "regions": {"levels": [8], "map_stride": 8}})
    with pytest.raises(PocketiqaError, match="a list is needed"):
        StudentConfig.from_dict({**record, "regions": {**record["regions"], "levels": 8}})


def test_threads_share_the_session_of_regions(grown_onnx: Path):
    from concurrent.futures import ThreadPoolExecutor

    scorer, image = Scorer(grown_onnx), photographs()[0]
    with ThreadPoolExecutor(4) as threads:
        results = list(
            threads.map(lambda _: scorer.score(image, regions=[(0, 0, 99, 99)]).regions[0].quality, range(8))
        )
    assert len(set(results)) == 1
    assert isinstance(scorer._opened.region_session, onnxruntime.InferenceSession)
