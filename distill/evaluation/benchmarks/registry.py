"""Names of the benchmarks, and the form ``NAME:FOLDER?OPTIONS`` in which a command line names one."""

import os
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qs

from distill.evaluation.benchmarks.others import read_agiqa3k, read_biq2021, read_csv_benchmark
from distill.evaluation.benchmarks.records import Benchmark, Scale
from distill.evaluation.benchmarks.splits import carve_validation
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


def names_benchmark(text: str) -> bool:
    """Whether this is meant for ``load_benchmark``, and not a path or an address."""
    name, colon, path = text.partition(":")
    # "//" after the colon makes it an address, even if a scheme had the name of a benchmark.
    return name in BENCHMARKS and bool(colon) and not path.startswith("//")


def load_benchmark(spec: str) -> Benchmark:
    """The benchmark named ``NAME:FOLDER``, such as ``koniq10k:/data/koniq``, or ``csv:FILE``.

    ``?validation=0.15`` behind it carves a validation part out of the train part of a benchmark that has none, by hash
    of its groups: ``biq2021:/data/biq2021?validation=0.15``. A CSV file on another scale than 0 to 1 names it:
    ``csv:ratings.csv?scale=1:5``, and ``&best=low`` for difference scores.

    Raises:
        PocketiqaError: the name or an option is unknown, the path does not exist, the files are not as published, or
            there is a validation part already.
    """
    name, colon, path = spec.partition(":")
    if name not in BENCHMARKS or not colon or not path:
        known = ", ".join(BENCHMARKS)
        raise PocketiqaError(f"benchmark {spec!r} is not of the form NAME:FOLDER with NAME one of {known}")
    # No shell expands a ~ in the middle of a word.
    path, options = _split_options(os.path.expanduser(path))
    validation = options.pop("validation", None)
    benchmark = _read(name, Path(path), options)
    return benchmark if validation is None else carve_validation(benchmark, _fraction(validation, name))


def rated_spec(text: str, scale: str | None = None) -> str:
    """What ``load_benchmark`` takes, of a rated set as people name it in a command.

    Args:
        text: ``NAME:FOLDER``, or the path of a CSV file.
        scale: of the ratings of a CSV file, such as ``1:5``.

    Raises:
        PocketiqaError: a scale for a benchmark, which has its own.
    """
    if not names_benchmark(text):
        return f"csv:{text}" + ("" if scale is None else f"?scale={scale}")
    if scale is not None:
        raise PocketiqaError(f"--scale {scale} is for a CSV file of ratings, and {text!r} has its own scale")
    return text


def _split_options(path_and_options: str) -> tuple[str, dict[str, str]]:
    """The path, and the options behind its question mark; an existing path with a question mark has no options."""
    path, mark, text = path_and_options.rpartition("?")
    # A file may have a question mark in its name, so an existing path is never cut.
    if not mark or Path(path_and_options).exists():
        return path_and_options, {}
    return path, {key: values[-1] for key, values in parse_qs(text, keep_blank_values=True).items()}


def _read(name: str, path: Path, options: dict[str, str]) -> Benchmark:
    if name == "csv":
        return read_csv_benchmark(path, _scale(options) if options else None)
    if options:
        given = "&".join(f"{key}={value}" for key, value in options.items())
        raise PocketiqaError(f"benchmark {name}: unknown option {given!r}: the only one it has is validation=0.15")
    if not path.is_dir():
        raise PocketiqaError(f"benchmark {name}: {path} is not a folder; give the folder of the unpacked data set")
    return BENCHMARKS[name](path)


def _fraction(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PocketiqaError(
            f"validation={text!r} is no fraction of benchmark {name}: give one such as 0.15"
        ) from error


def _scale(options: dict[str, str]) -> Scale:
    given = "&".join(f"{key}={value}" for key, value in options.items())
    low, colon, high = options.get("scale", "0:1").partition(":")
    best = options.get("best", "high")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = 0.0, 0.0  # refused below, with the message for all wrong options
    if set(options) - {"scale", "best"} or not colon or ends[0] >= ends[1] or best not in ("high", "low"):
        raise PocketiqaError(f"{given!r} is not like scale=1:5 or scale=0:100&best=low (low end, high end, best end)")
    return Scale(*ends, "high" if best == "high" else "low")
