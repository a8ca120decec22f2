"""Read mutants, each in a process of its own under limits of time and memory, and say what came of it.

The processes are forked from one that has imported everything, so that a mutant costs what reading it costs. What
counts as promised: it is read, or a row says why not, or one plain ``PocketiqaError`` does.
"""

import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from distill.scoring.resuming import RowRecord
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.images import DEFAULT_LIMITS, ImageError, load
from pseudo_labels.records import Status
from tests.campaign.mutants import mutants, open_originals
from tests.helpers.encoders import picture

CPU_S = 10
"""Processor seconds of one file."""
WALL_S = 90
"""Seconds after which a process that sleeps is ended."""
MEMORY_MB = 3000
"""Address space that reading may add; the machine is saved, and whoever needs more is counted."""
LONGEST_MESSAGE = 2000
"""Letters of a message that still fit on a screen."""

READ = ("ok", "rows")


@dataclass(frozen=True)
class Reading:
    """What came of one mutant.

    Attributes:
        number: of the mutant.
        format: of its original.
        file: name of the file that was changed.
        kinds: what was done to it.
        status: ``ok``, ``rows`` (some rows of a container carry a reason), the status of a refused image,
            ``refused`` (one plain error), or what must not be: ``exception``, ``crash``, ``time limit``,
            ``memory limit``, ``message`` (empty, or too long to be read), ``prints`` (on standard error).
        words: of the error.
        cpu_s: processor time.
        memory_mb: peak of the process above that at its start.
    """

    number: int
    format: str
    file: str
    kinds: tuple[str, ...]
    status: str
    words: str
    cpu_s: float
    memory_mb: float

    @property
    def as_promised(self) -> bool:
        """Whether it is one of the promised ends."""
        return self.status in {*READ, "refused", *map(str, Status)}


# -- readers -----------------------------------------------------------------------------------------------------------


def _image(path: Path) -> str:
    rgb = load(path)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise TypeError(f"an image of {rgb.shape}, {rgb.dtype}")
    return "ok"


def _pool_of(path: Path) -> str:
    from pseudo_labels.pool import build_pool

    pool = build_pool([str(path)], path.parent / "made", max_bad_fraction=1.0)
    return "ok" if all(ref.status == Status.OK for ref in pool) else "rows"


def _rating_table(path: Path) -> str:
    from distill.evaluation.benchmarks.registry import load_benchmark

    load_benchmark(f"csv:{path}")
    return "ok"


def _sheet(path: Path) -> str:
    from distill.evaluation.benchmarks.tables import read_sheet

    read_sheet(path, None, ["image", "mos"])
    return "ok"


def _matlab(path: Path) -> str:
    from distill.evaluation.benchmarks.wild import read_mat

    for name in ("AllMOS_release", "AllImages_release"):
        read_mat(path, name)
    return "ok"


def _student(path: Path) -> str:
    from students.runtime import Scorer

    scored = Scorer(str(path)).score(picture(7, 96, 80))
    if not 0 <= scored.score <= 1:
        raise ValueError(f"a score of {scored.score}")
    return "ok"


def _student_folder(path: Path) -> str:
    from students.storage import open_student

    open_student(path)
    return "ok"


def _pool(path: Path) -> str:
    from pseudo_labels.pool import Pool

    list(Pool.open(path))
    return "ok"


def _label_store(path: Path) -> str:
    from pseudo_labels.store import LabelStore

    store = LabelStore.open(path)
    faults = store.verify()
    if faults:
        return "rows"
    store.labels()
    for index in range(store.spec.shards):
        store.shard_features(index)
        store.stats(index)
    return "ok"


def _fusion_report(path: Path) -> str:
    from pseudo_labels.fusion.report import read_fusion_report

    read_fusion_report(path)
    return "ok"


def _recipe(path: Path) -> str:
    from distill.recipe.recipe import load_recipe

    load_recipe(str(path))
    return "ok"


