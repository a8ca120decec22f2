"""The model card of a student in 8 bits: what it was made from, and how its scores differ."""

from students.formats.convert import ConversionReport

_FULL = "How good the scores are, from what it learned and what it cannot do is said in the card of"


def converted_card(report: ConversionReport) -> str:
    """The card as Markdown; the first paragraph stands alone, as that of each card of the package does.

    Args:
        report: what was written and measured.
    """
    contract, agreement, rated = report.contract, report.agreement, report.rated
    conversion = contract.conversion or {}
    source = contract.name.removesuffix(f"-{conversion['format'].split('-')[-1]}")
    people = ""
    if rated is not None:
        people = (
            f" On {rated.images:,} rated photographs ({rated.name}) its SRCC with people is {rated.srcc:.3f}, that of "
            f"{source} {rated.srcc_float:.3f}; scores differ by {rated.mean:.4f} on average, bias {rated.bias:+.4f}."
        )
    lines = [
        f"# {contract.name}",
        "",
        f"{contract.name} is {source} in 8 bits ({conversion['format']}): a file of {report.size_bytes / 1e6:.2f} MB "
        f"in place of {report.source_bytes / 1e6:.2f}, and scores that follow those of {source} with SRCC "
        f"{agreement.srcc:.4f}.{people}",
        "",
        "## Results",
        "",
        f"- Against {source} on {agreement.images} images, whole and damaged, of {len(agreement.sizes)} sizes: SRCC "
        f"{agreement.srcc:.4f}, mean difference {agreement.mean:.4f}, bias {agreement.bias:+.4f}, largest "
        f"{agreement.largest:.3f}.",
        *([f"-{people}"] if people else []),
        f"- {_FULL} {source}; an interval or a percentile that was made for {source} is not one for this file.",
        "",
        "## How it was made",
        "",
        f"- From {source}, model {conversion['source'][:12]} (SHA-256); this file is model {report.digest[:12]}.",
        f"- Format {conversion['format']}, with {_versions(conversion['versions'])}.",
        *_calibration(conversion),
        "",
        "## Limits",
        "",
        "- Scores of both files must not be mixed in one ranking: the difference above is that of the file, not of the "
        "photographs.",
        *_processors(conversion),
        "",
    ]
    return "\n".join(lines)


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))


def _calibration(conversion: dict) -> list[str]:
    calibration = conversion["calibration"]
    if calibration is None:
        return []
    return [f"- Calibrated on {calibration['photographs']} photographs ({calibration['name']}), whole and damaged."]


def _processors(conversion: dict) -> list[str]:
    if conversion["calibration"] is None:
        return []
    return [
        "- It is made for processors that multiply 8 bits without saturating: x86 with VNNI (avx512_vnni, avx_vnni), "
        "ARM with dot products. On older x86 processors sums of two products saturate: it is slower there, and scores "
        "may differ by more than stated."
    ]
