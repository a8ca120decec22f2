from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from distill.cli import app
from distill.stages.type_examples import CAUSES, CLEAN, LEVELS, PICTURES, TYPE_OF, TypeExamples
from distill.stages.type_fitting import (
    FALSE_ALARMS,
    confusion_of,
    confusion_table,
    f1_of,
    favour_of_none,
    fit_head,
    measure,
    summary_lines,
)
from distill.terminal.console import run_cli
from pseudo_labels.errors import PocketiqaError
from students.damage import NONE, TYPES
from students.runtime import Scorer
from tests.helpers.pools import PHOTOGRAPHS, photograph
from tests.helpers.tiny_students import export_tiny

NAMES = list(TYPE_OF)


def examples(scenes: int = 20, noise: float = 0.3, seed: int = 0) -> TypeExamples:
    """Each cause moves a number of its own, the further the higher the level; contrast that is flat or harsh one."""
    rng = np.random.default_rng(seed)
    rows, kinds, causes, levels, names = [], [], [], [], []
    for scene in range(scenes):
        for cause in NAMES:
            for level in (0,) * 5 if cause == NONE else LEVELS:
                row = rng.normal(0, noise, len(NAMES))
                if cause != NONE:
                    axis = NAMES.index("flat") if cause == "harsh" else NAMES.index(cause)
                    row[axis] += (-1 if cause == "harsh" else 1) * 0.6 * level
                rows.append(row)
                kinds.append(CLEAN if cause == NONE else cause)
                causes.append(cause)
                levels.append(level)
                names.append(str(scene))
    return TypeExamples(np.array(rows) + 5, kinds, causes, np.array(levels), names)


def test_types_and_strengths_are_found_on_scenes_of_other_folds():
    steps = []
    pictures = examples()
    head = fit_head(pictures, lambda done, total: steps.append((done, total)))
    assert steps[-1] == (16, 16)
    fitted = head.fitted
    assert fitted["macro_f1"][0] > 0.95
    assert fitted["macro_f1"][1] < fitted["macro_f1"][0] < fitted["macro_f1"][2]
    assert fitted["strength"]["srcc"] > 0.85
    assert fitted["strength"]["error"] < 0.15
    assert fitted["called_damaged"] <= FALSE_ALARMS + 0.02
    assert fitted["levels"]["1"] < fitted["levels"]["5"]
    # What the head says is what the file will say: mean and scale undo the numbers' own, and both ways are contrast.
    chances, strengths = head.judged(pictures.embeddings)
    strong = pictures.levels == 5
    named = [TYPES[at] for at in chances[strong].argmax(1)]
    assert np.mean([one == other for one, other in zip(named, np.array(pictures.types)[strong], strict=True)]) > 0.97
    harsh = np.array(pictures.causes) == "harsh"
    column = strengths[harsh & strong, TYPES.index("contrast")]
    assert column.mean() == pytest.approx(1.0, abs=0.2)
    assert "macro F1" in summary_lines(fitted)[0]


def test_numbers_that_say_nothing_are_no_better_than_chance():
    pictures = examples(10)
    rng = np.random.default_rng(1)
    blind = TypeExamples(
        rng.normal(size=pictures.embeddings.shape), pictures.kinds, pictures.causes, pictures.levels, pictures.scenes
    )
    fitted = fit_head(blind).fitted
    assert fitted["macro_f1"][0] < 0.2
    assert fitted["called_damaged"] == pytest.approx(FALSE_ALARMS, abs=0.03)


def test_f1_is_that_of_scikit_learn_where_types_are_equally_frequent():
    rng = np.random.default_rng(2)
    true = np.repeat(TYPES, 30)
    named = np.where(rng.random(300) < 0.6, true, rng.choice(TYPES, 300))
    each = f1_of(confusion_of(true.tolist(), named.tolist()))
    assert each == pytest.approx(f1_score(true, named, labels=list(TYPES), average=None))  # pyright: ignore[reportArgumentType]
    # How often a type occurs does not matter.
    double = [*range(300), *range(30)]
    assert f1_of(confusion_of(true[double].tolist(), named[double].tolist())) == pytest.approx(each)
    assert f1_of(np.zeros((10, 10))).tolist() == [0.0] * 10


