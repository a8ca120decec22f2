"""Readers of rated image sets, each for the files as their authors published them."""

from distill.evaluation.benchmarks.others import with_derived_splits
from distill.evaluation.benchmarks.records import Benchmark, BenchmarkRow, Scale
from distill.evaluation.benchmarks.registry import BENCHMARKS, load_benchmark, names_benchmark

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "BenchmarkRow",
    "Scale",
    "load_benchmark",
    "names_benchmark",
    "with_derived_splits",
]
