"""Long campaigns and their short form: ``make campaign`` runs all of it, the suite a part that says the same."""

import os

WHOLE = os.environ.get("POCKETIQA_CAMPAIGN") == "1"


def kills(whole: int, short: int) -> int:
    """How often a run is killed: ``whole`` in a campaign, ``short`` in the suite."""
    return whole if WHOLE else short
