"""The report: one self-contained page, its JSON twin and the model card."""

from distill.report.inputs import (
    Cost,
    DistortedCopy,
    Fitting,
    MapExample,
    Neighbours,
    RegionExample,
    Regions,
    ReportInputs,
)
from distill.report.page import ReportFiles, build_report

__all__ = [
    "Cost",
    "DistortedCopy",
    "Fitting",
    "MapExample",
    "Neighbours",
    "RegionExample",
    "Regions",
    "ReportFiles",
    "ReportInputs",
    "build_report",
]
