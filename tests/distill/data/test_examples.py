"""Labels of pools as examples."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.data.examples import LabelTable, Source, collect
from distill.data.pixel_cache import PixelCache
from distill.data.split import Part, join_groups, split_groups
from distill.recipe.training import ImageSettings, SplitSettings
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.store import LabelStore
from tests.helpers.training import score_of, texture_pool, texture_store

NAN = float("nan")
CROPS = ImageSettings(crop_size=64)
WHOLE = ImageSettings(crop_size=None, horizontal_flip=False)


def test_every_ok_row_becomes_an_example_with_its_label(source: Source, cache: PixelCache):
    examples = collect([source], [cache])
    assert examples.skipped == {}
    assert examples.examples.row.tolist() == list(range(24))
    np.testing.assert_allclose(examples.examples.target, [score_of(ref) for ref in source.pool], rtol=1e-6)
    assert [ref.id for ref in examples.refs] == [ref.id for ref in source.pool]


def test_images_of_examples_are_no_objects_until_they_are_asked_for(
    source: Source, cache: PixelCache, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("distill.data.examples.ROWS_AT_ONCE", 5)
    before = sum(type(one) is ImageRef for one in gc.get_objects())
    examples = collect([source], [cache])
    assert sum(type(one) is ImageRef for one in gc.get_objects()) == before
    assert list(examples.refs) == list(source.pool)
    assert (examples.refs[7], list(examples.refs[3:5])) == (source.pool[7], list(source.pool)[3:5])


def test_unusable_rows_are_skipped_and_counted_with_their_reason(pool: Pool, cache: PixelCache, tmp_path: Path):
    failed = {"status": Status.FAILED, "reason": "no finite score", "score": NAN, "confidence": 0.0}
    store = texture_store(
        tmp_path / "labels",
        pool,
        changes={2: failed, 5: failed, 7: {"confidence": 0.0}, 9: {"sha256": "0" * 64}},
    )
    cache.statuses[11] = (Status.MISSING, "no such file")
    examples = collect([Source("t", pool, store)], [cache])
    assert examples.skipped == {
        "t: label failed": 2,
        "t: no confidence": 1,
        "t: image changed since it was labelled": 1,
        "t: image missing": 1,
    }
    assert set(range(24)) - set(examples.examples.row.tolist()) == {2, 5, 7, 9, 11}


def test_teachers_and_people_are_learned_together(source: Source, pool: Pool, cache: PixelCache):
    people = LabelTable([pool[3].id, pool[1].id], [0.25, 0.75], [0.5, 1.0])
    examples = collect([source, Source("people", pool, people)], [cache, cache])
    mine = examples.examples.source == 1
    assert examples.examples.row[mine].tolist() == [1, 3]
    assert examples.examples.target[mine].tolist() == [0.75, 0.25]
    assert examples.examples.weight[mine].tolist() == [1.0, 0.5]
    assert (~mine).sum() == 24
    split = split_groups(join_groups(examples.refs), SplitSettings(validation=0.3))
    parts = [examples.of(split, part) for part in (Part.TRAIN, Part.VALIDATION)]
    assert sum(map(len, parts)) == 26
    assert not set(parts[0].row.tolist()) & set(parts[1].row.tolist())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], [0.5, 0.6]), "1 ids, 2 scores"),
        ((["a", "a"], [0.5, 0.6]), "'a' twice"),
        ((["a", "b"], [0.5, 61.0]), "score of 'b' is 61"),
        ((["a"], [NAN]), "score of 'a' is nan"),
        ((["a"], [0.5], [-1.0]), "confidence of 'a' is -1"),
    ],
)
def test_tables_that_make_no_sense_are_refused(arguments: tuple[Any, ...], message: str):
    with pytest.raises(PocketiqaError, match=message):
        LabelTable(*arguments)


def test_sources_that_do_not_fit_are_refused(source: Source, pool: Pool, cache: PixelCache, tmp_path: Path):
    other, store = texture_pool(tmp_path / "other", scenes=3), source.labels
    assert isinstance(store, LabelStore)
    wrong = {
        "made for another pool": [Source("t", other, source.labels)],
        "1 of 1 labelled images are not in the pool": [Source("t", pool, LabelTable(["nobody"], [0.5]))],
        "name of its own": [source, source],
        "at least one": [],
        r"weight -1\.0": [Source("t", pool, source.labels, -1.0)],
        "none of the sources": [Source("t", pool, source.labels, selects=False)],
        "no usable labelled image": [Source("t", pool, LabelTable([pool[0].id], [0.5], [0.0]))],
        "has features, but no loss compares with them": [
            Source("t", pool, LabelTable([pool[0].id], [0.5]), features=store)
        ],
        "a label store has features of its own": [Source("t", pool, source.labels, features=store)],
    }
    for message, sources in wrong.items():
        with pytest.raises(PocketiqaError, match=message):
            collect(sources, [cache] * len(sources))
    with pytest.raises(PocketiqaError, match="no source has the feature 'map': none at all"):
        collect([source], [cache], "map")
    strange = texture_store(tmp_path / "strange", pool, view="upside down")
    with pytest.raises(PocketiqaError, match="unknown view 'upside down': known are 'full', 'flip'"):
        collect([Source("t", pool, strange)], [cache])
