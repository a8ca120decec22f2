"""Results in words and tables, for the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from distill.terminal.console import shown

if TYPE_CHECKING:  # the words for a pool need no torch
    from pseudo_labels.audit.regions import RegionAudit
    from pseudo_labels.audit.store import AuditReport
    from pseudo_labels.pool import Pool
    from pseudo_labels.regions.store import RegionLabelStore, RegionSet
    from pseudo_labels.store import LabelStore, ShardStore
    from students.export import ExportReport
    from students.formats.convert import ConversionReport
    from students.formats.packages import PackageReport

_METRICS = {"srcc": "SRCC", "plcc": "PLCC", "plcc_logistic4": "PLCC logistic", "krcc": "KRCC", "rmse": "RMSE"}


def _counts(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in statuses.items())


def pool_line(pool: "Pool") -> str:
    """A pool in one line."""
    content = pool.manifest.content
    return f"{len(pool)} images ({_counts(content['statuses'])}) of {content['groups']} scenes"


def pool_summary(pool: "Pool") -> str:
    """A pool in a few lines, bad images with an example of each kind."""
    # Reversed, so that the first bad image of each kind is the one that stays.
    bad = {ref.status: ref for ref in reversed(list(pool)) if ref.status != "ok"}
    lines = [f"{pool.folder}: {pool_line(pool)}"]
    lines += [f"  {status}, such as {shown(ref.uri)}: {shown(ref.reason)}" for status, ref in sorted(bad.items())]
    return "\n".join(lines)


def store_line(store: "LabelStore") -> str:
    """A label store in one line."""
    status = store.manifest.content["status"]
    return f"{store.spec.rows} rows ({_counts(status)}) by {store.spec.stamp.name} in {store.spec.shards} shards"


def store_summary(store: "LabelStore") -> str:
    """A label store in two lines."""
    scores = store.labels()["score"].to_pandas().dropna()
    spread = (
        f"scores {scores.min():.3f} to {scores.max():.3f}, mean {scores.mean():.3f}" if len(scores) else "no scores"
    )
    return f"{store.folder}: {store_line(store)}\n  {spread}"


def unfinished_line(store: "ShardStore") -> str:
    """What is there of a store that other processes are still working on."""
    missing = len(store.missing())
    return f"{store.folder}: {store.shard_count - missing} of {store.shard_count} shards are there, others are to come"


def regions_summary(regions: "RegionSet") -> str:
    """A region manifest in a few lines, with an example of each refusal."""
    content = regions.manifest.content
    rejected = {row.status: row.reason for row in regions.rows() if row.status != "ok"}
    lines = [
        f"{regions.folder}: {content['regions']} regions of {content['images']} images ({_counts(content['status'])}), "
        f"from {regions.manifest.spec['source']}"
    ]
    return "\n".join(lines + [f"  {status}, such as: {reason}" for status, reason in sorted(rejected.items())])


def region_line(results: Mapping[str, Any]) -> str:
    """How well a student or teacher knows regions, in one line: by source, quality, pointing and importance."""
    parts = []
    for name, one in results["sources"].items():
        quality = one["quality"]["models"]
        own = next(name for name in ("student", "teacher") if name in quality)
        within = [model["within"]["value"] for name, model in quality.items() if name != own]
        best = max((value for value in within if value is not None), default=None)
        agreed = _number(quality[own]["srcc"]["value"]), _number(quality[own]["within"]["value"])
        words = [
            f"quality {agreed[0]}, within pictures {agreed[1]} (others at most {_number(best)}, ceiling "
            f"{_number(one['quality']['ceiling']['value'])})"
        ]
        if quality[own].get("pointing", {}).get("n"):
            words.append(f"pointing {_number(quality[own]['pointing']['value'])}")
        if one["importance"]:
            words.append(f"importance {_number(one['importance']['models'][own]['srcc']['value'])}")
        parts.append(f"{name}: {', '.join(words)}")
    return "; ".join(parts)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def region_labels_summary(store: "RegionLabelStore") -> str:
    """A store of region labels in a few lines."""
    lines = [f"{store.folder}: {_counts(store.manifest.content['status'])} by {store.teacher['name']}"]
    rows = [row for row in store.rows() if row.status == "ok"]
    for name in ("quality", "importance", "severity"):
        values = [value for row in rows if (value := getattr(row, name)) == value]  # NaN where there is none
        if values:
            lines.append(f"  {name} {min(values):.3f} to {max(values):.3f}, mean {sum(values) / len(values):.3f}")
    return "\n".join(lines)


def evaluation_line(result: Mapping[str, Any]) -> str:
    """The SRCC of the first model, with n and interval."""
    model = result["models"][0]
    selection = model["selections"][result["headline"]]
    return f"SRCC {_value(selection['metrics']['srcc'])} (n={selection['n']}) against {result['target']['name']}"


def _value(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return "none"  # the reason is in the JSON and on the report page
    if metric.get("low") is None:
        return f"{metric['value']:.3f}"
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def evaluation_tables(result: Mapping[str, Any]) -> list[Table]:
    """One table for each selection of images: a row a model, each metric with its 95 % interval."""
    tables = []
    for selection, counts in result["selections"].items():
        title = f"{result['target']['name']}, {selection} images (n={counts['n']}), 95 % intervals in brackets"
        table = Table("model", "n", *_METRICS.values(), title=title, title_justify="left")
        table.columns[0].overflow = "fold"
        for model in result["models"]:
            own = model["selections"][selection]
            values = [_value(own["metrics"][metric]) for metric in _METRICS]
            table.add_row(shown(model["name"]), str(own["n"]), *values)
        tables.append(table)
    return tables


def coverage_lines(result: Mapping[str, Any]) -> list[str]:
    """A line for each model that could not score every image, with the first reason."""
    lines = []
    for model in result["models"]:
        covered = model["coverage"]
        if covered["examples"]:
            without, reason = covered["images"] - covered["scored"], covered["examples"][0]["reason"]
            name = shown(model["name"])
            lines.append(f"{name} has no score for {without} of {covered['images']} images: {shown(reason)}")
    return lines


def demonstration_table(photographs: Sequence[tuple[str, Mapping[str, float]]]) -> Table:
    """Originals against distorted copies: for each photograph its name, and the score of each version."""
    versions = list(photographs[0][1])
    title = "held-out photographs, scored by the exported model on the CPU (1 is best)"
    table = Table("photograph", *(name.replace("_", " ") for name in versions), title=title, title_justify="left")
    table.columns[0].overflow = "fold"
    for name, scores in photographs:
        table.add_row(shown(name), *(f"{scores[version]:.3f}" for version in versions))
    return table


def export_summary(report: "ExportReport") -> str:
    """An export in two lines: size, cost and parity."""
    contract, parity = report.contract, report.parity
    return (
        f"{report.path}: {report.size_bytes / 1e6:.2f} MB, {contract.parameters / 1e6:.2f} M parameters, "
        f"{contract.macs / 1e9:.2f} GMACs at {contract.preprocess.max_side} pixels\n"
        f"  scores as torch does to {parity.score:.1e} (limit {parity.limit:.0e}) on {parity.images} images"
    )


def conversion_summary(report: "ConversionReport") -> str:
    """A conversion to 8 bits in a few lines: size, how the scores follow, ratings of people."""
    agreement, rated = report.agreement, report.rated
    lines = [
        f"{report.path}: {report.size_bytes / 1e6:.2f} MB, {report.size_bytes / report.source_bytes:.2f} of the float",
        f"  scores as the float student: SRCC {agreement.srcc:.4f}, mean difference {agreement.mean:.4f} (bias "
        f"{agreement.bias:+.4f}, largest {agreement.largest:.3f}) on {agreement.images} images",
    ]
    if rated is not None:
        lines.append(
            f"  SRCC with {rated.images} ratings of {rated.name}: {rated.srcc:.4f} (float {rated.srcc_float:.4f})"
        )
    return "\n".join(lines)


def package_summary(report: "PackageReport") -> str:
    """A student in a format beyond ONNX in a few lines: size, how its scores follow, what its input is."""
    agreement, preprocess = report.agreement, report.contract.preprocess
    there = "" if report.is_new else " (there already, unchanged)"
    lines = [
        f"{report.path}: {report.kind}, {report.size_bytes / 1e6:.2f} MB, contract.json beside it{there}",
        f"  scores as the ONNX file does to {agreement.largest:.1e} on {agreement.images} images of "
        f"{len(agreement.sizes)} sizes",
    ]
    rounding = (report.contract.conversion or {}).get("rounding")
    if rounding:
        sides = f"sides are multiples of {preprocess.multiple} pixels"
        if preprocess.sizes:
            sides = f"every image becomes one of {len(preprocess.sizes)} sizes (preprocess.sizes)"
        lines.append(
            f"  {sides}: on {rounding['images']} photographs this moves scores by {rounding['mean']:.4f} on average, "
            f"{rounding['largest']:.3f} at most"
        )
    return "\n".join(lines)


def audit_summary(report: "AuditReport") -> str:
    """An audit, one line for each fact."""
    lines = [f"{report.folder}: {report.rows} rows in {report.shards} shards, {_state(report)}"]
    lines += _shards_and_statuses(report, "run the same label command again: it labels missing and corrupt shards anew")
    if report.scores.get("n"):
        lines.append("  scores: " + ", ".join(f"{name} {value:.4g}" for name, value in report.scores.items()))
    if report.fusion:
        lines += _fusion_lines(report.fusion)
    if report.levels:
        means = ", ".join(f"{level}: {mean:.3f}" for level, mean in report.levels.items())
        lines.append(f"  mean score by severity: {means}")
    return "\n".join(lines + [f"  look at this: {warning}" for warning in report.warnings])


def region_audit_summary(report: "RegionAudit") -> str:
    """An audit of regions or of their labels, one line for each fact."""
    of = report.made_by["teacher"]["name"] if "teacher" in report.made_by else report.made_by.get("source")
    made = f"labels of {report.regions} regions by {of}" if "teacher" in report.made_by else (
        f"{report.regions} regions from {of}"
    )  # fmt: skip
    lines = [f"{report.folder}: {made} in {report.shards} shards, {_state(report)}"]
    lines += _shards_and_statuses(report, "run the same command again: it makes missing and corrupt shards anew")
    own = report.per_image
    if own["n"]:
        lines.append(
            f"  {own['n']} of {report.images} images, each {own['min']} to {own['max']} regions, mean {own['mean']:.3g}"
        )
    for name, values in report.numbers.items():
        lines.append(f"  {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()))
    for name, counts in report.names.items():
        if counts:
            lines.append(f"  {name}: " + ", ".join(f"{number} {shown(word)}" for word, number in counts.items()))
    return "\n".join(lines + [f"  look at this: {warning}" for warning in report.warnings])


def _state(report: "AuditReport | RegionAudit") -> str:
    return "without fault" if report.ok else "NOT in order"


def _shards_and_statuses(report: "AuditReport | RegionAudit", mend: str) -> list[str]:
    lines = [f"  shard {fault.index} cannot be trusted: {fault.reason}" for fault in report.faults]
    lines += [f"  {len(report.missing)} shards are missing"] if report.missing else []
    lines += [] if report.ok else [f"  {mend}"]
    for status, rows in report.coverage.items():
        example = rows["reasons"][0]["reason"] if rows.get("reasons") else ""
        lines.append(f"  {rows['count']} {status}" + (f", such as: {shown(example)}" if example else ""))
    return lines


def _fusion_lines(fusion: Mapping[str, Any]) -> list[str]:
    dropped = ", ".join(f"{count} for {reason}" for reason, count in fusion["dropped"].items())
    weights = ", ".join(f"{teacher['name']} {teacher['weight']:.2f}" for teacher in fusion["teachers"])
    lines = [f"  fused: {fusion['kept']} rows kept; dropped: {dropped or 'none'}", f"  mean weights: {weights}"]
    return lines + [
        f"  {pair['first']} and {pair['second']}: SRCC {pair['srcc']:.3f} (n={pair['n']})"
        for pair in fusion["pairs"]
        if pair["srcc"] is not None
    ]
