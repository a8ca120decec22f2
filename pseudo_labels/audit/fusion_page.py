"""The part of the audit page that is about a fusion: calibration, agreement of teachers, rows kept and dropped."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from pseudo_labels.audit.charts import calibration_curves, scatter_matrix
from pseudo_labels.audit.html import picture, table
from pseudo_labels.fusion.calibrate import Calibration
from pseudo_labels.fusion.keep import Drop
from pseudo_labels.pool import Pool

_UNFITTED = {"quantile": "aligned by quantiles, without opinions", "none": "scores as they are"}


def fusion_section(fusion: Mapping[str, Any], pool: Pool | None) -> str:
    """How the teachers were fused, in tables, charts and pictures.

    Args:
        fusion: of ``AuditReport``.
        pool: for pictures; None where it is not to be had.
    """
    pairs = ""
    if fusion["pairs"]:
        matrix = scatter_matrix(fusion["ensemble"]["names"], fusion["pairs"])
        note = "Calibrated scores; each point an image, up to 400 of them. On the dotted line both say the same."
        pairs = f'<h3>Teacher against teacher</h3><p class="note">{note}</p>{matrix}'
    return "".join([
        "<h2>Fusion</h2>", _rows(fusion), _teachers(fusion), _together(fusion["labelled"]), pairs,
        _pictures(fusion, pool),
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
    found = [["kept", fusion["kept"], ""]]
    found += [["dropped", dropped[reason], why] for reason, why in words.items() if reason in dropped]
    return table(["Rows", "", "Share", "Why"], [[name, n, f"{n / total:.1%}", why] for name, n, why in found])


def _teachers(fusion: Mapping[str, Any]) -> str:
    names = fusion["ensemble"]["names"]
    found = [Calibration.from_dict(own) for own in fusion["ensemble"]["calibrations"]]
    rows = []
    for own, teacher in zip(found, fusion["teachers"], strict=True):
        rank = "" if own.agreement is None else _interval(own.agreement.as_dict())
        how = _UNFITTED.get(own.method, own.method)
        rows.append([teacher["name"], rank, _expected_error(own), teacher["weight"], how, own.n, teacher["scored"]])
    head = ["Teacher", "SRCC [95 %]", "Expected error", "Weight", "Calibration", "Opinions", "Scored rows"]
    note = (
        "SRCC: of the teacher's own scores with the opinions. Expected error: of its calibrated scores, in units of "
        "the score; found on scenes that the calibration did not see, or taken as a tenth where there are no opinions. "
        "Weight: mean over the kept rows."
    )
    curves = f'<div class="charts">{calibration_curves(names, [own.map for own in found])}</div>'
    return f'<h3>Teachers</h3>{table(head, rows)}<p class="note">{note}</p>{curves}'


def _expected_error(own: Calibration) -> float:
    if own.held_out_rmse is not None:
        return own.held_out_rmse[own.method]
    return float(np.sqrt(own.expected(1.0, np.nan)))


def _interval(found: Mapping[str, Any]) -> str:
    if found["srcc"] is None:
        return "none"
    ends = "" if found["low"] is None else f" [{found['low']:.3f}, {found['high']:.3f}]"
    return f"{found['srcc']:.3f}{ends}"


def _together(labelled: Mapping[str, Any]) -> str:
    """Fused score and teachers on the same images."""
    if not labelled:
        return ""
    judged = {"fused": labelled["fused"], **labelled["teachers"]}
    rows = [[name, _interval(own), "none" if own["rmse"] is None else own["rmse"]] for name, own in judged.items()]
    title = f"On the {labelled['n']:,} images with opinions that all teachers scored, of {labelled['groups']:,} scenes"
    note = "By calibrations that did not see the scene."
    return f'<h3>{title}</h3>{table(["", "SRCC [95 %]", "Error (RMSE)"], rows)}<p class="note">{note}</p>'


def _pictures(fusion: Mapping[str, Any], pool: Pool | None) -> str:
    parts = ["<h3>Kept and dropped</h3>"]
    if pool is None:
        parts.append("<p>The pool that was labelled is not to be had, so there are no pictures of the examples.</p>")
    titles = {"kept": "Kept, the surest"} | {reason: f"Dropped: {why}" for reason, why in _words(fusion).items()}
    names = fusion["ensemble"]["names"]
    for reason, title in titles.items():
        found = fusion["examples"].get(reason, [])
        figures = "".join(picture(pool, own["row"], own["uri"], _caption(own, names)) for own in found)
        parts.append(f'<p><b>{escape(title)}</b></p><div class="row">{figures}</div>' if found else "")
    return "".join(parts)


def _caption(example: Mapping[str, Any], names: list[str]) -> str:
    pairs = zip(names, example["teachers"], strict=True)
    said = ", ".join(f"{name} {'none' if score is None else f'{score:.3f}'}" for name, score in pairs)
    fused = "no score" if example["score"] is None else f"<b>{example['score']:.3f}</b>"
    spread = "" if example["score_std"] is None else f" ± {example['score_std']:.3f}"
    why = f"<br>{escape(example['reason'])}" if example["reason"] else ""
    return f"{fused}{spread}<br>{escape(said)}{why}"
