"""An audit report as one HTML file that loads nothing from anywhere."""

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from pseudo_labels.audit import HISTOGRAM_BINS
from pseudo_labels.audit_report import AuditReport
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import write_atomic
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore

_THUMBNAIL_PX = 160
_BLUE, _GREY = "#2b6cb0", "#a0aec0"
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1a202c; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2em 1em .2em 0; vertical-align: top; }
th { font-weight: 600; } td.n, th.n { text-align: right; } tr + tr { border-top: 1px solid #e2e8f0; }
.warning { border-left: 4px solid #dd6b20; background: #fffaf0; padding: .4em .8em; margin: .4em 0; }
.good { border-left: 4px solid #38a169; background: #f0fff4; padding: .4em .8em; }
.row { display: flex; flex-wrap: wrap; gap: 1em; } figure { margin: 0; width: 165px; font-size: 12px; }
figcaption { overflow-wrap: anywhere; color: #4a5568; } img { max-width: 100%; } code { overflow-wrap: anywhere; }
"""


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
    body = "".join([
        f"<h1>{escape(title)}</h1>", _findings(report), _facts(report), _coverage(report), _charts(report),
        _distortions(report), _pictures(report),
    ])  # fmt: skip
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
    text = f"{page}<style>{_STYLE}</style><body>{body}</body></html>\n"
    write_atomic(out, text.encode("utf-8", "backslashreplace"))


def _findings(report: AuditReport) -> str:
    if not report.warnings:
        return '<p class="good">Every shard is as it was written, and nothing stands out.</p>'
    return "".join(f'<p class="warning">{escape(warning)}</p>' for warning in report.warnings)


def _table(head: list[str], rows: list[list[Any]]) -> str:
    def cell(value: Any, tag: str = "td") -> str:
        number = isinstance(value, int | float)
        text = f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if isinstance(value, float) else str(value)
        return f"<{tag}{' class=n' if number else ''}>{escape(text)}</{tag}>"

    top = "".join(cell(name, "th") for name in head)
    lines = "".join("<tr>" + "".join(map(cell, row)) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{lines}</table>"


def _facts(report: AuditReport) -> str:
    stamp, scores, spread = report.teacher, report.scores, report.spread
    damage = f"{len(report.missing)} missing, {len(report.faults)} damaged"
    rows: list[list[Any]] = [
        ["Store", report.folder],
        ["Teacher", f"{stamp['name']}, version {stamp['version']}, weights {stamp['weights'][:12]}"],
        ["Options", ", ".join(f"{name} = {value}" for name, value in stamp["options"].items()) or "none"],
        ["Scale", stamp["scale"]],
        ["Licence", stamp["licence"]],
        ["Rows", f"{report.rows:,} in {report.shards:,} shards ({damage})"],
    ]
    if scores["n"]:
        texts = (f"{name} {scores[name]:.3f}" for name in ("mean", "median", "std", "min", "max"))
        rows.append(["Scores", f"{scores['n']:,}: {', '.join(texts)}"])
    if spread["n"]:
        texts = (f"{name} {spread[name]:.3f}" for name in ("mean", "median", "p95"))
        rows.append(["The teacher's own spread", f"{spread['n']:,}: {', '.join(texts)}"])
    return _table(["", ""], rows)


def _coverage(report: AuditReport) -> str:
    rows = []
    for status, found in report.coverage.items():
        rows.append([status, found["count"], "", ""])
        rows += [["", reason["count"], reason["reason"], reason["example"]] for reason in found["reasons"]]
    return "<h2>Coverage</h2>" + _table(["Status", "Rows", "Reason", "For example"], rows)


def _charts(report: AuditReport) -> str:
    if not report.scores["n"]:
        return ""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    histogram, levels, shards = figure.subplots(1, 3)
    edges = [bin / HISTOGRAM_BINS for bin in range(HISTOGRAM_BINS)]
    histogram.bar(edges, report.histogram, 1 / HISTOGRAM_BINS, align="edge", color=_BLUE, edgecolor="white")
    histogram.set(title="Scores", xlabel="score (1 best)", ylabel="images", xlim=(0, 1))
    if report.levels:
        for found in report.distortions.values():
            levels.plot(
                [int(level) for level in found["levels"]],
                list(found["levels"].values()),
                color=_GREY,
                lw=0.8,
                alpha=0.7,
            )
        levels.plot([int(level) for level in report.levels], list(report.levels.values()), "o-", color=_BLUE, lw=2)
        levels.set(title="Mean score by level (grey: single distortions)", xlabel="level", ylim=(0, 1))
    else:
        levels.set_axis_off()
    indexes, means = ([shard[name] for shard in report.by_shard] for name in ("index", "mean"))
    shards.errorbar(indexes, means, [shard["std"] for shard in report.by_shard], fmt=".", color=_BLUE, ecolor=_GREY)
    shards.set(title="Mean and deviation by shard", xlabel="shard", ylim=(0, 1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<h2>Scores</h2><img alt="Histogram, levels and shards" src="{_inline(buffer.getvalue(), "png")}">'


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
    return "<h2>Distortions</h2>" + _table(head, rows)


def _pictures(report: AuditReport) -> str:
    titles = {"lowest": "Lowest scores", "highest": "Highest scores", "uncertain": "Least certain"}
    pool = _pool(report)
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
    caption = f"<b>{example['score']:.3f}</b>{spread}{escape(kind)}<br>{escape(Path(ref.uri).name)}"
    try:
        image = Image.fromarray(pool.load(ref))
    except PocketiqaError as error:
        return f"<figure><p>{escape(str(error))}</p><figcaption>{caption}</figcaption></figure>"
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    picture = f'<img alt="" src="{_inline(buffer.getvalue(), "jpeg")}">'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _inline(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
