from dataclasses import replace
from pathlib import Path

import pytest

from distill.data.levels import NO_LIMIT, LevelLists, drops_by_name
from distill.recipe.stages import DropSettings
from pseudo_labels.distort import build_synthetic_pool, select
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool, build_pool, write_pool
from pseudo_labels.records import Status
from tests.helpers.pools import write_photographs

STRONG = "waterloo_gaussian_blur"
NOISE = DropSettings(distortions=("white_noise",), least=0.03)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Two photographs, three copies of each under white noise, JPEG, and blur as strong as in the Waterloo set."""
    folder = tmp_path_factory.mktemp("levels")
    write_photographs(folder / "photographs", images=2, max_side=96)
    clean = build_pool([str(folder / "photographs")], folder / "pool")
    return build_synthetic_pool(clean, folder / "synthetic", per_image=9, names=["white_noise", "jpeg", STRONG])


def changed(pool: Pool, folder: Path, row: int, **values: object) -> Pool:
    refs = list(pool)
    refs[row] = replace(refs[row], **values)
    return write_pool(folder, refs, spec={"changed": row})


def test_a_list_is_a_photograph_and_its_copies_by_rising_level(synthetic: Pool):
    drops = DropSettings(distortions=("jpeg", "noise", "waterloo"), least=0.02, most=0.3)
    lists = LevelLists.open(synthetic, [drops])
    assert sorted(one.distortion for one in lists) == sorted(2 * ["jpeg", "white_noise", STRONG])
    for one in lists:
        clean, *copies = (synthetic[place.row] for place in one.places)
        assert (clean.distortion, one.places[0].level) == ("", 0)
        assert {copy.ref_id for copy in copies} == {clean.id}
        assert {copy.distortion for copy in copies} == {one.distortion}
        levels = [place.level for place in one.places]
        assert levels[1:] == sorted(copy.level for copy in copies)
        assert len(set(levels)) == 4
        assert one.drop == (0.02, 0.3)
    assert lists.rows == list(range(len(synthetic)))


def test_distortions_that_are_not_named_take_no_part_and_later_entries_win(synthetic: Pool):
    assert {one.distortion for one in LevelLists.open(synthetic, [NOISE])} == {"white_noise"}
    everything = DropSettings(distortions=("all",))
    assert {one.distortion for one in LevelLists.open(synthetic, [everything])} == {"white_noise", "jpeg"}
    asked = drops_by_name([DropSettings(distortions=("all",)), DropSettings(distortions=("denoise",), most=0.04)])
    assert set(asked) == set(select(["all"]))
    assert asked["denoise"] == (0.01, 0.04)
    assert asked["jpeg"] == (0.01, NO_LIMIT)


def test_what_is_asked_and_which_images_are_part_of_the_identity(synthetic: Pool, tmp_path: Path):
    first = LevelLists.open(synthetic, [NOISE])
    assert first.digest == LevelLists.open(synthetic, [NOISE]).digest
    assert first.digest != LevelLists.open(synthetic, [NOISE.model_copy(update={"least": 0.04})]).digest
    assert first.digest != LevelLists.open(synthetic, [DropSettings(distortions=("jpeg",), least=0.03)]).digest


def test_bad_rows_are_left_out_and_a_list_may_lack_its_clean_picture(synthetic: Pool, tmp_path: Path):
    clean = next(row for row, ref in enumerate(synthetic) if not ref.ref_id)
    without = LevelLists.open(changed(synthetic, tmp_path / "a", clean, status=Status.CORRUPT, reason="cut"), [NOISE])
    assert sorted(len(one.places) for one in without) == [3, 4]
    noisy = next(row for row, ref in enumerate(synthetic) if ref.distortion == "white_noise")
    fewer = LevelLists.open(changed(synthetic, tmp_path / "b", noisy, status=Status.CORRUPT, reason="cut"), [NOISE])
    assert sorted(len(one.places) for one in fewer) == [3, 4]


def test_what_has_no_order_is_refused_with_the_next_step(synthetic: Pool, tmp_path: Path):
    with pytest.raises(PocketiqaError, match="unknown distortion 'blurr': did you mean 'blur'"):
        LevelLists.open(synthetic, [DropSettings(distortions=("blurr",))])
    with pytest.raises(PocketiqaError, match=r"no two levels of one photograph under motion_blur.*pocketiqa distort"):
        LevelLists.open(synthetic, [DropSettings(distortions=("motion_blur",))])
    noisy = next(row for row, ref in enumerate(synthetic) if ref.distortion == "white_noise")
    with pytest.raises(PocketiqaError, match=r"has level 7\.0, not one above 0 and at most 5"):
        LevelLists.open(changed(synthetic, tmp_path / "a", noisy, level=7.0), [NOISE])
