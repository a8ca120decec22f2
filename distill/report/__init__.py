"""The report: one self-contained page, its JSON twin and the model card."""

from distill.report.inputs import Cost, DamagedCopy, Fitting, MapExample, ReportInputs
from distill.report.page import ReportFiles, build_report

__all__ = ["Cost", "DamagedCopy", "Fitting", "MapExample", "ReportFiles", "ReportInputs", "build_report"]
