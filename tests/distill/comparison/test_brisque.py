from pathlib import Path

import numpy as np
import pytest
import torch

from distill.comparison.brisque import build_brisque
from pseudo_labels.errors import PocketiqaError
from tests.helpers.shared import shared_data
from tests.helpers.tiny_students import photographs


def files() -> dict[str, Path]:
    folder = shared_data("anchors", "brisque")
    return {"model": folder / "brisque_model_live.yml", "range": folder / "brisque_range_live.yml"}


def test_it_scores_as_opencv_does_and_noise_lowers_the_score():
    cv2 = pytest.importorskip("cv2")
    teacher, paths = build_brisque(**files()), [str(path) for path in files().values()]
    image = photographs()[2]
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 25, image.shape), 0, 255).astype(np.uint8)
    value = teacher([teacher.preprocess(one, None) for one in (image, noisy)]).score
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    theirs = cv2.quality.QualityBRISQUE.create(*paths).compute(bgr)[0]
    assert float(value[0]) == pytest.approx(1 - theirs / 100, abs=1e-6)
    assert value[1] < value[0]
    assert torch.equal(value, value.clamp(0, 1))


def test_files_that_are_missing_or_something_else_are_named(tmp_path: Path):
    pytest.importorskip("cv2")
    with pytest.raises(PocketiqaError, match=r"nowhere\.yml cannot be read"):
        build_brisque(model=tmp_path / "nowhere.yml", range=tmp_path / "nowhere.yml")
    other = tmp_path / "other.yml"
    other.write_text("no model")
    with pytest.raises(PocketiqaError, match="OpenCV cannot read"):
        build_brisque(model=other, range=other)
