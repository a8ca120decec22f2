from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.stages import pair_examples
from distill.stages.pair_examples import KINDS, LEVELS, RATED, observe, rated_sets
from pseudo_labels.errors import PocketiqaError
from students.runtime import Scorer
from tests.helpers.paired import write_paired
from tests.helpers.pools import photograph


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer(write_paired(tmp_path_factory.mktemp("observe") / "paired.onnx"))


def write_set(folder: Path, rows: list[tuple[str, float, str]]) -> str:
    for number, (name, _, _) in enumerate(rows):
        rgb = np.roll(photograph("coffee", 80), 5 * number, axis=0)
        Image.fromarray(rgb).save(folder / name)
    lines = ["image,mos,group", *(f"{name},{mos},{group}" for name, mos, group in rows)]
    (folder / "set.csv").write_text("\n".join(lines) + "\n")
    return f"csv:{folder / 'set.csv'}"


def test_pairs_of_a_scene_are_better_first(tmp_path: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    rows = [("a.png", 0.3, "x"), ("b.png", 0.5, "x"), ("c.png", 0.51, "x"), ("d.png", 0.9, "y"), ("e.png", 0.1, "z")]
    sets = rated_sets([write_set(tmp_path, rows)])
    counts: list[tuple[int, int]] = []
    seen = observe(scorer, sets, [], progress=lambda done, total: counts.append((done, total)))
    # Those that are alone are not even scored; of b and c nobody knows which is better.
    assert len(seen.scores) == 3
    assert counts == [(1, 3), (2, 3), (3, 3)]
    assert sorted(map(tuple, seen.pairs)) == [(1, 0), (2, 0)]
    assert seen.kinds == [RATED, RATED]
    assert sorted(seen.gaps) == pytest.approx([0.2, 0.21])
    first = scorer.score(tmp_path / "a.png")
    assert first.embedding is not None
    assert seen.embeddings[0] == pytest.approx(first.embedding)
    assert seen.scores[0] == first.score
    monkeypatch.setattr(pair_examples, "_MOST_PAIRS", 1)
    one, again = (observe(scorer, sets, []) for _ in range(2))
    assert len(one.pairs) == 1
    assert np.array_equal(one.pairs, again.pairs)


def test_each_level_is_better_than_the_next(tmp_path: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pair_examples, "KINDS", KINDS[:2])
    rows = [("a.png", 0.3, "x"), ("b.png", 0.7, "x"), ("c.png", 0.4, "y"), ("d.png", 0.2, "y")]
    sets, words = rated_sets([write_set(tmp_path, rows)]), list[str]()
    Image.new("RGB", (32, 32)).save(tmp_path / "small.png")
    clean = [tmp_path / "small.png", tmp_path / "gone.png", tmp_path / "d.png"]
    seen = observe(scorer, sets, clean, warn=words.append)
    # The rated photograph b is good enough to be damaged too, in its own scene.
    ladder = len(LEVELS) * 2
    assert [seen.kinds.count(kind) for kind in (RATED, *KINDS[:2])] == [2, ladder, ladder]
    assert seen.scenes.count("0:x") == 1 + ladder
    assert seen.scenes.count("clean:d.png") == ladder
    pairs = seen.pairs[[kind == KINDS[0] for kind in seen.kinds]][: len(LEVELS)]
    assert np.array_equal(pairs[1:, 0], pairs[:-1, 1])
    assert np.array_equal(seen.embeddings[pairs[0, 0]], seen.embeddings[1])
    assert np.isnan(seen.gaps[~seen.is_rated]).all()
    # gaussian_blur: what is better scores higher, too.
    assert (seen.scores[pairs[:, 0]] > seen.scores[pairs[:, 1]]).mean() > 0.5
    assert [Path(one.partition(" is left out")[0]).name for one in words] == ["small.png", "gone.png"]


def test_sets_without_scenes_are_refused(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no two rated photographs of csv:.*set\.csv show one scene"):
        rated_sets([write_set(tmp_path, [("a.png", 0.3, "x"), ("b.png", 0.5, "y")])])
    with pytest.raises(PocketiqaError, match="no two rated photographs of no data set"):
        rated_sets([])