def open_record(folder: Path) -> RowRecord:
    """The record of a run of ``score`` in a folder."""
    return RowRecord(folder / "scores.csv", "0" * 64, DEFAULT_LIMITS)


def _record(path: Path) -> str:
    record = open_record(path)
    record.resume()
    record.close(keep=True)
    return "ok"


def _meaning(path: Path) -> str:
    from students.meaning.intervals import LEVELS, Intervals
    from students.meaning.own_scale import OwnScale
    from students.meaning.population import Population

    if path.name == "population.json":
        population = Population.load(path)
        numbers = [population.percentile(0.5) / 100, (population.stars_of(0.5) or 1) / 5]
    elif path.name == "calibration.json":
        scale = OwnScale.load(path)
        numbers = [(scale(0.5) - scale.low) / (scale.high - scale.low)]
    else:
        numbers = [end for level in LEVELS for end in Intervals.load(path).bounds(0.5, level)]
    if not all(0 <= number <= 1 for number in numbers):
        raise ValueError(f"numbers of {numbers}")
    return "ok"


@dataclass(frozen=True)
class Reader:
    """How a format is read.

    Attributes:
        read: takes the path, returns ``ok`` or ``rows``.
        needs: modules that are imported before the first fork.
    """

    read: Callable[[Path], str]
    needs: tuple[str, ...] = ()


READERS = {
    "image": Reader(_image, ("pseudo_labels.images", "pillow_heif")),
    "pool of": Reader(_pool_of, ("pseudo_labels.pool", "datasets")),
    "rating table": Reader(_rating_table, ("distill.evaluation.benchmarks.registry",)),
    "sheet": Reader(_sheet, ("distill.evaluation.benchmarks.tables", "openpyxl")),
    "MATLAB file": Reader(_matlab, ("distill.evaluation.benchmarks.wild", "scipy.io")),
    "student": Reader(_student, ("students.runtime",)),
    "student folder": Reader(_student_folder, ("students.storage", "timm")),
    "pool": Reader(_pool, ("pseudo_labels.pool",)),
    "label store": Reader(_label_store, ("pseudo_labels.store",)),
    "fusion report": Reader(_fusion_report, ("pseudo_labels.fusion.report",)),
    "recipe": Reader(_recipe, ("distill.recipe.recipe",)),
    "record of score": Reader(_record),
    "record of meaning": Reader(_meaning, ("students.meaning.intervals", "students.meaning.own_scale")),
}


# -- one process a mutant ----------------------------------------------------------------------------------------------


def _outcome(read: Callable[[Path], str], path: Path) -> tuple[str, str]:
    try:
        return read(path), ""
    except ImageError as error:
        status, words = str(error.status), str(error)
    except PocketiqaError as error:
        status, words = "refused", str(error)
    except MemoryError as error:
        return "memory limit", str(error)
    except BaseException as error:  # noqa: BLE001, RUF100 - whatever it is, it must not be
        return "exception", f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE]
    words = " ".join(words.split())  # as the command line joins lines
    plain = 0 < len(words) <= LONGEST_MESSAGE
    return (status, words) if plain else ("message", words[:LONGEST_MESSAGE])


def _child(read: Callable[[Path], str], path: Path, pipe: int, printed: int) -> NoReturn:
    """The whole of a child."""
    try:
        os.setsid()
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory = pages * resource.getpagesize() + MEMORY_MB * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.write(pipe, json.dumps(_outcome(read, path)).encode()[:60_000])
    finally:
        os._exit(0)


