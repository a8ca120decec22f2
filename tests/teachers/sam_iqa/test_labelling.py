"""The full-reference form labels a pool as any other teacher does."""

from pathlib import Path

import numpy as np

from teachers.label import label
from tests.helpers.pools import synthetic_pool

BUILDER = "teachers.sam_iqa:build_sam_iqa"


def test_the_full_reference_form_labels_a_synthetic_pool(tmp_path: Path):
    pool = synthetic_pool(tmp_path, images=2, per_image=3)
    options = {"variant": "tiny", "form": "fr", "pretrained": False}
    stores = [
        label(pool.folder, BUILDER, tmp_path / name, features=True, options=options, batch_size=size, shards=2)
        for name, size in (("one", 1), ("four", 4))
    ]
    one, four = (store.labels() for store in stores)
    assert one["status"].to_pylist() == ["ok"] * len(pool)
    np.testing.assert_allclose(one["score"].to_numpy(), four["score"].to_numpy(), atol=1e-5)
    assert len(set(one["score"].to_pylist())) > 2
    assert stores[0].shard_features(0)["map"].shape[1:] == (8, 16, 16)
    assert stores[0].spec.stamp.options["form"] == "fr"
