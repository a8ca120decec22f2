"""Which process labels an image, and beside which others, leaves no trace in the labels of a big teacher."""

from pathlib import Path
from typing import Any

import pytest

from pseudo_labels.photos import export_photographs
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.store import LabelStore, StoreSpec
from teachers.label import PoolLabeller
from teachers.registry import build_teacher
from teachers.sharing import own_shards

TINY: dict[str, Any] = {"variant": "tiny", "pretrained": False, "head": "new"}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("photographs")
    export_photographs(folder / "photographs")
    some = sorted((folder / "photographs").iterdir())[:5]
    return build_pool([str(path) for path in some], folder / "pool")


def labelled(pool: Pool, folder: Path, name: str, *, world: int, batch_size: int) -> LabelStore:
    """Each rank builds its own teacher, as processes do."""
    for rank in range(world):
        teacher = build_teacher(name, **TINY, views={"crops": 1})
        spec = StoreSpec(
            teacher.stamp,
            pool.digest,
            rows=len(pool),
            shards=3,
            preprocessing={},
            features=tuple(teacher.feature_names),
            batch_size=batch_size,
        )
        store = LabelStore.create(folder, spec, pool_path=pool.folder)
        labeller = PoolLabeller(pool, teacher, store.spec.features, batch_size=batch_size)
        labeller.label(store, own_shards(store, rank=rank, world=world))
    LabelStore.open(folder).finish()
    return LabelStore.open(folder)


@pytest.mark.parametrize("name", ["sam_iqa", "dp_iqa"])
def test_labels_and_features_are_those_of_one_process(name: str, pool: Pool, tmp_path: Path):
    one = labelled(pool, tmp_path / "one", name, world=1, batch_size=2)
    two = labelled(pool, tmp_path / "two", name, world=2, batch_size=2)
    files = sorted(path.relative_to(one.folder) for path in one.folder.glob("shard-*/*"))
    assert len(files) == 3 * 4
    assert all((one.folder / file).read_bytes() == (two.folder / file).read_bytes() for file in files)
    # Other batches add up in another order; the rest is rounding. Rows say which: in equal batches, equal bits.
    alone = labelled(pool, tmp_path / "alone", name, world=1, batch_size=1)
    batches = one.labels()["batch"].to_numpy()
    assert sorted(set(batches.tolist())) == [1, 2]
    single = batches == 1
    assert (alone.labels()["score"].to_numpy()[single] == one.labels()["score"].to_numpy()[single]).all()
    for column in ("score", "score_std"):
        expected = one.labels()[column].to_numpy()
        assert alone.labels()[column].to_numpy() == pytest.approx(expected, abs=2e-6)
        assert expected.std() > 1e-5
