"""An audit of regions or of their labels as one HTML file that loads nothing from anywhere."""

from html import escape
from pathlib import Path
from typing import Any

from pseudo_labels.audit.charts import histogram_of, table
from pseudo_labels.audit.page import coverage_table, findings, options_in_words, write_page
from pseudo_labels.audit.regions import RegionAudit
from pseudo_labels.outputs import NewFile

_TITLES = {
    "area": ("Area", "fraction of the image"),
    "quality": ("Quality", "0 worst, 1 best"),
    "importance": ("Importance", "for the whole image, 1 most"),
    "severity": ("Severity", "of the distortion, 1 worst"),
    "quality_std": ("Spread of the quality", "standard deviation"),
    "importance_std": ("Spread of the importance", "standard deviation"),
    "severity_std": ("Spread of the severity", "standard deviation"),
    "confidence": ("Confidence", "weight in distillation"),
}
_WORDS = {"source": "Source", "level": "Level", "distortion": "Distortion", "type": "Type"}


def write_region_page(report: RegionAudit, out: Path | NewFile) -> None:
    """Write the report as HTML; arguments and exceptions are those of ``page.write_audit_page``."""
    of = report.made_by["teacher"]["name"] if "teacher" in report.made_by else report.made_by.get("source", "")
    title = f"Labels of regions by {of}" if "teacher" in report.made_by else f"Regions from {of}"
    body = "".join([
        f"<h1>{escape(title)}</h1>", findings(report.warnings), table(["", ""], _facts(report)),
        coverage_table(report.coverage), _numbers(report), _charts(report), _types(report), _names(report),
    ])  # fmt: skip
    write_page(out, title, body)


def _facts(report: RegionAudit) -> list[list[Any]]:
    state = f"{len(report.missing)} missing, {len(report.faults)} corrupt"
    rows: list[list[Any]] = [["Folder", report.folder]]
    made = report.made_by
    if "teacher" in made:
        stamp = made["teacher"]
        rows += [
            ["Teacher", f"{stamp['name']}, version {stamp['version']}, weights {stamp['weights'][:12]}"],
            ["Options", options_in_words(stamp["options"])],
            ["Scale", stamp["scale"]],
            ["Licence", stamp["licence"]],
        ]
    else:
        rows += [["Source", str(made.get("source", ""))], ["Options", options_in_words(made.get("options", {}))]]
        rows += [["Limits", options_in_words(made["limits"])]] if "limits" in made else []
    own = report.per_image
    regions = f"{report.regions:,} of {own['n']:,} images"
    if own["n"]:
        regions += f" (each {own['min']} to {own['max']}, mean {own['mean']:.1f})"
    return [*rows, ["Regions", regions], ["Shards", f"{report.shards:,} ({state}), of {report.images:,} images"]]


def _numbers(report: RegionAudit) -> str:
    columns = ("n", "mean", "std", "min", "median", "max", "distinct")
    rows = [[_TITLES[name][0], *(own[column] for column in columns)] for name, own in report.numbers.items()]
    return "<h2>Values</h2>" + table(["", *columns], rows) if rows else ""


def _charts(report: RegionAudit) -> str:
    drawn = [histogram_of(*_TITLES[name], own, "regions") for name, own in report.histograms.items()]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def _types(report: RegionAudit) -> str:
    rows = [[name, own["n"], own["quality"]] for name, own in report.by_type.items()]
    return "<h2>Distortions</h2>" + table(["Type", "Regions", "Mean quality"], rows) if rows else ""


def _names(report: RegionAudit) -> str:
    # Types of labels have a table of their own, with the quality.
    parts = []
    for name, counts in report.names.items():
        if counts and not (name == "type" and report.by_type):
            rows = [[word, number] for word, number in counts.items()]
            parts.append(f"<h2>{_WORDS[name]}</h2>" + table([_WORDS[name], "Regions"], rows))
    return "".join(parts)