def test_none_is_favoured_until_few_clean_pictures_are_called_damaged():
    rng = np.random.default_rng(3)
    chances = rng.dirichlet(np.ones(len(TYPES)), 1000)
    chances[:, TYPES.index(NONE)] *= np.exp(favour_of_none(chances))
    assert np.mean(chances.argmax(1) != TYPES.index(NONE)) == pytest.approx(FALSE_ALARMS, abs=0.002)
    sure = np.full((5, len(TYPES)), 0.01)
    sure[:, TYPES.index(NONE)] = 0.9
    assert favour_of_none(sure) == 0.0


def test_what_is_measured_is_counted():
    pictures = TypeExamples(
        np.zeros((5, 1)), [CLEAN, "jpeg", "jpeg", "darken", "darken"], [NONE, "jpeg", "jpeg", "dark", "dark"],
        np.array([0, 4, 1, 5, 5]), list("abcde"),
    )  # fmt: skip
    named = ["none", "compression", "none", "dark", "blur"]
    chances = np.array([[0.9 * (one == name) for one in TYPES] for name in named])
    measured = measure(pictures, chances, np.full((5, len(TYPES)), 0.5))
    assert measured["called_damaged"] == 0.0
    assert measured["kinds"] == {CLEAN: [1.0, ""], "jpeg": [1.0, ""], "darken": [0.5, "blur"]}
    assert measured["f1"]["compression"] == 1.0
    assert measured["f1"]["dark"] == pytest.approx(2 / 3, abs=1e-4)
    assert measured["strength"]["error"] == pytest.approx((0.3 + 0.5) / 2)
    assert np.array(measured["confusion"]).sum() == 4
    table = confusion_table(measured).splitlines()
    assert table[2 + TYPES.index("dark")] == "| dark | 0 | 50 | 0 | 0 | 0 | 50 | 0 | 0 | 0 | 0 |"


def test_too_few_scenes_are_refused():
    with pytest.raises(PocketiqaError, match="photographs of 5 scenes can be used, but 10 are needed"):
        fit_head(examples(5))


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


def test_the_command_writes_a_student_with_a_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, out = tmp_path / "clean", tmp_path / "typed.onnx"
    folder.mkdir()
    for scene in range(10):
        rgb = photograph(PHOTOGRAPHS[scene % len(PHOTOGRAPHS)], 96)
        rgb = np.roll(rgb, 17 * scene, axis=1) if scene % 2 else rgb[::-1, :: -1 if scene % 4 else 1]
        Image.fromarray(np.ascontiguousarray(rgb[:64, :64])).save(folder / f"{scene}.png")
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    model = export_tiny(tmp_path / "tiny.onnx").path
    words = ("fit-types", folder, "--model", model, "--out", out)
    assert pocketiqa(*words, "--confusion") == 0
    printed = capsys.readouterr()
    text = " ".join(printed.out.split())
    assert f"{10 * PICTURES} pictures of 10 scenes; levels [4, 5]: macro F1" in text
    assert "| none | blur |" in text
    assert "bad.png is left out" in " ".join(printed.err.split())
    before, after = Scorer(model), Scorer(out)
    head = after.contract.types
    assert head is not None
    assert head.fitted["model"] == before.digest
    assert set(head.fitted["kinds"]) == {CLEAN, *CAUSES}
    rgb = photograph("cat")
    ours, theirs = before.score(rgb), after.score(rgb)
    assert ours.score == theirs.score
    assert np.array_equal(ours.quality_map, theirs.quality_map)
    assert ours.damage is None
    assert theirs.damage is not None
    assert theirs.damage.type in TYPES
    # Nothing is replaced unasked; what the student saw is used again, and gives the same bytes.
    first = out.read_bytes()
    assert pocketiqa(*words) == 1
    assert "add --overwrite" in capsys.readouterr().err
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "typed.features").glob("*.npz")}
    assert len(kept) == 10
    assert pocketiqa(*words, "--overwrite") == 0
    assert out.read_bytes() == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "typed.features").glob("*.npz")} == kept
