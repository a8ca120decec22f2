"""The report: one self-contained page, its JSON twin and the model card."""

from distill.report.inputs import Cost, DamagedCopy, Fitting, MapExample, Neighbours, ReportInputs
from distill.report.page import ReportFiles, build_report

__all__ = ["Cost", "DamagedCopy", "Fitting", "MapExample", "Neighbours", "ReportFiles", "ReportInputs", "build_report"]
