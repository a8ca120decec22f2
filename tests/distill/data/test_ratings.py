import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.data.examples import LabelTable, Source, collect
from distill.data.pixel_cache import build_pixels
from distill.data.ratings import RatingTable, left_out, open_sources, rating_source, targets_of
from distill.data.split import Part, join_groups, split_groups
from distill.recipe.stages import SourceSection
from distill.recipe.training import SplitSettings
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import sha256_file
from pseudo_labels.pool import Pool
from pseudo_labels.records import Status
from students.preprocess import Preprocess
from tests.helpers.pools import PHOTOGRAPHS, photograph, write_photographs
from tests.helpers.shared import shared_data
from tests.helpers.training import texture_pool, texture_store

ASTRONAUT, COFFEE, CAT, ROCKET, RETINA, HUBBLE, TISSUE = [f"{n}-{name}.png" for n, name in enumerate(PHOTOGRAPHS)]


def csv_benchmark(folder: Path, rows: list[dict[str, object]], name: str = "ratings") -> str:
    """A file of ratings beside the seven photographs; gives the words that name it."""
    write_photographs(folder, images=7, max_side=96)
    columns = sorted({column for row in rows for column in row})
    with open(folder / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return f"csv:{folder / name}.csv"


def scores_of(source: Source) -> dict[str, Any]:
    """Score of each rated image by the name of its first row."""
    table = source.labels
    assert isinstance(table, RatingTable)
    pairs = zip(table.rated.values(), table.scores.tolist(), strict=True)
    return {rows[0].id: pytest.approx(score, abs=1e-6) for rows, score in pairs}


def group_of(source: Source) -> dict[str, str]:
    return {Path(ref.uri).name: ref.group for ref in source.pool}


SPLIT_ROWS: list[dict[str, object]] = [
    {"image": ASTRONAUT, "mos": 1, "split": "train"},
    {"image": COFFEE, "mos": 2, "split": "train"},
    {"image": CAT, "mos": 4, "split": "validation"},
    {"image": ROCKET, "mos": 5, "split": "test"},
]


def test_the_train_part_is_learned_from_unless_another_is_named(tmp_path: Path):
    spec = csv_benchmark(tmp_path, SPLIT_ROWS) + "?scale=1:5"
    values_of = {split: scores_of(rating_source(spec, split, tmp_path / str(split))) for split in (None, "train")}
    assert values_of[None] == values_of["train"] == {ASTRONAUT: 0.0, COFFEE: 0.25}
    assert scores_of(rating_source(spec, "validation", tmp_path / "v")) == {CAT: 0.75}
    assert scores_of(rating_source(spec, "test", tmp_path / "t")) == {ROCKET: 1.0}


def test_without_splits_all_images_are_learned_from(tmp_path: Path):
    rows = [{"image": name, "mos": 0.5} for name in (ASTRONAUT, CAT)]
    spec = csv_benchmark(tmp_path, rows)
    for split in (None, "all"):
        assert set(scores_of(rating_source(spec, split, tmp_path / str(split)))) == {ASTRONAUT, CAT}
    with pytest.raises(PocketiqaError, match="ratings has no splits, so no 'train': leave the split out"):
        rating_source(spec, "train", tmp_path / "train")


def test_test_images_are_never_learned_from_by_accident(tmp_path: Path):
    spec = csv_benchmark(tmp_path, SPLIT_ROWS) + "?scale=1:5"
    with pytest.raises(PocketiqaError, match="'all' of benchmark ratings would learn from its 1 test images"):
        rating_source(spec, "all", tmp_path / "pool")
    only_test = csv_benchmark(tmp_path, SPLIT_ROWS[3:]) + "?scale=1:5"
    with pytest.raises(PocketiqaError, match="no split 'train': known splits: test"):
        rating_source(only_test, None, tmp_path / "pool")
    assert not (tmp_path / "pool").exists()


GROUPED: list[dict[str, object]] = [
    {"image": name, "mos": 0.1 * at, "group": group}
    for at, (name, group) in enumerate(
        zip((ASTRONAUT, COFFEE, CAT, ROCKET, RETINA, HUBBLE, TISSUE), "aabbccd", strict=True)
    )
]


def test_fewer_images_are_among_more_and_scenes_stay_whole(tmp_path: Path):
    spec = csv_benchmark(tmp_path, GROUPED)
    whole = {str(row["image"]): str(row["group"]) for row in GROUPED}
    drawn = [list(scores_of(rating_source(spec, None, tmp_path / f"{n}", images=n, seed=3))) for n in range(1, 8)]
    for number, (fewer, more) in enumerate(zip(drawn, [*drawn[1:], list(whole)], strict=True), start=1):
        assert len(fewer) == number
        assert set(fewer) <= set(more)
        assert fewer == sorted(fewer)  # in the order of the file
        taken, sizes = Counter(whole[name] for name in fewer), Counter(whole.values())
        assert sum(taken[group] < sizes[group] for group in taken) <= 1


def test_the_draw_follows_from_the_seed(tmp_path: Path):
    spec = csv_benchmark(tmp_path, GROUPED)
    drawn = {
        seed: tuple(scores_of(rating_source(spec, None, tmp_path / f"{seed}", images=3, seed=seed)))
        for seed in range(6)
    }
    assert tuple(scores_of(rating_source(spec, None, tmp_path / "again", images=3, seed=2))) == drawn[2]
    assert len(set(drawn.values())) > 1
    with pytest.raises(PocketiqaError, match="images is 8, but this split of benchmark ratings has 7: lower it"):
        rating_source(spec, None, tmp_path / "more", images=8)


def test_parts_of_a_benchmark_are_taken_by_name(tmp_path: Path):
    rows: list[dict[str, object]] = [
        {"image": ASTRONAUT, "mos": 0.1, "subset": "people"},
        {"image": COFFEE, "mos": 0.2, "subset": "things"},
    ]
    spec = csv_benchmark(tmp_path, rows)
    source = rating_source(spec, None, tmp_path / "things", subsets=["things"])
    assert isinstance(source.labels, RatingTable)
    assert [round(float(score), 3) for score in source.labels.scores] == [0.2]
    for number, subsets in enumerate(([], ["places"])):
        with pytest.raises(PocketiqaError, match=r"those of benchmark ratings are: people, things"):
            rating_source(spec, None, tmp_path / f"{number}", subsets=subsets)


def test_every_scene_is_left_out_by_one_fold(tmp_path: Path):
    folder = tmp_path / "textures"
    pool = texture_pool(folder, scenes=9, versions=2)
    lines = [f"{ref.uri},0.5,{ref.group}" for ref in pool]
    (folder / "ratings.csv").write_text("\n".join(["image,mos,group", *lines]))
    spec, everything = f"csv:{folder / 'ratings.csv'}", {ref.id: ref.group for ref in pool}
    left_out = []
    for number in (1, 2, 3):
        fold = rating_source(spec, None, tmp_path / f"{number}", without_fold=f"{number}/3", seed=1)
        assert isinstance(fold.labels, RatingTable)
        left_out.append({everything[id] for id in everything.keys() - set(fold.labels.ids)})
        assert not left_out[-1] & {everything[id] for id in fold.labels.ids}  # scenes stay whole
    assert sum(map(len, left_out)) == len(set().union(*left_out)) == 9
    other = rating_source(spec, None, tmp_path / "other", without_fold="1/3", seed=2)
    assert isinstance(other.labels, RatingTable)
    assert {everything[id] for id in everything.keys() - set(other.labels.ids)} != left_out[0]
    for fold, words in (
        ("4/3", "give one of 1/3 to 3/3"),
        ("1/1", "give one of 1/2 to 2/2"),
        ("1/90", "too few scenes"),
    ):
        with pytest.raises(PocketiqaError, match=words):
            rating_source(spec, None, tmp_path / "wrong", without_fold=fold, seed=5)


def test_a_scene_is_what_the_benchmark_says_and_what_looks_alike(tmp_path: Path):
    copy = "again.jpg"
    rows: list[dict[str, object]] = [
        {"image": ASTRONAUT, "mos": 0.1, "group": "walk"},
        {"image": COFFEE, "mos": 0.2, "group": "walk"},
        {"image": copy, "mos": 0.3, "group": "zoo"},  # the photograph of the first, compressed
        {"image": CAT, "mos": 0.4, "group": "zoo"},
        {"image": ROCKET, "mos": 0.5, "group": "launch"},
    ]
    spec = csv_benchmark(tmp_path, rows)
    Image.fromarray(photograph("astronaut", 96)).save(tmp_path / copy, quality=80)
    group = group_of(rating_source(spec, None, tmp_path / "pool"))
    assert {group[name] for name in (ASTRONAUT, COFFEE, copy, CAT)} == {"ratings: walk"}
    assert group[ROCKET] == "ratings: launch"


def kadid(folder: Path) -> str:
    """Two references, rated nowhere, with two copies each, in the layout of KADID-10k."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for scene, name in (("I01", "coffee"), ("I02", "rocket")):
        clean = photograph(name, 96)
        Image.fromarray(clean).save(folder / "images" / f"{scene}.png")
        for level, gain in (("01", 0.8), ("02", 0.5)):
            file = f"{scene}_16_{level}.png"
            Image.fromarray((clean * gain).astype(np.uint8)).save(folder / "images" / file)
            rows.append((file, f"{scene}.png", 5 * gain, 0.5))
    with open(folder / "dmos.csv", "w", newline="") as file:
        csv.writer(file).writerows([("dist_img", "ref_img", "dmos", "var"), *rows])
    return f"kadid10k:{folder}"


def test_references_are_rows_of_the_pool_without_an_opinion(tmp_path: Path):
    source = rating_source(kadid(tmp_path / "kadid"), "train", tmp_path / "train")
    # The derived split leaves one of the two scenes to training.
    reference, *copies = source.pool
    scene = Path(reference.uri).stem
    assert [Path(ref.uri).name for ref in copies] == [f"{scene}_16_01.png", f"{scene}_16_02.png"]
    assert [ref.ref_id for ref in source.pool] == ["", reference.id, reference.id]
    assert {ref.group for ref in source.pool} == {f"kadid10k: {scene}.png"}
    assert scores_of(source) == {f"{scene}_16_01.png": 0.75, f"{scene}_16_02.png": 0.375}
    assert isinstance(source.labels, RatingTable)
    assert source.labels.ids == [ref.id for ref in copies]


def test_a_rated_reference_keeps_its_opinion_and_an_undamaged_copy_is_the_reference(tmp_path: Path):
    rows: list[dict[str, object]] = [
        {"image": "dark.png", "mos": 0.2, "ref": COFFEE},
        {"image": COFFEE, "mos": 0.9, "ref": ""},
        {"image": "same.png", "mos": 0.7, "ref": CAT},
    ]
    spec = csv_benchmark(tmp_path, rows)
    Image.fromarray(photograph("coffee", 96) // 2).save(tmp_path / "dark.png")
    (tmp_path / "same.png").write_bytes((tmp_path / CAT).read_bytes())
    source = rating_source(spec, None, tmp_path / "pool")
    refs = {Path(ref.uri).name: ref for ref in source.pool}
    assert list(refs) == [COFFEE, "dark.png", CAT, "same.png"]
    assert (refs["dark.png"].ref_id, refs[COFFEE].ref_id) == (refs[COFFEE].id, "")
    assert (refs["same.png"].status, refs["same.png"].ref_id, refs[CAT].ref_id) == (Status.DUPLICATE, "", "")
    assert scores_of(source) == {"dark.png": 0.2, COFFEE: 0.9, "same.png": 0.7}
    assert len(collect([source], [build_pixels(source.pool, Preprocess(max_side=96), tmp_path / "cache")]).refs) == 3


def test_the_opinions_of_equal_files_are_averaged(tmp_path: Path):
    rows: list[dict[str, object]] = [
        {"image": ASTRONAUT, "mos": 0.2},
        {"image": COFFEE, "mos": 0.5},
        {"image": "copy.png", "mos": 0.8},
        {"image": "linked.png", "mos": 0.7},  # the same file by another name
    ]
    spec = csv_benchmark(tmp_path, rows)
    (tmp_path / "copy.png").write_bytes((tmp_path / ASTRONAUT).read_bytes())
    (tmp_path / "linked.png").hardlink_to(tmp_path / COFFEE)
    source = rating_source(spec, None, tmp_path / "pool")
    assert scores_of(source) == {ASTRONAUT: 0.5, COFFEE: 0.6}
    assert source.pool.manifest.notes["averaged"] == [[ASTRONAUT, "copy.png"], [COFFEE, "linked.png"]]
    examples = collect([source], [build_pixels(source.pool, Preprocess(max_side=96), tmp_path / "cache")])
    np.testing.assert_allclose(examples.examples.target, [0.5, 0.6], rtol=1e-6)


def test_bad_images_are_rows_with_a_reason_and_the_rest_is_learned_from(tmp_path: Path):
    rows: list[dict[str, object]] = [{"image": name, "mos": 0.4} for name in (CAT, "gone", "torn.png", ROCKET)]
    spec = csv_benchmark(tmp_path, rows)
    (tmp_path / "torn.png").write_bytes((tmp_path / COFFEE).read_bytes()[:900])
    source = rating_source(spec, None, tmp_path / "pool")
    assert [ref.status for ref in source.pool] == [Status.OK, Status.MISSING, Status.CORRUPT, Status.OK]
    assert set(scores_of(source)) == {CAT, ROCKET}
    assert left_out([source]) == [
        f"ratings: 2 of 4 images left out, such as {tmp_path / 'gone'}: {source.pool[1].reason}"
    ]
    examples = collect([source], [build_pixels(source.pool, Preprocess(max_side=96), tmp_path / "cache")])
    assert [Path(ref.uri).name for ref in examples.refs] == [CAT, ROCKET]


def test_without_one_usable_image_nothing_is_left_behind(tmp_path: Path):
    spec = csv_benchmark(tmp_path, [{"image": "one.png", "mos": 0.4}, {"image": "two.png", "mos": 0.5}])
    with pytest.raises(PocketiqaError, match=r"not one rated image of benchmark ratings can be used .*'missing': 2"):
        rating_source(spec, None, tmp_path / "pool")
    for name in ("one", "two"):
        Image.fromarray(photograph("coffee", 96)).save(tmp_path / f"{name}.png")
    assert scores_of(rating_source(spec, None, tmp_path / "pool")) == {"one.png": 0.45}


def test_an_unchanged_pool_is_used_again_and_a_changed_one_is_refused(tmp_path: Path):
    rows: list[dict[str, object]] = [{"image": name, "mos": 0.4} for name in (CAT, ROCKET)]
    spec, read = csv_benchmark(tmp_path, rows), list[int]()

    def again(overwrite: bool = False) -> Source:
        return rating_source(
            spec, None, tmp_path / "pool", overwrite=overwrite, progress=lambda done, _: read.append(done)
        )

    first = again()
    assert read == [1, 2]
    assert again(overwrite=True).pool.digest == first.pool.digest
    assert again().labels.digest == first.labels.digest
    assert read == [1, 2]
    os.utime(tmp_path / CAT, ns=(1, 1))
    assert again(overwrite=True).pool.manifest.content == first.pool.manifest.content
    assert again().pool.digest == first.pool.digest
    assert read == [1, 2, 1, 2]
    Image.fromarray(photograph("coffee", 96)).save(tmp_path / CAT)
    with pytest.raises(OutputConflictError, match="was made differently"):
        again()
    assert again(overwrite=True).pool[0].id == sha256_file(tmp_path / CAT)[:24]


def test_new_opinions_of_the_same_images_are_new_labels_of_the_same_pool(tmp_path: Path):
    rows: list[dict[str, object]] = [{"image": name, "mos": 0.4} for name in (CAT, ROCKET)]
    first = rating_source(csv_benchmark(tmp_path, rows), None, tmp_path / "pool")
    (tmp_path / "ratings.csv").write_text(f"image,mos\n{CAT},0.9\n{ROCKET},0.4\n")
    again = rating_source(f"csv:{tmp_path / 'ratings.csv'}", None, tmp_path / "pool")
    assert again.pool.digest == first.pool.digest
    assert again.labels.digest != first.labels.digest
    assert scores_of(again) == {CAT: 0.9, ROCKET: 0.4}


def test_other_processes_wait_for_the_main_one(tmp_path: Path):
    spec = csv_benchmark(tmp_path, GROUPED)
    program = f"""
from pathlib import Path
from distill.data.ratings import rating_source
print("ready", flush=True)
read = []
source = rating_source({spec!r}, None, Path({str(tmp_path / "pool")!r}), progress=lambda *at: read.append(at))
print(source.pool.digest, source.labels.digest, read)
"""
    other = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "RANK": "1"}, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    source = rating_source(spec, None, tmp_path / "pool")
    said, _ = other.communicate(timeout=60)
    assert said.split(maxsplit=2) == [source.pool.digest, source.labels.digest, "[]\n"]


def test_a_recipe_mixes_stores_and_opinions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    csv_benchmark(tmp_path / "data", GROUPED)
    pool = texture_pool(tmp_path, scenes=2, versions=2)
    texture_store(tmp_path / "labels", pool)
    monkeypatch.setenv("RATED", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    sections = [
        SourceSection(pool=Path("~/pool"), labels=tmp_path / "labels"),
        SourceSection(ratings="csv:$RATED/ratings.csv", images=4, weight=2.5),
        SourceSection(ratings="csv:~/data/ratings.csv"),
    ]
    sources = open_sources(sections, tmp_path / "run", seed=1)
    assert [source.name for source in sources] == ["0-texture", "1-ratings", "2-ratings"]
    assert [source.weight for source in sources] == [1.0, 2.5, 1.0]
    assert [source.pool.folder for source in sources[1:]] == [tmp_path / "run" / "1-csv", tmp_path / "run" / "2-csv"]
    assert [len(source.pool) for source in sources] == [4, 4, 7]
    caches = [build_pixels(source.pool, Preprocess(max_side=96), tmp_path / "cache") for source in sources]
    examples = collect(sources, caches)
    assert np.bincount(examples.examples.source).tolist() == [4, 4, 7]
    # The draw and the whole have images in common: the split gives them, and their scenes, to one part.
    parts = split_groups(join_groups(examples.refs), SplitSettings(validation=0.3, test=0.3)).parts
    whole = {
        ref.group: {parts[other.id] for other in sources[2].pool if other.group == ref.group} for ref in examples.refs
    }
    assert {len(examples) for group, examples in whole.items() if group.startswith("ratings")} == {1}
    assert set(parts.values()) == set(Part)
    monkeypatch.delenv("RATED")
    with pytest.raises(PocketiqaError, match=r"variable \$RATED in 'csv:\$RATED/ratings.csv' is not set"):
        open_sources(sections, tmp_path / "run", seed=1)


def test_labels_of_the_images_that_opinions_are_of_are_learned_alone(tmp_path: Path):
    pool = texture_pool(tmp_path, scenes=4, versions=3)
    rows = [f"{ref.uri},0.5,{'a' if ref.group == 'scene1' else 'b'}" for ref in pool if ref.group != "scene3"]
    (tmp_path / "ratings.csv").write_text("\n".join(["image,mos,subset", *rows]))
    store = texture_store(tmp_path / "labels", pool)
    section = {"pool": pool.folder, "labels": store.folder}
    ratings = {"ratings": f"csv:{tmp_path / 'ratings.csv'}"}
    wanted = [section, section | ratings, section | ratings | {"subsets": ["a"], "weight": 2}]
    sources = open_sources([SourceSection.model_validate(one) for one in wanted], tmp_path / "opinions", 0)
    assert [source.name for source in sources] == ["0-texture", "1-texture", "2-texture"]
    assert len({str(source.describe()) for source in sources}) == 3
    cache = build_pixels(pool, Preprocess(max_side=96), tmp_path / "cache")
    examples = collect(sources, [cache] * 3)
    assert Counter(examples.examples.source.tolist()) == {0: 12, 1: 9, 2: 3}
    assert [pool[int(row)].group for row in examples.examples.row[-3:]] == ["scene1"] * 3
    np.testing.assert_array_equal(examples.examples.target[-3:], examples.examples.target[3:6])  # the teacher's labels


def test_a_student_is_judged_by_the_opinions_or_labels_it_learned(tmp_path: Path):
    rows: list[dict[str, object]] = [
        {"image": name, "mos": mos, "subset": "dim", "group": "g"} for name, mos in ((CAT, 0.4), (ROCKET, 0.6))
    ]
    source = rating_source(csv_benchmark(tmp_path, rows), None, tmp_path / "opinions")
    asked = [source.pool[1].id, "0" * 24]
    targets = targets_of(source, asked)
    assert (targets.name, targets.source, targets.ids, targets.names) == ("ratings", "opinions", (asked[0],), (ROCKET,))
    assert (targets.subsets, targets.groups, targets.about["citation"]) == (("dim",), ("ratings: g",), "own ratings")
    np.testing.assert_allclose(targets.scores, [0.6], rtol=1e-6)
    plain = targets_of(Source("mine", source.pool, LabelTable([asked[0]], [0.5])), asked)
    assert (plain.name, plain.source, plain.subsets, plain.scores.tolist()) == ("mine", "opinions", ("",), [0.5])
    pool = texture_pool(tmp_path, scenes=2, versions=2)
    taught = targets_of(Source("t", pool, texture_store(tmp_path / "labels", pool)), [pool[1].id])
    assert (taught.source, taught.ids) == ("teacher", (pool[1].id,))


def test_real_opinions_are_those_of_the_file_and_only_of_its_train_part(tmp_path: Path):
    folder = shared_data("biq2021")
    source = rating_source(f"biq2021:{folder}", None, tmp_path / "pool", images=60)
    with open(folder / "mos.csv", newline="") as file:
        listed = {row["image"]: row for row in csv.DictReader(file)}
    assert len(source.pool) == 60
    assert all(ref.status == Status.OK for ref in Pool.open(tmp_path / "pool"))
    for name, score in scores_of(source).items():
        assert listed[name]["split"] == "train"
        assert float(listed[name]["mos"]) == score
    together: dict[str, set[str]] = {}
    for name, group in group_of(source).items():
        together.setdefault(listed[name]["group"], set()).add(group)
    assert all(len(groups) == 1 for groups in together.values())
    assert len(together) < 60  # it has scenes of several images


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"pool": "p"},
        {"labels": "l"},
        {"pool": "p", "labels": "l", "ratings": "biq2021:x", "features": "f"},
        {"pool": "p", "labels": "l", "features": "f"},
        {"pool": "p", "ratings": "biq2021:x"},
        {"pool": "p", "labels": "l", "images": 5},
        {"pool": "p", "labels": "l", "split": "train"},
    ],
)
def test_a_source_that_is_neither_form_is_told_both(values: dict[str, object]):
    with pytest.raises(ValueError, match="either 'pool' and 'labels', or 'ratings: NAME:FOLDER'"):
        SourceSection.model_validate(values)
