"""What the audit of a fused store adds: how its teachers were joined, and which rows were kept."""

from typing import Any

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.fusion.stored import is_fused, read_fusion
from pseudo_labels.store import LabelStore


def find_fusion(
    store: LabelStore, labels: dict[int, tuple[str, str]], counts: dict[str, int], *, whole: bool
) -> tuple[dict[str, Any] | None, str]:
    """The fusion of a store, and a warning if it cannot be trusted.

    Args:
        store: of any kind.
        labels: row to address and reason, for the rows that can be read.
        counts: status to rows, of those rows.
        whole: whether these are all rows.

    Returns:
        ``FusionReport`` as JSON values, each example with its ``uri`` and ``reason`` (empty where its row cannot be
        read); None without a fusion. And the warning, empty if there is none.
    """
    if not is_fused(store):
        return None, ""
    try:
        report = read_fusion(store).report
    except PocketiqaError as error:
        return None, f"nothing is known of the fusion: {error}"
    if whole and report.kept != counts.get("ok", 0):
        return None, (
            f"nothing is known of the fusion: its report tells of {report.kept} kept rows, the store holds "
            f"{counts.get('ok', 0)}; run the same fuse command again"
        )
    examples = {
        name: [own | dict(zip(("uri", "reason"), labels.get(own["row"], ("", "")), strict=True)) for own in found]
        for name, found in report.examples.items()
    }
    return report.as_dict() | {"examples": examples}, ""
