"""The table of a comparison, from given predictions: columns, cells, gains and words."""

from typing import Any

import numpy as np
import pytest

from distill.comparison.config import Comparison
from distill.comparison.table import (
    console_table,
    footing,
    gain_sentence,
    gains_of,
    header,
    headline_words,
    lines_of,
    markdown,
    rows_of,
)
from distill.evaluation.targets import Targets
from pseudo_labels.metrics.correlation import srcc
from tests.helpers.report_sample import predictions, ratings

COMPARISON = Comparison.model_validate(
    {
        "name": "small",
        "out": "out",
        "benchmark": {"ratings": "csv:r.csv"},
        "rows": [
            {"name": "one", "models": ["a"], "time": True, "parameters": 1_860_000},
            {"name": "seeds", "models": ["b", "c"]},
            {"name": "theirs", "published": {"srcc": 0.7, "images": "official split", "source": "a paper"}},
        ],
        "gains": [{"row": "seeds", "over": "one"}],
    }
)
TIMES = {"machine": "a machine", "reading": True, "rows": {"one": {"milliseconds": 9.26, "n": 57}}}


@pytest.fixture(scope="module")
def targets() -> Targets:
    return ratings(120)


@pytest.fixture(scope="module")
def result(targets: Targets) -> dict[str, Any]:
    predicted = {
        "one": [predictions("one", "onnx", targets, 0.2, 1)],
        "seeds": [predictions("seeds", "onnx", targets, 0.1, seed) for seed in (2, 3)],
    }
    return {
        "lines": lines_of(COMPARISON, predicted, targets, TIMES),
        "gains": gains_of(COMPARISON, predicted, targets),
        "headline": headline_words(targets),
        "target": {"name": targets.name},
        "resamples": 1000,
        "times": TIMES,
        "predicted": predicted,
    }


def test_columns_and_cells(result: dict[str, Any], targets: Targets):
    clean = int((~np.array(targets.near_training)).sum())
    titles = header(result["lines"])
    assert titles[:5] == ["model", "parameters", f"SRCC, {clean} clean images (95 %)", "all 120", "PLCC"]
    one, seeds, theirs = rows_of(result["lines"])
    assert (one[0], one[1], one[-1]) == ("one", "1.86 M", "9.3")
    assert seeds[0] == "seeds (2 seeds)"
    assert theirs[:4] == ["theirs (published: a paper)", "", "", "0.7 on official split"]
    assert {len(one), len(seeds), len(theirs)} == {len(titles)}


def test_figures_are_those_of_the_predictions(result: dict[str, Any], targets: Targets):
    clean = ~np.array(targets.near_training)
    expected = [srcc(one.scores[clean], targets.scores[clean]) for one in result["predicted"]["seeds"]]
    line = result["lines"][1]
    assert line["srcc"] == pytest.approx({"mean": np.mean(expected), "low": min(expected), "high": max(expected)})
    shown = f"{np.mean(expected):.3f} ({min(expected):.3f} to {max(expected):.3f} over seeds)"
    assert rows_of(result["lines"])[1][2] == shown


def test_a_gain_is_the_mean_difference_over_seeds(result: dict[str, Any]):
    (gain,) = result["gains"]
    values = {line["name"]: line["srcc"] for line in result["lines"] if "models" in line}
    assert gain["difference"] == pytest.approx(values["seeds"]["mean"] - values["one"]["mean"])
    assert gain["low"] < gain["difference"] < gain["high"]
    assert "mean of 2 seeds" in gain_sentence(gain)


def test_a_gain_without_a_value_says_why():
    assert gain_sentence({"row": "a", "over": "b", "difference": None, "reason": "no score"}).endswith(
        "a over b: no difference (no score)"
    )


def test_markdown_and_console_show_the_same(result: dict[str, Any]):
    text = markdown(result)
    assert text.count("\n| ") == 4  # the rule below the header, and three rows
    for row in rows_of(result["lines"]):
        assert "| " + " | ".join(row) + " |" in text
    assert console_table(result).row_count == 3
    assert "reading included" in footing(result)
    assert "reading" not in footing({**result, "times": {"machine": "m"}})
