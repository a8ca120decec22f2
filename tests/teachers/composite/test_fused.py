"""A fused teacher on real photographs: what it says live is what the fused store of its teachers says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor

from distill.evaluation.predictions import open_predictor
from distill.recipe.training import LiveSettings
from distill.training.batches import Batch
from distill.training.live_teacher import LiveTeacher
from pseudo_labels.distort import build_synthetic_pool
from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.fusion.fuse import fuse
from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.images import ImageError
from pseudo_labels.photos import bundled_photographs
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.records import Status, confidence
from pseudo_labels.store import LabelStore
from teachers.base import Item, check_teacher, pack, shapes, unpack
from teachers.composite.fused import FusedTeacher
from teachers.composite.multi_view import MultiView
from teachers.label import label
from teachers.registry import build_teacher
from tests.helpers.pools import photograph

# Dark images have no score by the second teacher, and it refuses wide ones at once.
SAM = {"teacher": "sam_iqa", "options": {"variant": "tiny", "pretrained": False, "input_side_px": 64, "seed": 9}}
CONTRAST = {
    "teacher": "tests.helpers.own_teacher:build",
    "options": {"nan_below": 0.2, "refuse_wide": 100, "views": {"crops": 2}},
}
TEACHERS = {"sam_iqa": SAM, "contrast": CONTRAST}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fused")


@pytest.fixture(scope="module")
def pool(folder: Path) -> Pool:
    """The bundled photographs, some of them wider than others, and three distorted versions of each."""
    (folder / "photographs").mkdir()
    for position, (name, path) in enumerate(bundled_photographs().items()):
        image = Image.open(path).convert("RGB").resize((128 if position % 4 == 0 else 80, 72))
        image.save(folder / "photographs" / f"{name}.png")
    clean = build_pool([str(folder / "photographs")], folder / "clean")
    return build_synthetic_pool(clean, folder / "synthetic", per_image=3)


@pytest.fixture(scope="module")
def parts(folder: Path, pool: Pool) -> list[LabelStore]:
    return [labelled(pool, folder / name, entry, features=True) for name, entry in TEACHERS.items()]


def labelled(pool: Pool, out: Path, entry: Mapping[str, Any], features: bool = False) -> LabelStore:
    return label(
        pool.folder, entry["teacher"], out, options=entry["options"], features=features, device="cpu", shards=2
    )


def ratings_of(pool: Pool, parts: list[LabelStore]) -> dict[str, float]:
    """Ratings between those of the teachers, so that both can be calibrated."""
    scores = np.stack([store.labels()["score"].to_numpy() for store in parts])
    known = np.isfinite(scores).all(axis=0)
    ranks = sum(rankdata(own[known]) for own in scores)
    noisy = 0.2 + 0.6 * rankdata(ranks + np.random.default_rng(0).normal(0, 4, known.sum())) / known.sum()
    return {pool[int(row)].id: float(value) for row, value in zip(np.flatnonzero(known), noisy, strict=True)}


def fused_store(
    out: Path, pool: Pool, parts: list[LabelStore], rule: KeepRule | None = None, carry: str | None = None
) -> LabelStore:
    folders = [store.folder for store in parts]
    return fuse(folders, out, ratings=ratings_of(pool, parts), rule=rule, carry=carry)


@pytest.fixture(scope="module")
def store(folder: Path, pool: Pool, parts: list[LabelStore]) -> LabelStore:
    return fused_store(folder / "both", pool, parts)


def entry_of(store: LabelStore, **more: Any) -> dict[str, Any]:
    return {"teacher": "fused", "options": {"labels": str(store.folder), "teachers": TEACHERS, **more}}


def build(store: LabelStore, **more: Any) -> FusedTeacher:
    teacher = build_teacher("fused", **entry_of(store, **more)["options"])
    assert isinstance(teacher, FusedTeacher)
    return teacher


def check_alike(store: LabelStore, live: LabelStore) -> list[dict[str, Any]]:
    """Every row of the fused store against what the live teacher labelled; rows of the former."""
    rows, both = store.labels().to_pylist(), live.labels().to_pylist()
    for row, own in zip(rows, both, strict=True):
        assert (row["id"], row["status"] == "ok") == (own["id"], own["status"] == "ok"), (row, own)
        if row["status"] == "ok":
            assert [own[name] for name in ("score", "score_std", "confidence")] == pytest.approx(
                [row[name] for name in ("score", "score_std", "confidence")], abs=1e-5
            )
    return rows


def test_live_scores_are_those_of_the_fused_store(pool: Pool, store: LabelStore, tmp_path: Path):
    live = labelled(pool, tmp_path / "live", entry_of(store))
    rows = check_alike(store, live)
    statuses = [row["status"] for row in rows]
    assert statuses.count("ok") >= 20
    assert statuses.count("dropped") >= 5
    reasons = {row["reason"] for row in live.labels().to_pylist() if row["status"] == "failed"}
    wide = "1 of 2 teachers can score it, 2 are needed (contrast: 128 pixels are too wide for me)"
    assert reasons == {wide, "the teacher gave a score of nan"}
    # Calibration did something: neither teacher's own scores, nor their mean.
    scores = [row["score"] for row in rows if row["status"] == "ok"]
    assert np.ptp(scores) > 0.3


@pytest.mark.parametrize(
    "rule", [KeepRule(min_teachers=1), KeepRule(min_confidence=0.36), KeepRule(max_disagreement=0.1)], ids=str
)
def test_any_keep_rule_is_that_of_the_store(
    pool: Pool, parts: list[LabelStore], store: LabelStore, rule: KeepRule, tmp_path: Path
):
    other = fused_store(tmp_path / "store", pool, parts, rule)
    rows = check_alike(other, labelled(pool, tmp_path / "live", entry_of(other)))
    kept, before = (own.labels()["status"].to_pylist().count("ok") for own in (other, store))
    if rule.min_teachers == 1:
        assert kept == len(rows) > before
    else:
        assert 0 < kept < before


def test_features_are_those_of_one_teacher(pool: Pool, parts: list[LabelStore], store: LabelStore, tmp_path: Path):
    assert build(store).feature_names == ()
    # Carried by the store: then also an image of which they are missing has no label.
    other = fused_store(tmp_path / "store", pool, parts, KeepRule(min_teachers=1), carry="cells")
    assert build(other).feature_names == ("cells",)
    live = labelled(pool, tmp_path / "live", entry_of(other), features=True)
    check_alike(other, live)
    for index in range(2):
        np.testing.assert_array_equal(live.shard_features(index)["cells"], other.shard_features(index)["cells"])
    reasons = " ".join(row["reason"] for row in live.labels().to_pylist())
    assert "the teacher whose features are given cannot score it (contrast: 128 pixels are too wide" in reasons
    chosen = build(store, features_of="sam_iqa")
    assert chosen.feature_names == ("map", "pooled")
    dark = np.full((64, 64, 3), 20, np.uint8)
    bright = photograph("astronaut", 64)
    output = chosen([chosen.preprocess(image, None) for image in (bright, dark)])
    assert output.score.isfinite().tolist() == [True, False]
    assert output.features["map"].abs().amax((1, 2, 3)).gt(0).tolist() == [True, False]
    inner = build_teacher("sam_iqa", **SAM["options"])
    alone = inner([inner.preprocess(bright, None)]).features["pooled"]
    torch.testing.assert_close(output.features["pooled"][:1], alone, atol=1e-5, rtol=0)


def test_it_is_a_teacher_with_an_identity_of_all_its_parts(pool: Pool, parts: list[LabelStore], tmp_path: Path):
    first = fused_store(tmp_path / "one", pool, parts)
    teacher = build(first)
    assert check_teacher(teacher, "fused") is teacher
    assert teacher.to(torch.device("cpu")) is teacher
    stamp = teacher.stamp
    assert (stamp.name, stamp.weights) == ("fused", first.spec.stamp.weights)
    assert (stamp.scale, stamp.licence) == (first.spec.stamp.scale, first.spec.stamp.licence)
    digests = {own.spec.stamp.name: own.spec.stamp.digest for own in parts}
    assert {own["name"]: own["teacher"] for own in stamp.options["teachers"]} == digests
    strict = build(fused_store(tmp_path / "two", pool, parts, KeepRule(min_confidence=0.36))).stamp
    assert len({stamp.digest, strict.digest, build(first, features_of="contrast").stamp.digest}) == 3
    assert build(first).stamp == stamp


def test_a_teacher_that_needs_a_reference_gets_it_and_the_others_do_not(
    pool: Pool, parts: list[LabelStore], tmp_path: Path
):
    metrics = {"teacher": "reference", "options": {"metrics": "gmsd,mdsi"}}
    both = [labelled(pool, tmp_path / "reference", metrics), parts[1]]
    store = fused_store(tmp_path / "store", pool, both)
    teachers = {"reference": metrics, "contrast": CONTRAST}
    assert build(store, teachers=teachers).needs_reference
    check_alike(store, labelled(pool, tmp_path / "live", entry_of(store, teachers=teachers)))


def test_it_may_judge_several_views(store: LabelStore):
    teacher = build_teacher("fused", **entry_of(store, views={"flips": True})["options"])
    assert isinstance(teacher, MultiView)
    image = photograph("astronaut", 80)
    inner = build(store)
    alone = [inner([inner.preprocess(np.ascontiguousarray(view), None)]) for view in (image, image[:, ::-1])]
    scores = [float(output.score[0]) for output in alone]
    assert float(teacher([teacher.preprocess(image, None)]).score[0]) == pytest.approx(np.mean(scores), abs=1e-6)


def test_evaluation_judges_by_it(pool: Pool, store: LabelStore):
    predictor = open_predictor("fused", options=entry_of(store)["options"], device="cpu")
    assert predictor.name == "fused"
    row = next(at for at, status in enumerate(store.labels()["status"].to_pylist()) if status == "ok")
    assert predictor.score(pool.load(pool[row]), None) == pytest.approx(store.labels()["score"][row].as_py(), abs=1e-5)


def test_a_student_learns_its_word_of_each_view(store: LabelStore):
    entry = entry_of(store, features_of="sam_iqa")
    live = LiveTeacher(LiveSettings(**entry), "pooled")
    views = [photograph(name, 90)[:56, :56] for name in ("astronaut", "coffee", "cat", "rocket")]
    views.append(np.full((56, 56, 3), 9, np.uint8))  # too dark for one of the two
    items = [live.prepare(view) for view in views]
    live.learn_scale(items, batch_size=2)
    pixels, ones = torch.zeros(len(views), 56, 56, 3, dtype=torch.uint8), torch.ones(len(views))
    labels = live.relabel(Batch(pixels, ones, ones, torch.ones(len(views), 2), items=items))
    alone = build(store)
    said = [alone([alone.preprocess(view, None)]) for view in views]
    known = [bool(output.score.isfinite()) for output in said]
    assert known[0]
    assert not known[-1]
    for position, output in enumerate(said):
        if known[position]:
            assert output.score_std is not None
            assert float(labels.target[position]) == pytest.approx(float(output.score), abs=1e-5)
            assert float(labels.weight[position]) == pytest.approx(confidence(float(output.score_std)), abs=1e-5)
        else:
            assert (float(labels.target[position]), float(labels.weight[position])) == (0.0, 0.0)
    assert labels.feature is not None
    assert labels.feature.isfinite().all()


def test_an_image_that_no_teacher_can_judge_keeps_its_status(store: LabelStore):
    tiny = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ImageError, match=r"1 of 2 teachers can score it, 2 are needed \(sam_iqa: 4x4 pixels") as caught:
        build(store).preprocess(tiny, None)
    assert caught.value.status == Status.TOO_SMALL


def test_packed_items_of_other_teachers_are_never_of_one_shape():
    image, mask = torch.ones(3, 4), torch.zeros(2)
    given: list[list[Item | None]] = [
        [image, mask], [None, image], [image, None], [(image,), None], [(image, mask), None], [image, (mask, mask)],
    ]  # fmt: skip
    for items in given:
        again = unpack(pack(items))
        assert [type(item) for item in again] == [type(item) for item in items]
        for item, other in zip(items, again, strict=True):
            pairs = zip(flat(item), flat(other), strict=True)
            assert all(torch.equal(*pair) for pair in pairs)
    absent = [shapes(pack(items)) for items in given[:3]]
    assert len(set(absent)) == 3


def flat(item: Item | None) -> tuple[Tensor, ...]:
    return () if item is None else (item,) if isinstance(item, Tensor) else item


def test_what_does_not_belong_together_is_refused(parts: list[LabelStore], store: LabelStore, tmp_path: Path):
    other = {**SAM, "options": {**SAM["options"], "seed": 1}}
    fp16 = {**SAM, "options": {**SAM["options"], "precision": "bf16"}}
    for change, named in [
        (
            {"teachers": {**TEACHERS, "sam_iqa": other}},
            r"'sam_iqa' is not the one that .*both was fused from \(.*weights",
        ),
        ({"teachers": {**TEACHERS, "sam_iqa": fp16}}, r"options.precision: 'fp32' -> 'bf16'\): build it as it was"),
        ({"teachers": {"sam_iqa": SAM}}, r"given for sam_iqa, but .* was fused from contrast, sam_iqa: give each"),
        ({"teachers": None}, "given for None, but"),
        ({"teachers": {**TEACHERS, "sam_iqa": "sam_iqa"}}, "teacher 'sam_iqa' is 'sam_iqa': give {teacher"),
        ({"teachers": {**TEACHERS, "sam_iqa": {**SAM, "views": {}}}}, "'views': {}}: give {teacher"),
        ({"features_of": "dp_iqa"}, "features_of is 'dp_iqa': choose one of contrast, sam_iqa"),
        ({"labels": str(parts[0].folder)}, "sam_iqa holds labels of 'sam_iqa' alone: give the folder that"),
    ]:
        with pytest.raises(PocketiqaError, match=named):
            build(store, **change)


def test_an_altered_fusion_is_refused(pool: Pool, parts: list[LabelStore], tmp_path: Path):
    store = fused_store(tmp_path / "store", pool, parts)
    path = store.folder / "fusion.json"
    record = json.loads(path.read_text())
    record["report"]["ensemble"]["expected"]["base_gain"] *= 0.5
    path.write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match=r"fusion.json was altered: .*run the same fuse"):
        build(store)
    path.unlink()
    with pytest.raises(PocketiqaError, match="no fusion report at"):
        build(store)