def read_one(read: Callable[[Path], str], path: Path) -> tuple[str, str, float, float]:
    """Read a file in a forked process.

    Returns:
        Status, words, processor seconds, and peak memory of the process in MB, that at its start included.
    """
    receiver, sender = os.pipe()
    with tempfile.TemporaryFile() as printed:
        child = os.fork()
        if child == 0:
            _child(read, path, sender, printed.fileno())
        os.close(sender)
        # The write end is held by the child alone: the pipe ends with it.
        sleeps = not select.select([receiver], [], [], WALL_S)[0]
        if sleeps:
            os.killpg(child, signal.SIGKILL)
        said = os.read(receiver, 65_536)
        os.close(receiver)
        _, state, usage = os.wait4(child, 0)
        printed.seek(0)
        noise = printed.read(LONGEST_MESSAGE).decode("utf-8", "replace")
    cpu_s = usage.ru_utime + usage.ru_stime
    status, words = json.loads(said) if said else ("crash", f"ended by signal {os.WTERMSIG(state)}: {noise}")
    if sleeps or (not said and os.WTERMSIG(state) in (signal.SIGXCPU, signal.SIGKILL)):
        status, words = "time limit", f"{cpu_s:.0f} s of the processor, and still at work"
    elif noise and said and status not in ("exception", "memory limit"):
        status, words = "prints", noise
    return status, words, cpu_s, usage.ru_maxrss * 1024 / 1e6


def _run(order: dict[str, Any]) -> None:
    """Read all mutants of an order that are not in its file of results yet, and append them to it."""
    folder, results = Path(order["folder"]), Path(order["results"])
    originals = open_originals(folder / "originals", tuple(order["formats"]))
    done = {one["number"] for one in map(json.loads, results.read_text().splitlines())} if results.exists() else set()
    if order["build_only"] or done >= set(range(order["count"])):
        return
    for module in {need for original in originals for need in READERS[original.reader].needs}:
        try:
            import_module(module)
        except ModuleNotFoundError:  # an extra that is not installed
            continue
    *_, start_mb = read_one(lambda _: "ok", folder)
    with open(results, "a") as file:
        for number, mutant in enumerate(mutants(originals, order["count"], order["seed"])):
            if number in done:
                continue
            work = folder / "work"
            shutil.copytree(mutant.original.folder, work)
            (work / mutant.file).write_bytes(mutant.data)
            name = mutant.original.name  # empty: the folder itself
            status, words, cpu_s, memory_mb = read_one(READERS[mutant.original.reader].read, work / name)
            memory_mb = max(0.0, memory_mb - start_mb)
            reading = Reading(
                number, mutant.original.format, mutant.file, mutant.kinds, status, words, cpu_s, memory_mb=memory_mb
            )
            if not reading.as_promised:
                kept = folder / "faults" / f"{number}-{Path(mutant.file).name}"
                kept.parent.mkdir(exist_ok=True)
                kept.write_bytes(mutant.data)
            shutil.rmtree(work)
            file.write(json.dumps(asdict(reading)) + "\n")
            file.flush()


def read_mutants(
    folder: Path, *, count: int, seed: int, formats: Sequence[str] = (), limit_s: float = 7200
) -> list[Reading]:
    """Read ``count`` mutants in processes of their own; what an earlier call did is not done again.

    Args:
        folder: for originals, results, and the mutants that were not read as promised.
        count: of mutants.
        seed: of the mutants.
        formats: see ``mutants.build_originals``.
        limit_s: for the whole.

    Raises:
        RuntimeError: the process that forks failed by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "work", ignore_errors=True)
    results = folder / "readings.jsonl"
    order = {"folder": str(folder), "results": str(results), "formats": list(formats), "count": count, "seed": seed}
    # Originals are made by a process of their own: pyarrow and ONNX Runtime start threads, which do not survive a fork.
    built = (folder / "originals" / "index.json").exists()
    for build_only in (False,) if built else (True, False):
        command = [sys.executable, "-m", "tests.campaign.reading", json.dumps(order | {"build_only": build_only})]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
            text=True, timeout=limit_s,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"reading mutants failed by itself:\n{done.stderr}")
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return [Reading(**{**line, "kinds": tuple(line["kinds"])}) for line in lines]


if __name__ == "__main__":
    _run(json.loads(sys.argv[1]))
