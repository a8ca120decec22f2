"""Which extractor a name or path opens, and what is refused."""

from pathlib import Path

import pytest

from distill.leakage.extractors import open_extractor
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import PseudoLabel, TeacherStamp
from pseudo_labels.store import LabelStore, StoreSpec
from tests.helpers.pools import clean_pool
from tests.helpers.tiny_students import photographs


def test_edges_are_the_default_and_content_is_the_embedded_teacher() -> None:
    layout = open_extractor()
    assert (layout.name, layout.kind, layout.feature) == ("layout", "layout", "edges")
    content = open_extractor("content")
    assert (content.name, content.kind, content.feature) == ("the embedded teacher's backbone", "backbone", "final")
    assert content.as_dict().keys() == {"name", "kind", "feature", "identity"}
    features = content.extract(photographs()[0], None)
    assert features.ndim == 1
    assert len(features) > 100


def test_a_label_store_has_no_features(tmp_path: Path) -> None:
    pool = clean_pool(tmp_path, images=1)
    spec = StoreSpec(TeacherStamp("hand", 1, "none"), pool.digest, 1, 1)
    store = LabelStore.create(tmp_path / "labels", spec, pool_path=pool.folder)
    store.write_shard(0, [PseudoLabel(ref.id, ref.uri, ref.sha256, score=0.5) for ref in pool])
    store.finish()
    with pytest.raises(PocketiqaError, match="labels is a label store and has no features of images"):
        open_extractor(store.folder)


def test_models_without_such_a_feature_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PocketiqaError, match="layout has no feature 'colour': choose edges"):
        open_extractor(feature="colour")
    with pytest.raises(PocketiqaError, match="option 'views': layout takes none"):
        open_extractor(options={"views": 3})
    with pytest.raises(PocketiqaError, match="'nothing' is no model"):
        open_extractor("nothing")
    with pytest.raises(PocketiqaError, match=r"lacks --option name=TIMM_MODEL: its options are name, weights"):
        open_extractor("backbone")
    with pytest.raises(PocketiqaError, match="has no option 'wieghts'"):
        open_extractor("backbone", options={"name": "test_efficientnet", "wieghts": "x"})
    with pytest.raises(PocketiqaError, match="weights=None and pretrained=False"):
        open_extractor("backbone", options={"name": "test_efficientnet"})
    with pytest.raises(PocketiqaError, match="no backbone weights at"):
        open_extractor("backbone", options={"name": "test_efficientnet", "weights": str(tmp_path / "gone")})
    with pytest.raises(PocketiqaError, match="mean or std is 'grey'"):
        open_extractor("backbone", options={"name": "test_efficientnet", "weights": "x", "mean": "grey"})
