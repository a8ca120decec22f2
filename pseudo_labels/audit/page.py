"""An audit report as one HTML file that loads nothing from anywhere."""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from pseudo_labels.audit.charts import STYLE, calibration_curves, charts, picture, scatter_matrix, table
from pseudo_labels.audit.store import AuditReport
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.calibrate import Calibration
from pseudo_labels.fusion.keep import Drop
from pseudo_labels.outputs import NewFile, write_file
from pseudo_labels.pool import Pool
from pseudo_labels.remote import location
from pseudo_labels.store import LabelStore

_UNFITTED = {"quantile": "aligned by quantiles, without ratings", "none": "scores as they are"}
# Long hex numbers are digests: the first 12 digits tell them apart, whole ones would fill the table.
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
_TOLD_BELOW = ("parts", "calibrations", "keep")  # options of a fusion, which has a section of its own


def fusion_section(fusion: Mapping[str, Any], pool: Pool | None) -> str:
    """How the teachers were fused, in tables, charts and pictures.

    Args:
        fusion: the fusion record of ``AuditReport``.
        pool: the pool, for pictures; None where it is not available.
    """
    pairs = ""
    if fusion["pairs"]:
        matrix = scatter_matrix(fusion["ensemble"]["names"], fusion["pairs"])
        note = "Calibrated scores; each point an image, up to 400 of them. On the dotted line both say the same."
        pairs = f'<h3>Teacher against teacher</h3><p class="note">{note}</p>{matrix}'
    return "".join([
        "<h2>Fusion</h2>", _rows(fusion), _teachers(fusion), _together(fusion["labelled"]), pairs,
        _dropped_pictures(fusion, pool),
    ])  # fmt: skip


def _words(fusion: Mapping[str, Any]) -> dict[str, str]:
    """What each reason to drop a row says under this rule, in the order in which they are tried."""
    rule = fusion["rule"]
    return {
        Drop.NO_SCORE: "no teacher has a score",
        Drop.TEACHERS: f"fewer than {rule['min_teachers']} teachers have a score",
        Drop.FEATURE: "the feature that is carried over is missing",
        Drop.CONFIDENCE: f"confidence below {rule['min_confidence']:g}",
        Drop.DISAGREEMENT: f"the teachers disagree by more than {rule['max_disagreement']}",
        Drop.OUTLIER: f"more than {rule['max_outlier']:g} deviations from the usual in {rule['outlier_feature']!r}",
    }


def _rows(fusion: Mapping[str, Any]) -> str:
    words, total, dropped = _words(fusion), fusion["rows"], fusion["dropped"]
    rows = [["kept", fusion["kept"], ""]]
    rows += [["dropped", dropped[reason], why] for reason, why in words.items() if reason in dropped]
    return table(["Rows", "", "Fraction", "Why"], [[name, n, f"{n / total:.1%}", why] for name, n, why in rows])


def _teachers(fusion: Mapping[str, Any]) -> str:
    names = fusion["ensemble"]["names"]
    calibrations = [Calibration.from_dict(own) for own in fusion["ensemble"]["calibrations"]]
    rows = []
    for own, teacher in zip(calibrations, fusion["teachers"], strict=True):
        rank = "" if own.agreement is None else _interval(own.agreement.as_dict())
        how = _UNFITTED.get(own.method, own.method)
        rows.append([teacher["name"], rank, _expected_error(own), teacher["weight"], how, own.n, teacher["scored"]])
    head = ["Teacher", "SRCC [95 %]", "Expected error", "Weight", "Calibration", "Ratings", "Scored rows"]
    note = (
        "SRCC: of the teacher's own scores with the ratings. Expected error: of its calibrated scores, in units of "
        "the score; measured on scenes that the calibration did not see, or a tenth where there are no ratings. "
        "Weight: mean over the kept rows."
    )
    curves = f'<div class="charts">{calibration_curves(names, [own.map for own in calibrations])}</div>'
    return f'<h3>Teachers</h3>{table(head, rows)}<p class="note">{note}</p>{curves}'


def _expected_error(own: Calibration) -> float:
    if own.held_out_rmse is not None:
        return own.held_out_rmse[own.method]
    return float(np.sqrt(own.expected(1.0, np.nan)))


def _interval(metric: Mapping[str, Any]) -> str:
    if metric["srcc"] is None:
        return "none"
    ends = "" if metric["low"] is None else f" [{metric['low']:.3f}, {metric['high']:.3f}]"
    return f"{metric['srcc']:.3f}{ends}"


def _together(labelled: Mapping[str, Any]) -> str:
    """Fused score and teachers on the same images."""
    if not labelled:
        return ""
    predicted = {"fused": labelled["fused"], **labelled["teachers"]}
    rows = [[name, _interval(own), "none" if own["rmse"] is None else own["rmse"]] for name, own in predicted.items()]
    title = f"On the {labelled['n']:,} images with ratings that all teachers scored, of {labelled['groups']:,} scenes"
    note = "By calibrations that did not see the scene."
    return f'<h3>{title}</h3>{table(["", "SRCC [95 %]", "Error (RMSE)"], rows)}<p class="note">{note}</p>'


def _dropped_pictures(fusion: Mapping[str, Any], pool: Pool | None) -> str:
    parts = ["<h3>Kept and dropped</h3>"]
    if pool is None:
        parts.append("<p>The pool that was labelled cannot be opened, so there are no pictures of the examples.</p>")
    titles = {"kept": "Kept, the surest"} | {reason: f"Dropped: {why}" for reason, why in _words(fusion).items()}
    names = fusion["ensemble"]["names"]
    for reason, title in titles.items():
        examples = fusion["examples"].get(reason, [])
        figures = "".join(picture(pool, own["row"], own["uri"], _caption(own, names)) for own in examples)
        parts.append(f'<p><b>{escape(title)}</b></p><div class="row">{figures}</div>' if examples else "")
    return "".join(parts)


