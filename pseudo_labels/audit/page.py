"""An audit report as one HTML file that loads nothing from anywhere."""

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from pseudo_labels.audit.charts import charts
from pseudo_labels.audit.fusion_page import fusion_section
from pseudo_labels.audit.html import STYLE, picture, table
from pseudo_labels.audit.report import AuditReport
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import write_atomic
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore

_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
_TOLD_BELOW = ("parts", "calibrations", "keep")  # options of a fusion, which has a section of its own


def write_audit_page(report: AuditReport, out: Path | str) -> None:
    """Write the report as HTML; pictures are left out where the pool or a file is not to be had.

    Args:
        report: of ``audit_store``.
        out: the file; its folder must exist.

    Raises:
        PocketiqaError: the folder does not exist.
        StorageFullError: the disk is full.
    """
    out = Path(out)
    if not out.parent.is_dir():
        raise PocketiqaError(f"{out}: there is no folder {out.parent}")
    title = f"Labels of {report.teacher['name']}"
    pool = _pool(report)
    fusion = "" if report.fusion is None else fusion_section(report.fusion, pool)
    body = "".join([
        f"<h1>{escape(title)}</h1>", _findings(report), _facts(report), _coverage(report), charts(report), fusion,
        _distortions(report), _pictures(report, pool),
    ])  # fmt: skip
    page = '<!doctype html><html lang="en"><meta charset="utf-8">'
    page += f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
    text = f"{page}<style>{STYLE}</style><body>{body}</body></html>\n"
    write_atomic(out, text.encode("utf-8", "backslashreplace"))


def _findings(report: AuditReport) -> str:
    if not report.warnings:
        return '<p class="good">Every shard is as it was written, and nothing stands out.</p>'
    return "".join(f'<p class="warning">{escape(warning)}</p>' for warning in report.warnings)


def _facts(report: AuditReport) -> str:
    stamp, scores, spread = report.teacher, report.scores, report.spread
    damage = f"{len(report.missing)} missing, {len(report.faults)} damaged"
    rows: list[list[Any]] = [
        ["Store", report.folder],
        ["Teacher", f"{stamp['name']}, version {stamp['version']}, weights {stamp['weights'][:12]}"],
        ["Options", _options(report)],
        ["Scale", stamp["scale"]],
        ["Licence", stamp["licence"]],
        ["Rows", f"{report.rows:,} in {report.shards:,} shards ({damage})"],
    ]
    if scores["n"]:
        texts = (f"{name} {scores[name]:.3f}" for name in ("mean", "median", "std", "min", "max"))
        rows.append(["Scores", f"{scores['n']:,}: {', '.join(texts)}"])
    if spread["n"]:
        texts = (f"{name} {spread[name]:.3f}" for name in ("mean", "median", "p95"))
        rows.append(["Spread", f"{spread['n']:,}: {', '.join(texts)}"])
    return table(["", ""], rows)


def _options(report: AuditReport) -> str:
    told = _TOLD_BELOW if report.fusion is not None else ()
    found = {name: value for name, value in report.teacher["options"].items() if name not in told}
    shown = {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}
    return _DIGEST.sub(r"\1…", ", ".join(f"{name} = {value}" for name, value in shown.items())) or "none"


def _coverage(report: AuditReport) -> str:
    rows = []
    for status, found in report.coverage.items():
        rows.append([status, found["count"], "", ""])
        rows += [["", own["count"], own["reason"], Path(own["example"]).name] for own in found["reasons"]]
    return "<h2>Coverage</h2>" + table(["Status", "Rows", "Reason, of an example", "Example"], rows)


def _distortions(report: AuditReport) -> str:
    if not report.distortions:
        return ""
    names = sorted({level for found in report.distortions.values() for level in found["levels"]})
    rows = [
        [name, found["n"], found["mean"], "" if found["srcc"] is None else found["srcc"]]
        + [found["levels"].get(level, "") for level in names]
        for name, found in sorted(report.distortions.items(), key=lambda item: item[1]["mean"])
    ]
    head = ["Distortion", "Images", "Mean", "SRCC with level", *(f"Level {name}" for name in names)]
    return "<h2>Distortions</h2>" + table(head, rows)


def _pictures(report: AuditReport, pool: Pool | None) -> str:
    titles = {"lowest": "Lowest scores", "highest": "Highest scores", "uncertain": "Least certain"}
    if pool is None:
        return ""
    parts = []
    for key, title in titles.items():
        if report.examples[key]:
            figures = "".join(_figure(pool, example) for example in report.examples[key])
            parts.append(f'<h2>{title}</h2><div class="row">{figures}</div>')
    return "".join(parts)


def _pool(report: AuditReport) -> Pool | None:
    try:
        store = LabelStore.open(Path(report.folder))
        pool = Pool.open(store.pool_path)
    except PocketiqaError:
        return None
    return pool if pool.digest == store.spec.pool_digest else None


def _figure(pool: Pool, example: dict[str, Any]) -> str:
    ref = pool[example["row"]]
    spread = "" if example["score_std"] is None else f" ± {example['score_std']:.3f}"
    kind = f", {ref.distortion} {ref.level:g}" if ref.distortion else ""
    return picture(pool, example["row"], ref.uri, f"<b>{example['score']:.3f}</b>{spread}{escape(kind)}")
