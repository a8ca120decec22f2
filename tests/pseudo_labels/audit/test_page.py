import json
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from distill.terminal.summaries import audit_summary
from pseudo_labels.audit.page import write_audit_page
from pseudo_labels.audit.store import audit_store
from pseudo_labels.fusion.fuse import fuse
from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.fusion.report import read_fusion_report
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore
from tests.helpers.fusing import invented_pool, ratings_of, seen, teacher_store
from tests.helpers.training import texture_pool

TRUTH = np.random.default_rng(0).uniform(0.1, 0.9, 48)
NOISE = {"blue": 0.03, "green <b>": 0.05, "red": 0.1}
RULE = KeepRule(max_disagreement=0.1)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return texture_pool(tmp_path_factory.mktemp("data"), scenes=12)


def scores_of(name: str) -> np.ndarray:
    generator = np.random.default_rng(len(name))
    scores = np.clip(TRUTH + generator.normal(0, NOISE[name], len(TRUTH)), 0, 1)
    if name == "blue":
        scores[:3] = 1 - np.round(TRUTH[:3])  # contradicts the others
    if name == "red":
        scores[40:44] = np.nan
    return scores


@pytest.fixture(scope="module")
def store(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> LabelStore:
    folder = tmp_path_factory.mktemp("stores")
    parts = [teacher_store(folder / name[:4], pool, scores_of(name), name=name, shards=3).folder for name in NOISE]
    ratings = {ref.id: float(rating) for ref, rating in zip(pool, TRUTH, strict=True)}
    return fuse(parts, folder / "fused", ratings=ratings, rule=RULE)


def page_of(folder: Path, out: Path) -> str:
    write_audit_page(audit_store(folder), out)
    return out.read_text()


def text_of(html: str) -> str:
    """What a person reads, with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def section(html: str, title: str) -> str:
    """HTML from one heading to the next."""
    return re.split(r"<h[23]>", re.split(rf">{re.escape(title)}</h[23]>", html, maxsplit=1)[1])[0]


def test_the_report_holds_the_fusion_with_addresses_and_reasons(pool: Pool, store: LabelStore):
    report = audit_store(store.folder)
    assert report.ok
    assert report.warnings == []
    fusion, rows = report.fusion, store.labels().to_pylist()
    assert fusion is not None
    again = json.loads(json.dumps(report.as_dict(), allow_nan=False))["fusion"]
    assert {**again, "examples": None} == {**read_fusion_report(store.folder).as_dict(), "examples": None}
    assert set(fusion["examples"]) == {"kept", "disagreement"}
    for reason, examples in fusion["examples"].items():
        for own in examples:
            assert own["uri"] == pool[own["row"]].uri
            assert own["reason"] == rows[own["row"]]["reason"]
            assert (reason == "kept") == (own["reason"] == "")


def test_the_page_tells_how_teachers_were_joined(store: LabelStore, tmp_path: Path):
    html = page_of(store.folder, tmp_path / "page.html")
    fusion = read_fusion_report(store.folder)
    rows = text_of(section(html, "Fusion"))
    assert f"kept {fusion.kept} {fusion.kept / 48:.1%}" in rows
    dropped = fusion.dropped["disagreement"]
    assert f"dropped {dropped} {dropped / 48:.1%} the teachers disagree by more than 0.1" in rows
    teachers = text_of(section(html, "Teachers"))
    for own, calibration in zip(fusion.teachers, fusion.ensemble["calibrations"], strict=True):
        found = calibration["agreement"]
        agreement = f"{found['srcc']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
        error, method = calibration["held_out_rmse"][calibration["method"]], calibration["method"]
        line = f"{own['name']} {agreement} {error:.3f} {own['weight']:.3f} {method} {calibration['n']} {own['scored']}"
        assert line in teachers
    labelled = text_of(section(html, f"On the {fusion.labelled['n']} images with opinions that all teachers scored, "
                                     f"of {fusion.labelled['groups']} scenes"))  # fmt: skip
    assert f"fused {fusion.labelled['fused']['srcc']:.3f} [" in labelled
    assert not re.search(r"https?://|@import|url\(", html)


def test_each_two_teachers_are_drawn_against_each_other_once(store: LabelStore, tmp_path: Path):
    matrix = section(page_of(store.folder, tmp_path / "page.html"), "Teacher against teacher")
    drawn = [unescape(alt) for alt in re.findall(r'<img alt="([^"]*)"', matrix)]
    names = list(NOISE)
    expected = []
    for row in range(3):
        for column in range(row):
            first, second = scores_of(names[column]), scores_of(names[row])
            both = np.isfinite(first) & np.isfinite(second)
            rank = spearmanr(first[both], second[both]).statistic  # type: ignore[attr-defined]
            expected.append(f"{names[row]} over {names[column]}: SRCC {rank:.3f} (n={both.sum()})")
    assert drawn == expected
    assert matrix.count('class="none"') == 1  # a matrix of two columns, half of it


def test_kept_and_dropped_rows_are_shown_as_pictures(pool: Pool, store: LabelStore, tmp_path: Path):
    report = audit_store(store.folder)
    assert report.fusion is not None
    shown = section(page_of(store.folder, tmp_path / "page.html"), "Kept and dropped")
    examples = report.fusion["examples"]
    count = sum(map(len, examples.values()))
    assert 8 < count == len(re.findall(r"<img alt=\"\" src=\"data:image/jpeg;base64,[A-Za-z0-9+/=]{200,}\">", shown))
    assert shown.index("Kept, the surest") < shown.index("Dropped: the teachers disagree by more than 0.1")
    text, worst = text_of(shown), examples["disagreement"][0]
    said = ", ".join(f"{name} {score:.3f}" for name, score in zip(NOISE, worst["teachers"], strict=True))
    told = f"± {worst['score_std']:.3f} {said} {worst['reason']} {Path(pool[worst['row']].uri).name}"
    assert told in text


def test_pictures_that_cannot_be_read_are_told_and_the_page_is_written(tmp_path: Path):
    pool = invented_pool(tmp_path / "pool")  # of files that do not exist
    parts = [teacher_store(tmp_path / str(at), pool, seen(0.1, at), name=f"t{at}").folder for at in range(2)]
    store = fuse(parts, tmp_path / "fused", ratings=ratings_of(pool))
    html = page_of(store.folder, tmp_path / "page.html")
    assert section(html, "Kept and dropped").count("<figure><p>") == 8
    assert section(html, "Kept and dropped").count("no such file") == 8
    shutil.rmtree(pool.folder)
    shown = section(page_of(store.folder, tmp_path / "page.html"), "Kept and dropped")
    assert "The pool that was labelled is not to be had, so there are no pictures" in shown
    assert shown.count("<figure><figcaption>") == 8


def test_teachers_without_opinions_and_one_alone_have_their_pages(tmp_path: Path):
    pool = invented_pool(tmp_path / "pool")
    parts = [teacher_store(tmp_path / str(at), pool, seen(0.1, at), name=f"t{at}").folder for at in range(2)]
    aligned = fuse(parts, tmp_path / "aligned", calibrate="quantile")
    html = page_of(aligned.folder, tmp_path / "page.html")
    assert "t0 0.100 0.500 aligned by quantiles, without opinions 0 239" in text_of(section(html, "Teachers"))
    assert "with opinions that all teachers scored" not in html
    alone = fuse(parts[:1], tmp_path / "alone", ratings=ratings_of(pool), rule=KeepRule(min_teachers=1))
    html = page_of(alone.folder, tmp_path / "page.html")
    assert "Teacher against teacher" not in html
    assert "t0" in section(html, "Teachers")


def test_a_fusion_that_was_altered_is_not_shown_but_told(store: LabelStore, tmp_path: Path):
    folder = tmp_path / "fused"
    shutil.copytree(store.folder, folder)
    record = json.loads((folder / "fusion.json").read_text())
    for change, told in [
        ({"ensemble": {**record["report"]["ensemble"], "names": ["x", "y", "z"]}}, "fusion.json was altered or is of"),
        ({"kept": 3}, r"its report tells of 3 kept rows, the store holds \d+; run the same fuse command"),
    ]:
        (folder / "fusion.json").write_text(json.dumps({**record, "report": {**record["report"], **change}}))
        report = audit_store(folder)
        assert report.fusion is None
        assert len(report.warnings) == 1
        assert re.search(f"nothing is known of the fusion: .*{told}", report.warnings[0])
        assert "<h2>Fusion</h2>" not in page_of(folder, tmp_path / "page.html")


def test_histograms_are_those_of_the_rows_that_have_a_label(store: LabelStore):
    found, table = audit_store(store.folder).histograms, store.labels().to_pandas()
    table = table[table["status"] == "ok"]
    assert list(found) == ["score", "score_std", "confidence"]
    for name, own in found.items():
        assert own["counts"] == np.histogram(table[name], 20, (0, own["high"]))[0].tolist()
        assert sum(own["counts"]) == len(table)
    reach = found["score_std"]["high"]
    assert reach - 0.05 < table["score_std"].max() <= reach


def test_reasons_that_differ_in_numbers_only_are_counted_together(store: LabelStore):
    dropped = audit_store(store.folder).coverage["dropped"]
    count = read_fusion_report(store.folder).dropped["disagreement"]
    assert count > 1
    first = next(row for row in store.labels().to_pylist() if row["status"] == "dropped")
    assert dropped["reasons"] == [{"reason": first["reason"], "example": first["uri"], "count": count}]


def test_the_summary_names_weights_agreement_and_dropped_rows(store: LabelStore):
    lines = audit_summary(audit_store(store.folder)).splitlines()
    fusion = read_fusion_report(store.folder)
    count = fusion.dropped["disagreement"]
    assert f"  fused: {fusion.kept} rows kept; dropped: {count} for disagreement" in lines
    weights = ", ".join(f"{own['name']} {own['weight']:.2f}" for own in fusion.teachers)
    assert f"  mean weights: {weights}" in lines
    pair = fusion.pairs[-1]
    assert f"  {pair['first']} and {pair['second']}: SRCC {pair['srcc']:.3f} (n={pair['n']})" in lines
