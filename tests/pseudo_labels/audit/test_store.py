import json
import math
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from distill.terminal.summaries import audit_summary
from pseudo_labels.audit.page import write_audit_page
from pseudo_labels.audit.store import audit_store
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.report import read_fusion_report
from pseudo_labels.pool import Pool, write_pool
from pseudo_labels.records import ImageRef, PseudoLabel
from pseudo_labels.store import LabelStore, StoreSpec
from tests.helpers.pools import clean_pool
from tests.pseudo_labels.audit.stores import SHARDS, STAMP, honest, store_of


def test_a_good_store_has_no_warnings_and_the_right_numbers(pool: Pool, tmp_path: Path):
    scores = honest(pool)
    report = audit_store(store_of(pool, tmp_path / "labels", scores).folder)
    assert (report.ok, report.warnings, report.faults, report.missing) == (True, [], [], [])
    assert report.coverage == {"ok": {"count": len(pool), "reasons": []}}
    assert report.scores["n"] == len(pool)
    assert report.scores["mean"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert report.scores["std"] == pytest.approx(np.std(scores), abs=1e-6)
    assert report.histograms["score"]["high"] == 1
    assert report.histograms["score"]["counts"] == np.histogram(np.array(scores, np.float32), 20, (0, 1))[0].tolist()
    assert report.spread["median"] == pytest.approx(np.median([(1 - score) / 10 for score in scores]), abs=1e-6)
    assert [shard["index"] for shard in report.by_shard] == list(range(SHARDS))
    assert sum(shard["n"] for shard in report.by_shard) == len(pool)


def test_levels_and_distortions_are_read_from_the_pool(pool: Pool, tmp_path: Path):
    scores = honest(pool)
    report = audit_store(store_of(pool, tmp_path / "labels", scores).folder)
    assert set(report.distortions) == {"gaussian_blur", "jpeg", "white_noise"}
    own = [score for score, ref in zip(scores, pool, strict=True) if ref.distortion == "jpeg"]
    assert report.distortions["jpeg"]["n"] == len(own)
    assert report.distortions["jpeg"]["mean"] == pytest.approx(np.mean(own), abs=1e-6)
    assert report.distortions["jpeg"]["srcc"] < -0.95
    originals = [score for score, ref in zip(scores, pool, strict=True) if not ref.ref_id]
    assert report.levels["0"] == pytest.approx(np.mean(originals), abs=1e-6)
    values = list(report.levels.values())
    assert values == sorted(values, reverse=True)


def test_examples_are_the_extremes(pool: Pool, tmp_path: Path):
    scores = honest(pool)
    report = audit_store(store_of(pool, tmp_path / "labels", scores).folder)
    order = np.argsort(np.array(scores, np.float32), kind="stable")
    assert [example["row"] for example in report.examples["lowest"]] == order[:8].tolist()
    assert report.examples["highest"][0]["score"] == pytest.approx(max(scores))
    assert report.examples["uncertain"][0]["row"] == order[0]


def test_texts_of_all_rows_are_never_held_at_once(tmp_path: Path):
    rows, shards, long = 4000, 20, "x" * 500
    refs = [ImageRef(f"{row:024}", f"/{row}{long}.png", f"{row:064}") for row in range(rows)]
    pool = write_pool(tmp_path / "pool", refs, spec={})
    store = LabelStore.create(tmp_path / "labels", StoreSpec(STAMP, pool.digest, rows, shards), pool_path=pool.folder)
    for index in range(shards):
        own = store.shard_rows(index)
        store.write_shard(index, [PseudoLabel(refs[row].id, refs[row].uri, score=row / rows) for row in own])
    store.finish()
    tracemalloc.start()
    report = audit_store(store.folder)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (report.ok, report.examples["lowest"][1]["uri"]) == (True, refs[1].uri)
    assert peak_bytes < rows * len(long) / 2


def test_failed_rows_are_covered_with_their_reason_and_an_example(pool: Pool, tmp_path: Path):
    scores = [math.nan if row in (2, 5) else score for row, score in enumerate(honest(pool))]
    report = audit_store(store_of(pool, tmp_path / "labels", scores).folder)
    assert report.coverage["failed"] == {
        "count": 2,
        "reasons": [{"reason": "no <answer>", "count": 2, "example": pool[2].uri}],
    }
    assert report.scores["n"] == len(pool) - 2


def test_corrupt_and_missing_shards_are_named_and_the_others_still_read(pool: Pool, tmp_path: Path):
    store = store_of(pool, tmp_path / "labels", honest(pool))
    (store.shard_folder(1) / "labels.parquet").write_bytes(b"PAR1")
    store.discard(6)
    report = audit_store(store.folder)
    assert [(fault.index, fault.reason) for fault in report.faults] == [
        (1, "labels.parquet does not match its recorded SHA-256")
    ]
    assert report.missing == [6]
    assert not report.ok
    assert report.scores["n"] == len(pool) - len(store.shard_rows(1)) - len(store.shard_rows(6))
    assert "1 of 8 shards are corrupt (shard 1: labels.parquet" in report.warnings[0]
    assert report.warnings[0].endswith("run the same label command again, it relabels them")
    assert "1 of 8 shards are missing" in report.warnings[1]


def test_an_unfinished_store_is_not_ok(pool: Pool, tmp_path: Path):
    report = audit_store(store_of(pool, tmp_path / "labels", honest(pool), finish=False).folder)
    assert not report.ok
    assert report.warnings == ["the store is not finished: run the same label command again"]


def constant(pool: Pool) -> list[float]:
    return [0.5] * len(pool)


def narrow(pool: Pool) -> list[float]:
    return [0.5 + score / 100 for score in honest(pool)]


def tied(pool: Pool) -> list[float]:
    return [min(score, 0.4) for score in honest(pool)]


def reversed_scale(pool: Pool) -> list[float]:
    return [1 - score for score in honest(pool)]


def rising_noise(pool: Pool) -> list[float]:
    pairs = zip(honest(pool), pool, strict=True)
    return [0.2 + ref.level / 10 if ref.distortion == "white_noise" else score for score, ref in pairs]


def drifting(pool: Pool) -> list[float]:
    rows = range(len(pool) * 5 // SHARDS, len(pool) * 6 // SHARDS)
    return [0.02 * score if row in rows else 0.4 + 0.2 * score for row, score in enumerate(honest(pool))]


def silent(pool: Pool) -> list[float]:
    return [math.nan] * len(pool)


@pytest.mark.parametrize(
    ("scores", "warning"),
    [
        (constant, "the teacher is constant: 30 scores"),
        (narrow, "gives nearly all images the same score"),
        (tied, r"\d+% of the images have the same score, 0.4"),
        (reversed_scale, "is the teacher's scale reversed"),
        (rising_noise, "scores rise with the level of white_noise: they should fall"),
        (drifting, "mean scores of shard 5 are far from the others'"),
        (silent, "no image has a score"),
    ],
)
def test_a_teacher_that_is_no_use_is_pointed_out(pool: Pool, tmp_path: Path, scores, warning: str):
    report = audit_store(store_of(pool, tmp_path / "labels", scores(pool)).folder)
    assert report.ok
    assert any(re.search(warning, text) for text in report.warnings), report.warnings


def test_a_report_is_plain_json(pool: Pool, tmp_path: Path):
    scores = [math.nan if row == 2 else score for row, score in enumerate(honest(pool))]
    report = audit_store(store_of(pool, tmp_path / "labels", scores).folder)
    again = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert again["ok"] is True
    assert again["teacher"]["name"] == "invented"


def test_without_the_pool_levels_are_left_out_and_it_says_why(tmp_path: Path):
    pool = clean_pool(tmp_path, images=4, max_side=64)
    spec = StoreSpec(STAMP, "another pool", len(pool), 1)
    store = LabelStore.create(tmp_path / "labels", spec, pool_path=pool.folder)
    labels = [PseudoLabel(ref.id, ref.uri, score=row / 4) for row, ref in enumerate(pool)]
    store.write_shard(0, labels)
    report = audit_store(store.folder)
    assert report.levels == {}
    assert "is not the one that was labelled" in report.warnings[-1]
    (pool.folder / "pool.parquet").unlink()
    assert "levels and pictures need the pool" in audit_store(store.folder).warnings[-1]
    write_audit_page(report, tmp_path / "audit.html")
    assert "<figure>" not in (tmp_path / "audit.html").read_text()


def test_progress_counts_shards(pool: Pool, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    audit_store(store_of(pool, tmp_path / "labels", honest(pool)).folder, progress=lambda *step: seen.append(step))
    assert seen == [(done, SHARDS) for done in range(1, SHARDS + 1)]


def test_there_must_be_a_store(pool: Pool, tmp_path: Path):
    with pytest.raises(PocketiqaError, match="no labels manifest"):
        audit_store(tmp_path)
    with pytest.raises(PocketiqaError, match="holds 'pool', but 'labels' is needed"):
        audit_store(pool.folder)


def test_the_report_holds_the_fusion_with_addresses_and_reasons(fused_pool: Pool, fused: LabelStore):
    report = audit_store(fused.folder)
    assert report.ok
    assert report.warnings == []
    fusion, rows = report.fusion, fused.labels().to_pylist()
    assert fusion is not None
    again = json.loads(json.dumps(report.as_dict(), allow_nan=False))["fusion"]
    assert {**again, "examples": None} == {**read_fusion_report(fused.folder).as_dict(), "examples": None}
    assert set(fusion["examples"]) == {"kept", "disagreement"}
    for reason, examples in fusion["examples"].items():
        for own in examples:
            assert own["uri"] == fused_pool[own["row"]].uri
            assert own["reason"] == rows[own["row"]]["reason"]
            assert (reason == "kept") == (own["reason"] == "")


def test_histograms_are_those_of_the_rows_that_have_a_label(fused: LabelStore):
    histograms, table = audit_store(fused.folder).histograms, fused.labels().to_pandas()
    table = table[table["status"] == "ok"]
    assert list(histograms) == ["score", "score_std", "confidence"]
    for name, own in histograms.items():
        assert own["counts"] == np.histogram(table[name], 20, (0, own["high"]))[0].tolist()
        assert sum(own["counts"]) == len(table)
    reach = histograms["score_std"]["high"]
    assert reach - 0.05 < table["score_std"].max() <= reach


def test_reasons_that_differ_in_numbers_only_are_counted_together(fused: LabelStore):
    dropped = audit_store(fused.folder).coverage["dropped"]
    count = read_fusion_report(fused.folder).dropped["disagreement"]
    assert count > 1
    first = next(row for row in fused.labels().to_pylist() if row["status"] == "dropped")
    assert dropped["reasons"] == [{"reason": first["reason"], "example": first["uri"], "count": count}]


def test_the_summary_names_weights_agreement_and_dropped_rows(fused: LabelStore):
    lines = audit_summary(audit_store(fused.folder)).splitlines()
    fusion = read_fusion_report(fused.folder)
    count = fusion.dropped["disagreement"]
    assert f"  fused: {fusion.kept} rows kept; dropped: {count} for disagreement" in lines
    weights = ", ".join(f"{own['name']} {own['weight']:.2f}" for own in fusion.teachers)
    assert f"  mean weights: {weights}" in lines
    pair = fusion.pairs[-1]
    assert f"  {pair['first']} and {pair['second']}: SRCC {pair['srcc']:.3f} (n={pair['n']})" in lines