def _caption(example: Mapping[str, Any], names: list[str]) -> str:
    pairs = zip(names, example["teachers"], strict=True)
    said = ", ".join(f"{name} {'none' if score is None else f'{score:.3f}'}" for name, score in pairs)
    fused = "no score" if example["score"] is None else f"<b>{example['score']:.3f}</b>"
    spread = "" if example["score_std"] is None else f" ± {example['score_std']:.3f}"
    why = f"<br>{escape(example['reason'])}" if example["reason"] else ""
    return f"{fused}{spread}<br>{escape(said)}{why}"


def write_audit_page(report: AuditReport, out: NewFile | Path | str) -> None:
    """Write the report as HTML; pictures are left out where the pool or a file is not available.

    Args:
        report: the report of ``audit_store``.
        out: path, or a file that was claimed (``outputs.new_file``).

    Raises:
        StorageFullError: the disk is full.
        WriteError: the file cannot be written for another reason.
    """
    title = f"Labels of {report.teacher['name']}"
    pool = _pool(report)
    fusion = "" if report.fusion is None else fusion_section(report.fusion, pool)
    body = "".join([
        f"<h1>{escape(title)}</h1>", findings(report.warnings), _facts(report),
        coverage_table(report.coverage), charts(report), fusion,
        _distortions(report), _pictures(report, pool),
    ])  # fmt: skip
    write_page(out, title, body)


def write_page(out: Path | str | NewFile, title: str, body: str) -> None:
    """Write the body of a page (HTML) with its head and style; exceptions are those of ``write_audit_page``."""
    page = '<!doctype html><html lang="en"><meta charset="utf-8">'
    page += f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
    text = f"{page}<style>{STYLE}</style><body>{body}</body></html>\n"
    # A file name that is no valid Unicode must not keep the page from being written.
    write_file(out, text.encode("utf-8", "backslashreplace"))


def findings(warnings: Sequence[str]) -> str:
    """Warnings, or that there are none (HTML)."""
    if not warnings:
        return '<p class="good">Every shard is as it was written, and nothing stands out.</p>'
    return "".join(f'<p class="warning">{escape(warning)}</p>' for warning in warnings)


def _facts(report: AuditReport) -> str:
    stamp, scores, spread = report.teacher, report.scores, report.spread
    distortion = f"{len(report.missing)} missing, {len(report.faults)} corrupt"
    rows: list[list[Any]] = [
        ["Store", report.folder],
        ["Teacher", f"{stamp['name']}, version {stamp['version']}, weights {stamp['weights'][:12]}"],
        ["Options", options_in_words(_own_options(report))],
        ["Scale", stamp["scale"]],
        ["Licence", stamp["licence"]],
        ["Rows", f"{report.rows:,} in {report.shards:,} shards ({distortion})"],
    ]
    if scores["n"]:
        texts = (f"{name} {scores[name]:.3f}" for name in ("mean", "median", "std", "min", "max"))
        rows.append(["Scores", f"{scores['n']:,}: {', '.join(texts)}"])
    if spread["n"]:
        texts = (f"{name} {spread[name]:.3f}" for name in ("mean", "median", "p95"))
        rows.append(["Spread", f"{spread['n']:,}: {', '.join(texts)}"])
    return table(["", ""], rows)


def _own_options(report: AuditReport) -> dict[str, Any]:
    described = _TOLD_BELOW if report.fusion is not None else ()
    return {name: value for name, value in report.teacher["options"].items() if name not in described}


def options_in_words(options: Mapping[str, Any]) -> str:
    """Options as ``name = value``, digests cut short."""
    shown = {name: value if isinstance(value, str) else json.dumps(value) for name, value in options.items()}
    return _DIGEST.sub(r"\1…", ", ".join(f"{name} = {value}" for name, value in shown.items())) or "none"


def coverage_table(coverage: Mapping[str, Any]) -> str:
    """Rows by status and reason, as in ``AuditReport.coverage`` (HTML)."""
    rows = []
    for status, counted in coverage.items():
        rows.append([status, counted["count"], "", ""])
        rows += [["", one["count"], one["reason"], Path(one["example"]).name] for one in counted["reasons"]]
    return "<h2>Coverage</h2>" + table(["Status", "Rows", "Reason, of an example", "Example"], rows)


def _distortions(report: AuditReport) -> str:
    if not report.distortions:
        return ""
    names = sorted({level for distortion in report.distortions.values() for level in distortion["levels"]})
    rows = [
        [name, distortion["n"], distortion["mean"], "" if distortion["srcc"] is None else distortion["srcc"]]
        + [distortion["levels"].get(level, "") for level in names]
        for name, distortion in sorted(report.distortions.items(), key=lambda item: item[1]["mean"])
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
        store = LabelStore.open(location(report.folder))
        pool = Pool.open(store.pool_path)
    except PocketiqaError:
        return None
    return pool if pool.digest == store.spec.pool_digest else None


def _figure(pool: Pool, example: dict[str, Any]) -> str:
    ref = pool[example["row"]]
    spread = "" if example["score_std"] is None else f" ± {example['score_std']:.3f}"
    kind = f", {ref.distortion} {ref.level:g}" if ref.distortion else ""
    return picture(pool, example["row"], ref.uri, f"<b>{example['score']:.3f}</b>{spread}{escape(kind)}")
