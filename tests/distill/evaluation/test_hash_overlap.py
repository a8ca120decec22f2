"""Equal files and almost equal pictures, against comparing every pair."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.evaluation.benchmarks import load_benchmark
from distill.evaluation.hash_overlap import Print, benchmark_prints, find_overlap, pool_prints
from pseudo_labels.pool import build_pool
from tests.helpers.pools import photograph


def image_of(bits: int, name: str, sha256: str = "") -> Print:
    return Print(name, sha256, f"{bits:016x}", f"{name}.png")


BASE = 0x123456789ABCDEF0


def test_copies_of_real_photographs_are_detected(tmp_path: Path) -> None:
    trained, tested = tmp_path / "trained", tmp_path / "tested"
    trained.mkdir()
    tested.mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(photograph(name)).save(trained / f"{name}.png")
    (tested / "copy.png").write_bytes((trained / "astronaut.png").read_bytes())
    Image.fromarray(photograph("coffee", 110)).save(tested / "smaller.jpg", quality=80)
    Image.fromarray(photograph("cat")).save(tested / "new.png")
    Image.fromarray(np.full((80, 80, 3), 200, np.uint8)).save(tested / "flat.png")
    (tested / "broken.png").write_text("nothing")
    names = sorted(path.name for path in tested.iterdir())
    (tmp_path / "mos.csv").write_text("image,mos\n" + "".join(f"tested/{name},0.5\n" for name in names))

    seen = []
    prints = benchmark_prints(load_benchmark(f"csv:{tmp_path / 'mos.csv'}"), progress=lambda *step: seen.append(step))
    pool = build_pool([str(trained)], tmp_path / "pool")
    overlap = find_overlap(pool_prints(pool), prints)
    assert [(match.tested.id, match.kind) for match in overlap.matches] == [
        ("tested/copy.png", "same file"),
        ("tested/smaller.jpg", "near"),
    ]
    record = overlap.as_dict()
    assert (record["trained"], record["tested"], record["same_file"], record["near"]) == (2, 4, 1, 1)
    assert record["ids"] == ["tested/copy.png", "tested/smaller.jpg"]
    assert record["examples"][0]["trained_name"].endswith("astronaut.png")
    assert seen[-1] == (5, 5)
    assert [print_.id for print_ in pool_prints(pool, [pool[1].id])] == [pool[1].id]


@pytest.mark.parametrize(("flipped", "matches"), [(0, True), (1, True), (4, True), (5, False), (20, False)])
def test_distance_limit_is_exact(flipped: int, matches: bool) -> None:
    bits = BASE
    for position in range(flipped):
        bits ^= 1 << (3 * position)
    result = find_overlap([image_of(BASE, "train")], [image_of(bits, "test")], near_duplicate_distance=4)
    assert [match.distance for match in result.matches] == ([flipped] if matches else [])


def test_agrees_with_comparing_everything() -> None:
    generator = np.random.default_rng(0)
    trained = [image_of(int(generator.integers(1 << 62)), f"a{at}") for at in range(60)]
    tested = []
    for at in range(60):
        bits = int(trained[at].dhash, 16)
        for position in generator.choice(64, int(generator.integers(0, 8)), replace=False):
            bits ^= 1 << int(position)
        tested.append(image_of(bits, f"b{at}"))

    def bits_apart(one: Print, other: Print) -> int:
        return (int(one.dhash, 16) ^ int(other.dhash, 16)).bit_count()

    result = find_overlap(trained, tested, near_duplicate_distance=4)
    nearest = {one.id: min(bits_apart(one, other) for other in trained) for one in tested}
    expected = {id: distance for id, distance in nearest.items() if distance <= 4}
    assert {match.tested.id: match.distance for match in result.matches} == expected
    assert 10 < len(expected) < 60


def test_the_same_file_wins_over_a_near_duplicate() -> None:
    trained = [image_of(BASE, "near"), image_of(BASE ^ 0xFFFF, "same", sha256="s")]
    result = find_overlap(trained, [image_of(BASE, "test", sha256="s")])
    assert [(match.trained.id, match.kind) for match in result.matches] == [("same", "same file")]


def test_pictures_without_a_hash_match_nothing() -> None:
    nothing = Print("flat", "x", "", "flat.png")
    assert find_overlap([nothing], [Print("other", "y", "", "other.png")]).ids == frozenset()
    assert find_overlap([], [nothing]).as_dict()["near"] == 0
