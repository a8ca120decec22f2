import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from pseudo_labels.distort import distort, groups
from pseudo_labels.errors import PocketiqaError
from teachers import reference_curves
from teachers.reference import METRICS, build_reference, common_scale
from teachers.reference_curves import LEVELS, calibration_photographs, fit_curves
from tests.helpers.campaign import WHOLE
from tests.helpers.pools import photograph, write_photographs
from tests.helpers.shared import shared_data

FAST = {name: METRICS[name] for name in ("gmsd", "haarpsi")}


def kadid(rgb: np.ndarray, name: str) -> list[np.ndarray]:
    return [distort(rgb, kind, level, seed=0, image_id=name) for kind in groups()["kadid"] for level in LEVELS]


def test_a_metric_is_spread_evenly_over_the_pool_that_its_curve_was_fitted_on():
    clean = photograph("coffee", 72)
    knots = fit_curves([("coffee", clean)], FAST)
    y = torch.from_numpy(clean.transpose(2, 0, 1).copy())[None].float() / 255
    for name, metric in FAST.items():
        x = torch.from_numpy(np.stack(kadid(clean, "coffee")).transpose(0, 3, 1, 2).copy()).float() / 255
        fractions = np.sort(common_scale(metric(x, y.expand_as(x)), knots[name]).numpy())
        # A uniform sample of 125: the distance of its distribution function from the diagonal (Kolmogorov-Smirnov).
        assert np.abs(fractions - np.arange(125) / 125).max() < 0.03
        assert len(knots[name]) == 33


def test_too_few_pairs_are_refused():
    flat = np.full((64, 64, 3), 128, np.uint8)
    with pytest.raises(PocketiqaError, match="too few or too alike to fit the curve of haarpsi"):
        fit_curves([("flat", flat)], {"haarpsi": METRICS["haarpsi"]})


@pytest.mark.skipif(not WHOLE, reason="a campaign: it copies the packages and starts a process")
def test_the_stated_command_replaces_the_module_with_the_knots_in_place(tmp_path: Path):
    """In a copy of the packages, as the command names the very module that it imports."""
    root, copy = Path(__file__).parents[2], tmp_path / "checkout"
    for package in ("pseudo_labels", "teachers"):
        shutil.copytree(root / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    write_photographs(tmp_path / "photographs", images=1, max_side=64)
    assert reference_curves.__doc__
    (stated,) = [line.split() for line in reference_curves.__doc__.splitlines() if line.startswith("    python -m")]
    words = [{"python": sys.executable, "FOLDER_WITH_KODAK": str(tmp_path / "photographs")}.get(w, w) for w in stated]
    module = copy / "teachers/reference_knots.py"
    before = module.read_text()
    subprocess.run(words, cwd=copy, check=True)
    values_of: dict[str, dict[str, tuple[float, ...]]] = {}
    exec(module.read_text(), values_of)
    assert {name: len(knots) for name, knots in values_of["KNOTS"].items()} == dict.fromkeys(METRICS, 33)
    assert module.read_text().splitlines()[:4] == before.splitlines()[:4]


def test_a_command_that_fails_leaves_the_module_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = tmp_path / "knots.py"
    module.write_text("KNOTS = {}")
    monkeypatch.setattr(sys, "argv", ["reference_curves", str(tmp_path), str(module)])
    with pytest.raises(PocketiqaError, match="0 pairs are too few or too alike"):
        reference_curves._main()
    assert module.read_text() == "KNOTS = {}"


def test_the_committed_knots_fit_the_declared_pool():
    """A sample of the calibration pool has a mean of a half on every metric."""
    folder = shared_data("kodak")
    rng = np.random.default_rng(0)
    teacher = build_reference()
    single = []
    names = rng.permutation(groups()["kadid"])
    for (name, clean), kind in zip(islice(calibration_photographs(folder), 0, 24, 2), names, strict=False):
        distorted = distort(clean, str(kind), int(rng.integers(1, 6)), seed=0, image_id=name)
        single.append(teacher([teacher.preprocess(distorted, clean)]).features["metrics"][0])
    means = torch.stack(single).mean(0)
    # Standard error of a uniform mean over 12: 0.08.
    assert ((means - 0.5).abs() < 0.25).all()
