import numpy as np
import piq
import pytest
import torch
from PIL import Image

from pseudo_labels.distort import distort, groups
from pseudo_labels.errors import PocketiqaError
from teachers.reference import METRICS, build_reference, common_scale
from teachers.reference_curves import PERFECT
from teachers.reference_knots import KNOTS
from tests.helpers.pools import photograph

PIQ = {"fsim": piq.fsim, "vif": piq.vif_p, "gmsd": piq.gmsd, "haarpsi": piq.haarpsi, "mdsi": piq.mdsi}


def noisy(clean: np.ndarray, deviation: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(clean + rng.normal(0, deviation, clean.shape), 0, 255).astype(np.uint8)


def scores(pairs: list[tuple[np.ndarray, np.ndarray]], **options: object) -> torch.Tensor:
    teacher = build_reference(**options)  # type: ignore[arg-type]
    return teacher([teacher.preprocess(*pair) for pair in pairs]).score


def batched(rgb: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("name", list(METRICS))
def test_knots_run_from_the_worst_to_the_perfect_value(name: str):
    knots = np.array(KNOTS[name])
    steps = np.diff(knots)
    assert (steps > 0).all() or (steps < 0).all()
    assert knots[-1] == PERFECT[name]
    image = batched(photograph("coffee", 96))
    assert float(PIQ[name](image, image)) == pytest.approx(PERFECT[name], abs=1e-5)


@pytest.mark.parametrize("knots", [(0.2, 0.3, 0.7, 1.0), (0.9, 0.3, 0.25, 0.0)])
def test_the_common_scale_is_linear_between_knots_and_flat_beyond(knots: tuple[float, ...]):
    values = np.linspace(-0.5, 1.5, 401)
    order = np.argsort(knots)
    expected = np.interp(values, np.array(knots)[order], np.linspace(0, 1, 4)[order])
    scaled = common_scale(torch.from_numpy(values), knots)
    np.testing.assert_allclose(scaled.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("size", [96, 143])
def test_score_and_spread_are_mean_and_deviation_of_the_metrics_of_piq(size: int):
    clean = photograph("cat", size)
    distorted = noisy(clean, 12)
    single = []
    for name, metric in PIQ.items():
        knots = np.array(KNOTS[name])
        order = np.argsort(knots)
        single.append(
            np.interp(float(metric(batched(distorted), batched(clean))), knots[order], (np.arange(33) / 32)[order])
        )
    teacher = build_reference()
    output = teacher([teacher.preprocess(distorted, clean)])
    assert output.score_std is not None
    # float32 metrics; the steepest curve turns 1e-6 into 1e-4 at most.
    assert float(output.score[0]) == pytest.approx(np.mean(single), abs=1e-4)
    assert float(output.score_std[0]) == pytest.approx(np.std(single), abs=1e-4)
    np.testing.assert_allclose(output.features["metrics"][0].numpy(), single, atol=2e-4)


def test_an_image_equal_to_its_reference_is_exactly_one():
    clean = photograph("astronaut", 96)
    teacher = build_reference()
    output = teacher([teacher.preprocess(clean, clean), teacher.preprocess(noisy(clean, 9), clean)])
    assert output.score_std is not None
    assert (float(output.score[0]), float(output.score_std[0])) == (1.0, 0.0)
    assert float(output.score[1]) < 1.0


def test_what_has_nothing_in_common_with_its_reference_is_near_zero():
    clean = photograph("coffee", 128)
    chaos = np.random.default_rng(0).integers(0, 256, clean.shape, dtype=np.uint8)
    assert float(scores([(chaos, clean)])[0]) < 0.05


def test_scores_fall_with_the_level_of_every_distortion_of_kadid():
    clean = [photograph(name, 96) for name in ("coffee", "cat", "rocket")]
    rising = []
    for name in groups()["kadid"]:
        means = []
        for level in (1, 3, 5):
            pairs = [(distort(rgb, name, level, seed=1, image_id=str(i)), rgb) for i, rgb in enumerate(clean)]
            means.append(float(np.mean([float(scores([pair])[0]) for pair in pairs])))
        # Chance decides where colours shift to, so that level 5 may be a hair kinder than level 3 on three images.
        if not (means[0] > means[1] and means[0] > means[2] and means[2] < means[1] + 0.03):
            rising.append((name, means))
    assert rising == []


def test_a_score_does_not_depend_on_what_else_is_in_the_batch():
    clean = photograph("cat", 128)
    pairs = [(noisy(clean, deviation, seed), clean) for seed, deviation in enumerate((2, 8, 20, 50))]
    pairs[2:2] = [(clean, clean)]
    together, alone = scores(pairs), torch.cat([scores([pair]) for pair in pairs])
    turned = scores(pairs[::-1]).flip(0)
    # Worst case measured: 0 (each image is computed by the same operations).
    assert (together - alone).abs().max() <= 1e-6
    assert (together - turned).abs().max() <= 1e-6


def test_sizes_from_64_pixels_work_and_smaller_ones_are_refused():
    small = photograph("coffee", 200)[:64, :64]
    assert 0 < float(scores([(noisy(small, 10), small)])[0]) < 1
    with pytest.raises(PocketiqaError, match="64x63 pixels: the metrics need 64"):
        build_reference().preprocess(small[:63], small[:63])


def test_the_working_size_shrinks_both_alike_but_no_side_below_64():
    clean = photograph("coffee", 600)[:, :400]
    distorted = noisy(clean, 20)
    small = [np.asarray(Image.fromarray(rgb).resize((100, 100), Image.Resampling.BOX)) for rgb in (distorted, clean)]
    square = [rgb[:400] for rgb in (distorted, clean)]
    assert float(scores([(square[0], square[1])], max_side=100)[0]) == float(scores([(small[0], small[1])])[0])
    wide = build_reference(max_side=100).preprocess(distorted[:80], clean[:80])[0]
    assert tuple(wide.shape) == (3, 64, 320)
    untouched = build_reference(max_side=1000).preprocess(distorted, clean)[0]
    assert tuple(untouched.shape) == (3, 400, 400)


def test_a_reference_is_needed_and_must_have_the_same_size():
    clean = photograph("coffee", 96)
    with pytest.raises(PocketiqaError, match="needs the clean image"):
        build_reference().preprocess(clean, None)
    with pytest.raises(PocketiqaError, match="the image is 96x64, but its reference 90x64"):
        build_reference().preprocess(clean, clean[:, :90])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"metrics": "fsim,ssim"}, r"\['fsim', 'ssim'\]: choose one or more of fsim, vif, gmsd, haarpsi, mdsi"),
        ({"metrics": []}, r"metrics \[\]"),
        ({"metrics": ["vif", "vif"]}, "each once"),
        ({"max_side": 32}, "max_side 32: .* at least 64"),
        ({"max_side": "384"}, "max_side '384'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], named: str):
    with pytest.raises(PocketiqaError, match=named):
        build_reference(**options)  # type: ignore[arg-type]


def test_whatever_changes_scores_changes_the_stamp():
    builds = [build_reference(), build_reference(metrics="gmsd, vif"), build_reference(max_side=384)]
    assert len({teacher.stamp.digest for teacher in builds}) == 3
    assert build_reference(metrics=list(METRICS)).stamp == build_reference().stamp


def test_a_single_metric_gives_no_spread():
    clean = photograph("coffee", 96)
    teacher = build_reference(metrics="gmsd")
    assert teacher([teacher.preprocess(noisy(clean, 9), clean)]).score_std is None
