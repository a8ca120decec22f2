"""Names of the benchmarks, and how a command line names one."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qs

from distill.evaluation.benchmarks.others import read_agiqa3k, read_biq2021, read_csv_benchmark
from distill.evaluation.benchmarks.records import Benchmark, Scale
from distill.evaluation.benchmarks.synthetic import read_csiq, read_kadid, read_live, read_tid2013
from distill.evaluation.benchmarks.wild import read_flive, read_koniq, read_livec, read_spaq, read_uhdiqa
from pseudo_labels.errors import PocketiqaError

Reader = Callable[[Path], Benchmark]

BENCHMARKS: MappingProxyType[str, Reader] = MappingProxyType(
    {
        "agiqa3k": read_agiqa3k,
        "biq2021": read_biq2021,
        "csiq": read_csiq,
        "csv": read_csv_benchmark,
        "flive": read_flive,
        "kadid10k": read_kadid,
        "koniq10k": read_koniq,
        "live": read_live,
        "livec": read_livec,
        "spaq": read_spaq,
        "tid2013": read_tid2013,
        "uhdiqa": read_uhdiqa,
    }
)


def load_benchmark(spec: str) -> Benchmark:
    """The benchmark named ``NAME:FOLDER``, such as ``koniq10k:/data/koniq``, or ``csv:FILE``.

    A CSV file on another scale than 0 to 1 names it: ``csv:ratings.csv?scale=1:5``, and ``&best=low`` for difference
    scores.

    Raises:
        PocketiqaError: the name is unknown, the place does not exist, or the files are not as published.
    """
    name, colon, place = spec.partition(":")
    if name not in BENCHMARKS or not colon or not place:
        known = ", ".join(BENCHMARKS)
        raise PocketiqaError(f"benchmark {spec!r} is not of the form NAME:FOLDER with NAME one of {known}")
    if name == "csv":
        file, _, options = place.partition("?")
        return read_csv_benchmark(Path(file), _scale(options) if options else None)
    folder = Path(place)
    if not folder.is_dir():
        raise PocketiqaError(f"benchmark {name}: {folder} is not a folder; give the one the data set was unpacked into")
    return BENCHMARKS[name](folder)


def _scale(options: str) -> Scale:
    given = {key: values[-1] for key, values in parse_qs(options, keep_blank_values=True).items()}
    low, colon, high = given.pop("scale", "0:1").partition(":")
    best = given.pop("best", "high")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = 0.0, 0.0
    if given or not colon or ends[0] >= ends[1] or best not in ("high", "low"):
        raise PocketiqaError(f"{options!r} is not like scale=1:5 or scale=0:100&best=low (low end, high end, best end)")
    return Scale(*ends, "high" if best == "high" else "low")
