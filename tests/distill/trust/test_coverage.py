from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.scoring.meaning_records import make_intervals
from distill.trust.coverage import coverage_lines, measure_coverage
from pseudo_labels.defaults import MAX_PIXELS
from pseudo_labels.errors import PocketiqaError
from students.runtime import Scorer
from tests.helpers.tiny_students import export_tiny
from tests.helpers.training import texture


def test_coverage_is_counted_on_the_part_that_is_named(tmp_path: Path):
    model = export_tiny(tmp_path / "tiny.onnx").path
    scorer, rng = Scorer(model), np.random.default_rng(0)
    lines = ["image,mos,group,split,subset"]
    for scene in range(60):
        rgb, part = texture(scene, 10.0, (64, 72)), "train" if scene < 40 else "test"
        Image.fromarray(rgb).save(tmp_path / f"{scene}.png")
        # The last five are rated far from their scores.
        wrong = 0.5 if scene >= 55 else 0.0
        mos = np.clip(scorer.score(rgb).score + rng.normal(0, 0.02), 0, 1)
        lines.append(f"{scene}.png,{abs(mos - wrong):.4f},{scene},{part},{'b' if scene >= 55 else 'a'}")
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(PocketiqaError, match=r"tiny comes without intervals \(tiny\.intervals\.json\)"):
        measure_coverage(f"csv:{tmp_path / 'ratings.csv'}", model=str(model))
    record = tmp_path / "tiny.intervals.json"
    make_intervals([str(tmp_path / "ratings.csv")], record, domain="textures", model=str(model), max_pixels=MAX_PIXELS)
    rows = measure_coverage(f"csv:{tmp_path / 'ratings.csv'}", model=str(model))
    of = {(row["part"], row["level"]): row for row in rows}
    assert of["all", 95]["n"] == 20
    assert of["clean: b", 95]["coverage"]["value"] == 0.0
    assert of["clean: a", 95]["coverage"]["value"] >= 0.8
    assert of["all", 95]["coverage"]["value"] == pytest.approx(0.75 * of["clean: a", 95]["coverage"]["value"])
    lines = list(coverage_lines(rows))
    assert lines[0].startswith("80 %, all: holds 0.")
    # A record of another model is refused.
    with pytest.raises(PocketiqaError, match="is of model tiny"):
        measure_coverage(f"csv:{tmp_path / 'ratings.csv'}", model="pocket-s", record=record)
