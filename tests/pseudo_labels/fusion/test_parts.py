from pathlib import Path

import numpy as np
import pytest

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion import parts
from pseudo_labels.fusion.parts import Columns, Part, find_feature, find_ratings, open_parts, read_columns
from pseudo_labels.pool import Pool
from tests.helpers.fusing import BAD, ROWS, invented_pool, seen, teacher_store

NAN = np.nan
SPANS = [range(0, 100), range(100, ROWS)]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return invented_pool(tmp_path_factory.mktemp("pool") / "pool")


def test_parts_are_sorted_by_teacher_and_named_apart(pool: Pool, tmp_path: Path):
    stores = [
        teacher_store(tmp_path / str(at), pool, seen(0.1, at), name=name) for at, name in enumerate(["b", "a", "b"])
    ]
    folders = [store.folder for store in stores]
    names = [part.name for part in open_parts(folders)]
    twins = sorted(stores[at].digest for at in (0, 2))
    assert names == ["a", *(f"b-{digest[:8]}" for digest in twins)]
    assert [part.name for part in open_parts(folders[::-1])] == names
    with pytest.raises(PocketiqaError, match=r"hold the same labels: give each teacher once"):
        open_parts([folders[1], folders[1]])


def test_parts_of_another_pool_are_refused(pool: Pool, tmp_path: Path):
    own = teacher_store(tmp_path / "own", pool, seen(0.1, 1), name="own").folder
    other_pool = invented_pool(tmp_path / "pool", salt="other")
    other = teacher_store(tmp_path / "other", other_pool, seen(0.1, 1), name="other").folder
    with pytest.raises(PocketiqaError, match=r"labels in .*other are of another pool than those in .*own"):
        open_parts([own, other])


def test_blocks_are_found_without_looking_at_all_shards(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stores = [teacher_store(tmp_path / name, pool, seen(0.1, 1), name=name, shards=20) for name in ("a", "b")]
    looked: list[int] = []
    whole = parts.shard_rows
    monkeypatch.setattr(parts, "shard_rows", lambda *of: looked.append(of[2]) or whole(*of))
    spans = [whole(ROWS, 15, index) for index in range(15)]
    read_columns([Part(store.spec.stamp.name, store) for store in stores], spans)
    assert len(looked) < 3 * (20 + 15)


def test_columns_hold_the_scores_and_only_spreads_that_have_one(pool: Pool, tmp_path: Path):
    first, second = seen(0.1, 1), seen(0.1, 2)
    first[5] = NAN
    stores = [
        teacher_store(tmp_path / "a", pool, first, name="a", spreads=np.full(ROWS, 0.05), shards=7),
        teacher_store(tmp_path / "b", pool, second, name="b"),
    ]
    steps: list[tuple[int, int]] = []
    parts = [Part(store.spec.stamp.name, store) for store in stores]
    columns = read_columns(parts, SPANS, lambda *step: steps.append(step))
    first[BAD] = second[BAD] = NAN
    assert columns.scores.dtype == np.float32
    assert np.array_equal(columns.scores, np.array([first, second], np.float32), equal_nan=True)
    expected = np.where(np.isfinite(first), np.float32(0.05), np.float32(NAN))
    assert np.array_equal(columns.spreads[0], expected, equal_nan=True)
    assert np.isnan(columns.spreads[1]).all()
    assert columns.scored_by[[0, 5, BAD]].tolist() == [2, 1, 0]
    assert steps == [(1, 2), (2, 2)]


def test_rows_of_another_view_are_refused_by_row(pool: Pool, tmp_path: Path):
    stores = [teacher_store(tmp_path / view, pool, seen(0.1, 1), name=view, view=view) for view in ("full", "flip")]
    with pytest.raises(PocketiqaError, match=r"row 0 of .*flip is of the view 'flip', but of 'full' in .*full"):
        read_columns([Part(store.spec.stamp.name, store) for store in stores], SPANS)


def test_a_feature_is_known_by_its_name_if_one_teacher_has_it(pool: Pool, tmp_path: Path):
    ones = np.ones((ROWS, 2))
    features = {"a": {"map": ones, "depth": ones}, "b": {"map": ones}}
    parts = [
        Part(name, teacher_store(tmp_path / name, pool, seen(0.1, at), name=name, features=own))
        for at, (name, own) in enumerate(features.items())
    ]
    assert find_feature(parts, "depth") == (0, "depth")
    assert find_feature(parts, "b/map") == (1, "map")
    with pytest.raises(PocketiqaError, match="'map' is stored by several teachers: choose one of a/depth, a/map, b"):
        find_feature(parts, "map")
    with pytest.raises(PocketiqaError, match="'edge' is not stored: choose one of a/depth, a/map, b/map"):
        find_feature(parts, "edge")


def test_rated_rows_are_those_with_a_score_and_scenes_come_from_the_pool(pool: Pool, tmp_path: Path):
    part = Part("a", teacher_store(tmp_path / "a", pool, seen(0.1, 1), name="a"))
    ratings = {pool[row].id: row / ROWS for row in (61, 3, BAD)} | {"elsewhere": 0.5}
    scored = read_columns([part], SPANS).scored_by.astype(bool)
    rated = find_ratings([part], SPANS, scored, ratings)
    assert rated.rows.tolist() == [3, 61]
    assert rated.scores.tolist() == [3 / ROWS, 61 / ROWS]
    assert rated.groups == ("scene3", "scene1")  # row % 60
    given = find_ratings([part], SPANS, scored, ratings, {pool[3].id: "own"})
    assert given.groups == ("own", pool[61].id)
    assert given.digest != rated.digest == find_ratings([part], SPANS, scored, ratings).digest
    with pytest.raises(PocketiqaError, match="none of the 1 rated images is among those that the teachers labelled"):
        find_ratings([part], SPANS, scored, {"elsewhere": 0.5})


def test_scored_counts_finite_scores_only():
    columns = Columns(np.array([[0.1, NAN, 0.0], [NAN, NAN, 1.0]], np.float32), np.zeros((2, 3), np.float32))
    assert columns.scored.tolist() == [[True, False, True], [False, False, True]]
    assert columns.scored_by.tolist() == [1, 0, 2]


def test_shards_of_any_size_are_read_side_by_side(pool: Pool, tmp_path: Path):
    features = {"map": np.arange(ROWS * 3.0).reshape(ROWS, 3)}
    scores = seen(0.1, 1)
    scores[:24] = NAN  # the first shard of ten holds no feature at all
    store = teacher_store(tmp_path / "a", pool, scores, name="a", shards=10, features=features)
    part = Part("a", store)
    expected = np.where(np.isfinite(scores)[:, None], features["map"], 0).astype(np.float16)
    expected[BAD] = 0
    for start, stop in [(0, 240), (0, 7), (20, 30), (23, 100), (239, 240)]:
        assert part.rows(range(start, stop))["uri"].to_pylist() == [f"{row}.png" for row in range(start, stop)]
        assert (part.features(range(start, stop), "map") == expected[start:stop]).all()
