from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import minimize

from distill.cli import app
from distill.stages.pair_examples import KINDS, LEVELS, RATED, PairExamples
from distill.stages.pair_fitting import PENALTIES, fit_head, fit_weights, measure, summary_lines
from distill.terminal.console import run_cli
from pseudo_labels.errors import PocketiqaError
from students.pairs import chances
from students.runtime import Scorer
from tests.helpers.paired import write_paired
from tests.helpers.pools import PHOTOGRAPHS, photograph


def examples(scenes: int = 40, *, told: bool, seed: int = 0) -> PairExamples:
    """Photographs whose first channel (if ``told``) says what the score misses; four of a scene, and a ladder."""
    rng = np.random.default_rng(seed)
    count = scenes * 9
    hidden, score = rng.normal(size=count), rng.normal(size=count)
    embeddings = rng.normal(3.0, 2.0, (count, 6))
    if told:
        embeddings[:, 0] = 5 + 3 * hidden
    quality = hidden + score
    pairs, names, kinds, gaps = [], [], [], []
    for scene in range(scenes):
        own = sorted(range(scene * 9, scene * 9 + 4), key=lambda one: -quality[one])
        ladder = sorted(range(scene * 9 + 4, scene * 9 + 9), key=lambda one: -quality[one])
        for first, second in pairwise(own):
            pairs.append((first, second))
            kinds.append(RATED)
            gaps.append((quality[first] - quality[second]) / 10)
        for first, second in pairwise(ladder):
            pairs.append((first, second))
            kinds.append("jpeg")
            gaps.append(np.nan)
        names += [str(scene)] * 7
    scores = 1 / (1 + np.exp(-score))
    return PairExamples(embeddings, scores, np.array(pairs), names, kinds, np.array(gaps))


def test_weights_are_those_of_a_general_optimiser():
    rng = np.random.default_rng(1)
    differences, weights = rng.normal(0.3, 1.0, (200, 4)), rng.uniform(0, 2, 200)

    def loss(values: np.ndarray) -> float:
        share = weights / weights.sum()
        return share @ np.logaddexp(0, -differences @ values) + 0.05 * (values[:3] ** 2).sum() + 5e-5 * values[3] ** 2

    expected = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    assert fit_weights(differences, weights, 0.1) == pytest.approx(expected, abs=1e-5)
    # Where every pair is ordered rightly by the score, the weights stay finite.
    differences[:, 3] = np.abs(differences[:, 3]) + 1
    assert np.isfinite(fit_weights(differences, weights, 1e6)).all()


def test_the_embedding_is_used_where_it_helps():
    told = examples(told=True)
    head = fit_head(told)
    assert head.weights[0] > 5 * max(map(abs, head.weights[1:]))
    assert head.score > 0
    # Both are known without error, on one scale: the deviation of a logit of a score is one.
    assert head.weights[0] / head.score == pytest.approx(1, abs=0.15)
    rated, copies = head.fitted["rated"], head.fitted["copies"]
    assert rated["accuracy"][0] > 0.97 > 0.8 > rated["score_accuracy"][0]
    assert rated["gain"][1] > 0.1
    assert copies["accuracy"][0] > 0.97
    assert copies["pairs"] == 160
    # What the head says is what the file will say: mean and scale undo the channel's own.
    strengths = head.strengths(told.embeddings, told.scores)
    better, worse = told.pairs.T
    assert np.mean(strengths[better] > strengths[worse]) > 0.97
    assert chances(strengths[[better[0], worse[0]]])[0, 1] > 0.5
    assert 0 < head.alike <= 1


def test_an_embedding_of_noise_is_left_alone():
    head = fit_head(examples(told=False))
    assert head.fitted["penalty"] in PENALTIES[-4:]
    assert max(map(abs, head.weights)) < 0.3 * head.score
    gain, low, high = head.fitted["rated"]["gain"]
    assert low < 0.05
    assert abs(gain) < 0.05
    assert high > -0.05


