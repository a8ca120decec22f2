"""The examples of regions on the report: of held-out scenes, in order, and as the exported student scores them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from distill.data.split import Part, read_split
from distill.stages.context import Run
from distill.stages.evaluation import read_region_results
from distill.stages.region_examples import _EXAMPLES, CLEAN, _types, region_figures
from distill.stages.student import label_sources
from pseudo_labels.pool import Pool
from students.runtime import Scorer


@pytest.fixture(scope="module")
def twin(region_run: Run) -> dict:
    return json.loads((region_run.report / "report.json").read_text("utf-8"))["regions"]


def test_the_report_of_a_run_has_the_figures_and_the_examples(region_run: Run, twin: dict):
    results = read_region_results(region_run)
    assert (twin["part"], twin["sources"]) == (results["part"], results["sources"])
    examples = twin["examples"]
    whole = {one.name for one in label_sources(region_run)}
    assert examples["pictures"] == sum(results["sources"][name]["pictures"] for name in whole)
    assert examples["regions"] == 6 * examples["pictures"]
    page = (region_run.report / "report.html").read_text("utf-8")
    assert page.count('class="pair whole"') == sum(len(examples[name]) for name in ("worst", "best", "farthest"))
    assert "<h2>Regions</h2>" in page


def test_examples_are_ordered_and_of_one_scene_each(region_run: Run, twin: dict):
    split, sources = read_split(region_run.training), {one.name: one for one in label_sources(region_run)}
    for name, key, sign in (
        ("worst", lambda one: one["quality"], 1),
        ("best", lambda one: one["quality"], -1),
        ("farthest", lambda one: abs(one["quality"] - one["quality_label"]), -1),
    ):
        chosen = twin["examples"][name]
        values = [sign * key(one) for one in chosen]
        assert values == sorted(values)
        assert 1 <= len({one["name"] for one in chosen}) == len(chosen) <= _EXAMPLES
        for one in chosen:
            pool = sources[one["source"]].pool
            held = {ref.uri.rpartition("/")[2] for ref in pool if split.parts.get(ref.id) == Part.TEST}
            assert one["name"] in held


def test_the_worst_is_the_least_quality_that_the_runtime_gives(region_run: Run, twin: dict):
    scorer, split, qualities = Scorer(region_run.model), read_split(region_run.training), []
    for source in label_sources(region_run):
        assert source.regions is not None
        for row in source.regions.rows:
            if split.parts[source.pool[row].id] == Part.TEST:
                regions = source.regions.at(row)
                assert regions is not None
                result = scorer.score(source.pool.load(source.pool[row]), regions=list(regions.masks()))
                qualities += [one.quality for one in result.regions]
    assert twin["examples"]["worst"][0]["quality"] == pytest.approx(min(qualities))
    assert twin["examples"]["best"][0]["quality"] == pytest.approx(max(qualities))


def test_types_are_counted_by_what_the_pool_says(region_run: Run):
    sources = label_sources(region_run)
    held = [(source, row) for source in sources if source.regions is not None for row in source.regions.rows]
    # A teacher that compares was told the type: its agreement would say nothing.
    assert _types(held) == {}
    table = sources[1].regions
    assert table is not None
    table.names_types = True
    try:
        counted = _types([one for one in held if one[0] is sources[1]])
    finally:
        table.names_types = False
    (rows,) = counted.values()
    copies = sum(bool(sources[1].pool[row].distortion) for row in table.rows)
    # Untouched regions have no type in the labels, so they are in no row; the distorted one of each copy is.
    assert rows == {"white_noise": {"white_noise": copies}}
    assert CLEAN not in rows


def test_a_run_without_regions_has_no_section(tiny_run: Run):
    assert region_figures(tiny_run, Scorer(tiny_run.model), [], lambda *_: None) is None
    assert json.loads((tiny_run.report / "report.json").read_text("utf-8"))["regions"] is None
    assert "<h2>Regions</h2>" not in (tiny_run.report / "report.html").read_text("utf-8")


def test_a_picture_that_is_gone_is_left_out(region_run: Run, tmp_path: Path):
    shutil.copytree(region_run.out, tmp_path / "run")
    run = replace(region_run, out=tmp_path / "run")
    for folder in (run.synthetic, run.region_copies):
        for image in folder.rglob("*.png"):
            image.unlink()
    shown = region_figures(run, Scorer(run.model), label_sources(run), lambda *_: None)
    assert shown is not None
    # What is left are the photographs themselves, which lie elsewhere.
    left = {ref.id for ref in Pool.open(run.pool)}
    split = read_split(run.training)
    assert shown.regions == 6 * sum(split.parts[id] == Part.TEST for id in left) * 2  # both pools have them
    assert {one.distortion for one in (*shown.worst, *shown.best)} == {""}
