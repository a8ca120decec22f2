import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distill.data.curated import (
    COLUMNS,
    SCORES,
    TYPE_COLUMNS,
    Curated,
    Filters,
    curate,
    curated_columns,
    curated_summary,
)
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.images import DEFAULT_LIMITS
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.store import LabelStore
from students.runtime import Scorer
from tests.helpers.tiny_students import export_tiny
from tests.helpers.training import texture
from tests.helpers.typed import plain_head, write_typed


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer(export_tiny(tmp_path_factory.mktemp("model") / "tiny.onnx").path)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Four scenes in three noisy versions each, a copy, and a file that is cut short."""
    folder = tmp_path_factory.mktemp("pool")
    (folder / "images").mkdir()
    for scene in range(4):
        for version in range(3):
            Image.fromarray(texture(scene, 4 * version, (96, 80))).save(folder / "images" / f"{scene}-{version}.png")
    shutil.copy(folder / "images" / "0-0.png", folder / "images" / "9-copy.png")
    (folder / "images" / "cut.png").write_bytes((folder / "images" / "1-0.png").read_bytes()[:900])
    return build_pool([str(folder / "images")], folder / "pool")


def run(pool: Pool, out: Path, scorer: Scorer, filters: Filters = Filters(), **more: Any) -> Curated:  # noqa: B008
    return curate(pool.folder, out, scorer, filters, limits=DEFAULT_LIMITS, **more)


def test_columns_stand_beside_those_of_the_pool_which_is_not_changed(pool: Pool, scorer: Scorer, tmp_path: Path):
    before = {path: path.read_bytes() for path in pool.folder.rglob("*") if path.is_file()}
    curated = run(pool, tmp_path / "out", scorer)
    assert {path: path.read_bytes() for path in pool.folder.rglob("*") if path.is_file()} == before
    table, own = curated.table(), pq.read_table(pool.folder / "pool.parquet")
    assert table.column_names == [*own.column_names, *COLUMNS]
    assert table.select(own.column_names).equals(own)
    rows = table.to_pylist()
    for ref, row in zip(pool, rows, strict=True):
        if ref.status == Status.OK:
            assert row["score"] == pytest.approx(scorer.score(pool.read(ref)).score, abs=1e-6)
            assert row["keep"]
            assert row["weight"] == 1.0
        else:
            assert (row["score"], row["keep"], row["weight"]) == (None, False, 0.0)
    assert {row["uri"].rsplit("/", 1)[-1]: row["left_out"].split(":")[0] for row in rows if not row["keep"]} == {
        "9-copy.png": "duplicate",
        "cut.png": "corrupt",
    }
    assert list(curated_summary(curated)) == [
        f"{tmp_path / 'out' / 'curated.parquet'}: 12 of 14 images kept",
        "  1 left out: corrupt",
        "  1 left out: duplicate",
    ]
    # The scores are a label store like any other.
    assert LabelStore.open(tmp_path / "out" / SCORES).is_complete


def test_of_near_duplicates_the_best_is_kept(pool: Pool, scorer: Scorer, tmp_path: Path):
    rows = run(pool, tmp_path / "out", scorer, Filters(best_of_scene=True)).table().to_pylist()
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["score"] is not None:
            groups.setdefault(row["group"], []).append(row)
    assert max(map(len, groups.values())) == 3  # versions of one scene are near duplicates
    for members in groups.values():
        best = max(members, key=lambda row: row["score"])
        assert [row["keep"] for row in members] == [row is best for row in members]
        assert {row["near_duplicates"] for row in members} == {len(members)}
        assert {row["near_duplicate_of"] for row in members} <= {"", best["id"]}


def refs(*groups: str) -> list[ImageRef]:
    return [ImageRef(f"id{at}", f"{at}.jpg", group=group) for at, group in enumerate(groups)]


OK = (str(Status.OK), "")
WRONG = [("dark", 0.9), ("bright", 0.1)]


def test_filters_and_percentiles():
    scores = np.array([0.2, 0.4, 0.4, 0.9, np.nan])
    states = [OK, OK, OK, OK, ("empty", "zero bytes")]
    columns = curated_columns(refs(*"abcde"), scores, states, Filters(min_score=0.3, max_score=0.8))
    assert columns["keep"] == [False, True, True, False, False]
    assert columns["percentile"] == [12.5, 50.0, 50.0, 87.5, None]
    assert [words.split(":")[0] for words in columns["left_out"]] == ["low score", "", "", "high score", "empty"]
    assert columns["score"][-1] is None


def test_weights_of_scenes_and_scores():
    scores, states = np.array([0.2, 0.4, 0.6, 0.8]), [OK] * 4
    by_scene = curated_columns(refs("a", "a", "a", "b"), scores, states, Filters(weights=("scene",)))["weight"]
    assert by_scene == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])
    by_score = curated_columns(refs(*"abcd"), scores, states, Filters(weights=("score",)))["weight"]
    assert by_score == pytest.approx([0.4, 0.8, 1.2, 1.6])
    both = curated_columns(refs("a", "a", "b", "b"), scores, states, Filters(0.3, weights=("score", "scene")))["weight"]
    assert both == pytest.approx([0.0, *(3 * np.array([0.4, 0.3, 0.4]) / 1.1)])
    none = curated_columns(refs("a"), np.array([0.0]), [OK], Filters(weights=("score",)))["weight"]
    assert none == [0.0]


def test_what_is_wrong_stands_behind_all_other_columns(pool: Pool, tmp_path: Path):
    typed = Scorer(write_typed(tmp_path / "typed.onnx", plain_head(slopes=((0.0,) * 3,) * 10)))
    out = tmp_path / "out"
    curated = run(pool, out, typed)
    table = curated.table()
    assert table.column_names[-len(TYPE_COLUMNS) :] == list(TYPE_COLUMNS)
    for row in table.to_pylist():
        assert (row["type"], row["strength"]) == ((None, None) if row["score"] is None else ("noise", 0.25))
    kept = {}
    for filters in (
        Filters(without_types=("noise",)),
        Filters(without_types=("blur",)),
        Filters(without_types=("noise", "blur"), max_strength=0.25),
        Filters(max_strength=0.2),
    ):
        kept[filters] = run(pool, out, typed, filters, overwrite=True).manifest.content["kept"]
    assert list(kept.values()) == [0, 12, 12, 0]
    assert {row["left_out"] for row in Curated.open(out).table().to_pylist() if row["score"] is not None} == {
        "noise: of strength 0.25"
    }


def test_of_near_duplicates_the_best_without_damage_is_kept():
    scores, damages = np.array([0.5, 0.7, 0.6, 0.4, np.nan]), [("none", 0.0), ("blur", 0.8), ("blur", 0.3), *WRONG]
    filters = Filters(best_of_scene=True, without_types=("blur", "dark"), max_strength=0.2)
    columns = curated_columns(refs(*"aaabb"), scores, [OK] * 4 + [("empty", "")], filters, damages=damages)
    assert columns["left_out"] == [
        "",
        "blur: of strength 0.8",
        "blur: of strength 0.3",
        "dark: of strength 0.9",
        "empty: ",
    ]
    assert columns["near_duplicate_of"] == ["", "id0", "id0", "", ""]
    assert columns["type"] == ["none", "blur", "blur", "dark", None]
    assert columns["strength"] == [0.0, 0.8, 0.3, 0.9, None]


def test_other_filters_use_the_scores_again(
    pool: Pool, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    first = run(pool, out, scorer)
    with pytest.raises(OutputConflictError, match=r"min_score: 0.0 -> 0.5"):
        run(pool, out, scorer, Filters(0.5))
    monkeypatch.setattr(Scorer, "score", None)  # whoever scores now fails
    assert run(pool, out, scorer).manifest == first.manifest
    changed = run(pool, out, scorer, Filters(0.5), overwrite=True)
    assert changed.table()["score"].equals(Curated.open(out).table()["score"])
    assert changed.manifest.spec["filters"]["min_score"] == 0.5


def test_an_interrupted_run_goes_on_where_it_was(
    pool: Pool, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = run(pool, tmp_path / "whole", scorer)
    score, calls = Scorer.score, []

    def few(self: Scorer, image: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return score(self, image, **more)

    monkeypatch.setattr(Scorer, "score", few)
    with pytest.raises(KeyboardInterrupt):
        run(pool, tmp_path / "out", scorer)
    with pytest.raises(PocketiqaError, match="unfinished: run the same curate command again"):
        Curated.open(tmp_path / "out")
    resumed = run(pool, tmp_path / "out", scorer)
    assert len(calls) < 8 + 12  # shards that were committed are not scored again
    assert resumed.table().equals(whole.table())
    assert (resumed.folder / "curated.parquet").read_bytes() == (whole.folder / "curated.parquet").read_bytes()


def test_an_altered_shard_is_scored_again(pool: Pool, scorer: Scorer, tmp_path: Path):
    whole = run(pool, tmp_path / "out", scorer)
    labels = sorted((whole.folder / SCORES).glob("shard-*/labels.parquet"))[2]
    labels.write_bytes(labels.read_bytes()[:-9])
    (whole.folder / "manifest.json").unlink()
    (whole.folder / "curated.parquet").unlink()
    words: list[str] = []
    with pytest.raises(OutputConflictError, match="not written by pocketiqa"):
        run(pool, tmp_path / "out", scorer)
    shutil.move(whole.folder / SCORES, tmp_path / "kept")
    shutil.rmtree(whole.folder)
    run(pool, tmp_path / "new", scorer)
    shutil.rmtree(tmp_path / "new" / SCORES)
    shutil.move(tmp_path / "kept", tmp_path / "new" / SCORES)
    again = run(pool, tmp_path / "new", scorer, Filters(0.01), overwrite=True, warn=words.append)
    assert len(words) == 1
    assert words[0].startswith("shard 2 is scored again")
    assert again.table()["score"].null_count == 2


def test_datasets_reads_it(pool: Pool, scorer: Scorer, tmp_path: Path):
    run(pool, tmp_path / "out", scorer, Filters(best_of_scene=True))
    loaded = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "out" / "curated.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    kept = loaded.filter(lambda row: row["keep"]).cast_column("uri", datasets.Image())
    assert len(kept) == sum(loaded["keep"]) >= 4
    assert kept[0]["uri"].size == (80, 96)


def test_mistakes_are_refused(pool: Pool, scorer: Scorer, tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"min_score is 0.9 and max_score 0.1"):
        Filters(0.9, 0.1)
    with pytest.raises(PocketiqaError, match="weights by 'size' are not known: choose of scene, score"):
        Filters(weights=("size",))
    with pytest.raises(PocketiqaError, match="no type 'fog' of damage: choose of none, blur"):
        Filters(without_types=("blur", "fog"))
    with pytest.raises(PocketiqaError, match=r"max_strength is 1.5, but a number from 0 to 1"):
        Filters(max_strength=1.5)
    with pytest.raises(PocketiqaError, match="'none' has no strength"):
        Filters(without_types=("none",), max_strength=0.5)
    with pytest.raises(PocketiqaError, match=r"tiny has no head on types.*--without-type.*fit-types"):
        run(pool, tmp_path / "new", scorer, Filters(without_types=("blur",)))
    assert not (tmp_path / "new").exists()
    with pytest.raises(PocketiqaError, match=r"is the pool .* itself"):
        run(pool, pool.folder, scorer)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    with pytest.raises(OutputConflictError, match="not written by pocketiqa"):
        run(pool, tmp_path / "other", scorer, overwrite=True)
    assert replace(Filters(), weights=("scene",)).weights == ("scene",)
