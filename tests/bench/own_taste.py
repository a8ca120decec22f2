"""Whether ``pocketiqa adapt`` follows a taste: raters who are made of people's ratings, for ``docs/meaning.md``.

    python -m tests.bench.own_taste biq2021 --ratings 200 --work runs/taste

Each rater rates photographs of ss02 of BIQ2021's train part: MOS minus 0.3 times the photograph's rank (-0.5 to 0.5) in
mean saturation ("dislikes colour") or in mean brightness ("likes dark"), or MOS alone. A student is adapted with its
heads alone, and with its last blocks; photographs of other groups are scored with what was written.
"""

import argparse
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.evaluation.benchmarks.records import BenchmarkRow
from distill.evaluation.benchmarks.registry import load_benchmark
from distill.stages.adaptation import NotBetterError, summary_lines
from distill.stages.adapting import adapt
from pseudo_labels.images import load
from pseudo_labels.metrics.correlation import srcc
from students.runtime import Scorer

FloatArray = NDArray[np.float64]
_SEED, _STRENGTH = 0, 0.3
# The ends of what such a rater may say.
_LOW, _HIGH = -_STRENGTH / 2, 1 + _STRENGTH / 2


def _mean_of_channel(path: str, channel: int) -> float:
    return float(np.asarray(Image.fromarray(load(path)).convert("HSV"))[..., channel].mean())


RATERS: dict[str, Callable[[str], float] | None] = {
    "dislikes colour": lambda path: _mean_of_channel(path, 1),
    "likes dark": lambda path: _mean_of_channel(path, 2),
    "MOS": None,
}


def rated_by(of: Callable[[str], float] | None, rows: Sequence[BenchmarkRow]) -> FloatArray:
    """Ratings [N] of a rater."""
    ratings = np.array([row.score for row in rows])
    if of is None:
        return ratings
    values = np.array([of(row.path) for row in rows])
    rank = values.argsort().argsort() / max(len(rows) - 1, 1) - 0.5
    return ratings - _STRENGTH * rank


def drawn(folder: str, number: int, others: int) -> tuple[list[BenchmarkRow], list[BenchmarkRow]]:
    """Photographs of ss02 to rate, and others of other groups, by chance."""
    rows = [row for row in load_benchmark(f"biq2021:{folder}").select("train").rows if row.subset == "ss02"]
    order = np.random.default_rng(_SEED).permutation(len(rows))
    rated = [rows[at] for at in order[:number]]
    groups = {row.group for row in rated}
    rest = [rows[at] for at in order[number:] if rows[at].group not in groups]
    return rated, rest[:others]


def trials(folder: str, names: Sequence[str], work: Path, *, number: int, others: int, blocks: bool) -> Iterator[str]:
    """Lines of each rater: before, and what either way of adapting gives."""
    rated, rest = drawn(folder, number, others)
    unadapted = np.array([Scorer("pocket-m").score(row.path).score for row in rest])
    for name in names:
        place = work / name.replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        both = rated_by(RATERS[name], [*rated, *rest])
        wanted = both[len(rated) :]
        with (place / "ratings.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "mos", "group"])
            writer.writerows(
                [Path(row.path).resolve(), value, row.group] for row, value in zip(rated, both, strict=False)
            )
        yield f"{name}, {number} ratings; {len(rest)} others, unadapted: SRCC {srcc(unadapted, wanted):.3f}"
        for heads_only in (True, False) if blocks else (True,):
            out = place / ("heads.onnx" if heads_only else "blocks.onnx")
            began = time.process_time()
            lines = _adapted(place / "ratings.csv", out, heads_only)
            if out.exists():
                scorer = Scorer(out)
                scores = np.array([scorer.score(row.path).score for row in rest])
                lines.append(f"  others: SRCC {srcc(scores, wanted):.3f}")
            took = time.process_time() - began
            yield "\n".join([f"  {'heads alone' if heads_only else 'last blocks too'}, {took:.0f} s:", *lines])


def _adapted(ratings: Path, out: Path, heads_only: bool) -> list[str]:
    try:
        adapted = adapt("pocket-m", str(ratings), out, scale=f"{_LOW}:{_HIGH}", heads_only=heads_only, overwrite=True)
    except NotBetterError as error:
        return [f"  {error}"]
    return summary_lines(adapted.record)


def main() -> None:
    """Print the lines of all raters, or of those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="folder of BIQ2021, with mos.csv and images")
    parser.add_argument("--ratings", type=int, default=200)
    parser.add_argument("--rater", action="append", choices=list(RATERS))
    parser.add_argument("--others", type=int, default=400, help="photographs that are scored with what was written")
    parser.add_argument(
        "--heads-only", action="store_true", help="leave out the last blocks, which take most of the time"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/taste"))
    given = parser.parse_args()
    names, blocks = given.rater or list(RATERS), not given.heads_only
    for line in trials(given.folder, names, given.work, number=given.ratings, others=given.others, blocks=blocks):
        print(line, flush=True)


if __name__ == "__main__":
    main()
