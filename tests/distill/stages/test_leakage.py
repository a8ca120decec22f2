"""Near duplicates of what a run learned from, in its held-out part."""

from pathlib import Path

from distill.leakage.record import read_overlap
from distill.stages.context import Run
from distill.stages.evaluation import held_out, image_sets_of, read_results
from distill.stages.leakage import Comparison, ImageSets, near_duplicate_ids, near_duplicates_held_out


def test_a_comparison_knows_its_folder_or_why_there_is_none(tmp_path: Path):
    assert Comparison("x", "near-0").under(tmp_path) == tmp_path / "near-0"
    silent = Comparison("x", reason="too few images")
    assert silent.under(tmp_path) is None
    assert Comparison(**silent.as_dict()) == silent


def test_the_held_out_part_of_the_run_was_compared(tiny_run: Run):
    (record,) = read_results(tiny_run)["near"]
    folder = Comparison(**record).under(tiny_run.evaluation)
    assert folder is not None
    overlap = read_overlap(folder)
    out = held_out(tiny_run)
    scenes = {out.pool.by_id(id).group for id in out.ids}
    assert len(overlap["images"]) == len(scenes)
    # Six photographs of different things: none shows what another shows.
    assert near_duplicate_ids(folder, out.pool, out.ids) == set()


def test_an_image_that_was_trained_on_takes_its_copies_along(tiny_run: Run, tmp_path: Path):
    out = held_out(tiny_run)
    sets = image_sets_of(out)
    itself = ImageSets(sets.tested, sets.tested)
    comparison = near_duplicates_held_out(itself, tmp_path, seed=0)
    folder = comparison.under(tmp_path)
    if folder is None:  # one scene alone cannot be compared, and says so
        assert comparison.reason
        return
    assert near_duplicate_ids(folder, out.pool, out.ids) == set(out.ids)