def test_what_is_measured_is_counted():
    rows = PairExamples(
        np.zeros((2, 1)), np.full(2, 0.5), np.zeros((6, 2), np.int64), list("aabbcc"),
        [RATED, RATED, RATED, "jpeg", "jpeg", "darken"], np.array([0.1, 0.099, 0.5, *[np.nan] * 3]),
    )  # fmt: skip
    measured = measure(rows, np.array([1.0, -1, -1, 1, 1, -2]), np.array([-1.0, 1, 1, 1, -1, 1]))
    assert (measured["rated"]["pairs"], measured["rated"]["scenes"]) == (2, 2)
    assert [measured["rated"][key][0] for key in ("accuracy", "score_accuracy", "gain")] == [0.5, 0.5, 0.0]
    assert measured["rated"]["accuracy"][1] is None  # too few scenes for an interval
    assert measured["kinds"] == {"darken": [0.0, 1.0], "jpeg": [1.0, 0.5]}
    assert measured["copies"]["chance"] == pytest.approx((2 * 0.7311 + 0.8808) / 3, abs=1e-4)
    assert "3 pairs of damaged copies, 2 scenes: 0.6667 ordered rightly" in summary_lines(measured)[1]


def test_too_few_scenes_are_refused():
    with pytest.raises(PocketiqaError, match="of 5 scenes, can be used: some of both and 10 scenes are needed"):
        fit_head(examples(5, told=True))


def pocketiqa(*words: object) -> int:
    return run_cli(app, [str(word) for word in words])


def test_the_command_writes_a_student_with_a_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lines = ["image,mos,group"]
    for scene in range(10):
        rgb = np.roll(photograph(PHOTOGRAPHS[scene % 4], 96), 7 * scene, axis=1)
        for number, factor in enumerate((1.0, 0.55)):
            name = f"{scene}-{number}.png"
            Image.fromarray((rgb * factor).astype(np.uint8)).save(tmp_path / name)
            # Below 0.6, so that none is damaged too; the last scene has a photograph that cannot be read.
            lines.append(f"{name},{0.5 - 0.2 * number},{scene}")
    lines.append("missing.png,0.1,9")
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    Image.fromarray(photograph("coffee", 96)).save(tmp_path / "clean.png")
    model, out = write_paired(tmp_path / "before.onnx", with_head=False), tmp_path / "after.onnx"
    words = ("fit-pairs", tmp_path / "clean.png", "--ratings", f"csv:{tmp_path / 'ratings.csv'}", "--model", model)
    assert pocketiqa(*words, "--out", out) == 0
    printed = capsys.readouterr()
    text = " ".join(printed.out.split())
    assert f"{len(KINDS) * len(LEVELS)} pairs of damaged copies, 1 scenes" in text
    assert "10 pairs of rated photographs 0.1 and more apart, 10 scenes" in text
    assert "missing.png is left out" in printed.err
    before, after = Scorer(model), Scorer(out)
    head = after.contract.pairs
    assert head is not None
    assert (head.fitted["model"], head.fitted["ratings"]) == (before.digest, ["ratings"])
    rgb = photograph("cat")
    ours, theirs = before.score(rgb), after.score(rgb)
    assert theirs.embedding is not None
    assert len(head.mean) == len(theirs.embedding)
    assert ours.score == theirs.score
    assert np.array_equal(ours.quality_map, theirs.quality_map)
    # Nothing is written where it cannot be fitted, and nothing is replaced unasked.
    assert pocketiqa(*words, "--out", out) == 1
    assert "add --overwrite" in capsys.readouterr().err
    (tmp_path / "alone.csv").write_text("image,mos,group\n0-0.png,0.5,a\n0-1.png,0.3,b\n")
    words = ("fit-pairs", tmp_path / "clean.png", "--ratings", f"csv:{tmp_path / 'alone.csv'}", "--model", model)
    assert pocketiqa(*words, "--out", tmp_path / "none.onnx") == 1
    assert "no two rated photographs" in capsys.readouterr().err
    assert not (tmp_path / "none.onnx").exists()
