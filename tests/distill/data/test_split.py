import json
import random

import pytest

from distill.data.split import Part, Split, join_groups, split_groups
from distill.recipe.training import SplitSettings
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.records import ImageRef

SETTINGS = SplitSettings(validation=0.2, test=0.2, seed=5)


def pool(scenes: int = 10, copies: int = 4) -> list[ImageRef]:
    rows = [ImageRef(f"{scene:02}", "u", group=f"scene{scene}") for scene in range(scenes)]
    rows += [
        ImageRef(f"{scene:02}-{copy}", "u", group=f"scene{scene}", ref_id=f"{scene:02}")
        for scene in range(scenes)
        for copy in range(copies)
    ]
    return rows


def test_parts_are_disjoint_in_groups_and_close_to_their_shares():
    rows = pool()
    split = split_groups(join_groups(rows), SETTINGS)
    parts = {ref.group: {split.parts[other.id] for other in rows if other.group == ref.group} for ref in rows}
    assert all(len(measured) == 1 for measured in parts.values())
    assert [split.count(part) for part in (Part.TRAIN, Part.VALIDATION, Part.TEST)] == [30, 10, 10]


def test_the_draw_depends_on_the_seed_but_not_on_the_order_of_rows():
    rows = pool()
    split = split_groups(join_groups(rows), SETTINGS)
    random.Random(0).shuffle(rows)
    assert split_groups(join_groups(rows), SETTINGS).parts == split.parts
    others = [split_groups(join_groups(rows), SplitSettings(validation=0.2, test=0.2, seed=seed)) for seed in range(6)]
    assert len({tuple(sorted(other.parts.items())) for other in others}) > 1


def test_a_synthetic_image_without_group_follows_its_reference():
    rows = [ImageRef(f"r{i}", "u", group=f"g{i}") for i in range(8)]
    rows += [ImageRef(f"d{i}-{k}", "u", ref_id=f"r{i}") for i in range(8) for k in range(3)]
    split = split_groups(join_groups(rows), SETTINGS)
    for i in range(8):
        assert {split.parts[f"d{i}-{k}"] for k in range(3)} == {split.parts[f"r{i}"]}


def test_one_image_in_two_pools_joins_their_groups():
    rows = [ImageRef("a", "u", group="x"), ImageRef("b", "u", group="x"), ImageRef("b", "v", group="y")]
    rows += [ImageRef("c", "v", group="y"), ImageRef("d", "v", group="z")]
    groups = join_groups(rows)
    assert groups["a"] == groups["b"] == groups["c"] != groups["d"]


@pytest.mark.parametrize("seed", range(20))
def test_no_part_is_empty_even_with_one_giant_group(seed: int):
    rows = [ImageRef(f"big{i}", "u", group="big") for i in range(100)]
    rows += [ImageRef(f"s{i}", "u", group=f"s{i}") for i in range(2)]
    split = split_groups(join_groups(rows), SplitSettings(validation=0.1, test=0.1, seed=seed))
    assert [split.count(part) for part in (Part.TRAIN, Part.VALIDATION, Part.TEST)] == [100, 1, 1]


def test_too_few_groups_are_an_error_with_the_numbers():
    with pytest.raises(PocketiqaError, match=r"10 images in 2 groups .* 3 parts"):
        split_groups(join_groups(pool(2)), SETTINGS)
    split = split_groups(join_groups(pool(2)), SplitSettings(validation=0.2))
    assert {split.count(Part.TRAIN), split.count(Part.VALIDATION)} == {5}


def test_a_split_survives_json():
    split = split_groups(join_groups(pool()), SETTINGS)
    again = Split.from_dict(json.loads(json.dumps(split.as_dict())))
    assert again.parts == split.parts
    assert again.settings == SETTINGS
