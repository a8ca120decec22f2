"""Pools, stores, evaluations and audits in words."""

from dataclasses import replace
from pathlib import Path

import pytest

from distill.stages.context import Run
from distill.stages.evaluation import read_results
from distill.terminal.summaries import (
    audit_summary,
    coverage_lines,
    demonstration_table,
    evaluation_line,
    evaluation_tables,
    package_summary,
    pool_line,
    pool_summary,
    store_line,
    store_summary,
)
from pseudo_labels.audit.store import audit_store
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.store import LabelStore
from students.contract import StudentContract
from students.formats.agreement import Agreement
from students.formats.packages import PackageReport
from students.preprocess import Preprocess
from tests.helpers.pools import write_photographs


def test_a_pool_names_an_example_of_each_kind_of_bad_file(tmp_path: Path):
    write_photographs(tmp_path / "photographs", images=2)
    (tmp_path / "photographs" / "broken.jpg").write_bytes(b"no picture")
    pool = build_pool([str(tmp_path / "photographs")], tmp_path / "pool")
    assert pool_line(pool) == "3 images (1 not_an_image, 2 ok) of 2 scenes"
    first, second = pool_summary(pool).splitlines()
    assert first == f"{pool.folder}: {pool_line(pool)}"
    assert second.startswith(f"  not_an_image, such as {tmp_path / 'photographs' / 'broken.jpg'}: begins with")


def test_a_store_says_who_made_it_and_its_range(tiny_run: Run):
    store = LabelStore.open(tiny_run.labels)
    rows = len(Pool.open(tiny_run.synthetic))
    assert store_line(store) == f"{rows} rows ({rows} ok) by reference in 2 shards"
    assert "scores " in store_summary(store)
    assert ", mean " in store_summary(store)


def test_an_evaluation_has_a_table_a_selection(tiny_run: Run):
    result = read_results(tiny_run)["held_out"]
    assert evaluation_line(result).startswith("SRCC ")
    assert evaluation_line(result).endswith("against labels of reference")
    tables = evaluation_tables(result)
    assert [table.row_count for table in tables] == [1] * len(result["selections"])
    assert coverage_lines(result) == []


def test_models_without_a_score_for_every_image_are_named():
    covered = {"images": 5, "scored": 3, "examples": [{"reason": "cut off"}]}
    result = {"models": [{"name": "mine", "coverage": covered}]}
    assert coverage_lines(result) == ["mine has no score for 2 of 5 images: cut off"]


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ({"value": None}, "SRCC none (n=2) against x"),
        ({"value": 0.5, "low": None}, "SRCC 0.500 (n=2) against x"),
        ({"value": -0.5, "low": -0.75, "high": 0.25}, "SRCC -0.500 [-0.750, 0.250] (n=2) against x"),
    ],
)
def test_a_metric_is_shown_with_what_is_known_of_it(metric: dict, words: str):
    selections = {"all": {"metrics": {"srcc": metric}, "n": 2}}
    assert (
        evaluation_line({"models": [{"selections": selections}], "headline": "all", "target": {"name": "x"}}) == words
    )


def test_an_audit_says_what_to_do(tiny_run: Run, tmp_path: Path):
    assert "without fault" in audit_summary(audit_store(tiny_run.labels))
    copy = tmp_path / "labels"
    copy.mkdir()
    for path in tiny_run.labels.rglob("*"):
        target = copy / path.relative_to(tiny_run.labels)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(path.read_bytes())
    shard = copy / "shard-00001" / "labels.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    text = audit_summary(audit_store(copy))
    assert "NOT in order" in text
    assert "shard 1 cannot be trusted" in text
    assert "run the same label command again" in text


def test_a_demonstration_has_a_column_a_version():
    table = demonstration_table(
        [("cat", {"original": 0.7, "white_noise": 0.2}), ("dog", {"original": 0.6, "white_noise": 0.1})]
    )
    assert [column.header for column in table.columns] == ["photograph", "original", "white noise"]
    assert table.row_count == 2


def test_a_student_for_another_runtime_says_what_rounding_of_sides_costs():
    agreement = Agreement(45, ((64, 96), (96, 128)), srcc=1.0, mean=1e-7, bias=0.0, largest=4e-7, map_cell=1e-6)
    plan, rounding = Preprocess(256, multiple=32), {"images": 8, "mean": 0.0064, "bias": -0.0026, "largest": 0.015}
    contract = StudentContract(
        "mine", {}, plan, scale="none", parameters=1, macs=1, code_version="1", conversion={"rounding": rounding}
    )
    report = PackageReport(Path("out"), "ncnn", 4_200_000, contract, agreement=agreement, is_new=True)
    assert package_summary(report).splitlines() == [
        "out: ncnn, 4.20 MB, contract.json beside it",
        "  scores as the ONNX file does to 4.0e-07 on 45 images of 2 sizes",
        "  sides are multiples of 32 pixels: on 8 photographs this moves scores by 0.0064 on average, 0.015 at most",
    ]
    again = replace(report, is_new=False, contract=replace(contract, conversion={"rounding": None}))
    first, *others = package_summary(again).splitlines()
    assert first.endswith("(there already, unchanged)")
    assert len(others) == 1
