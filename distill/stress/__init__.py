"""How an exported student behaves under stress: distortion, sizes, file formats, odd images, and where its map points.

``stress`` measures, ``verdicts`` compares with ``LIMITS``, and ``level_verdicts`` says which kinds of distortion it
knows; they need the distortions, so the extra ``train``.
"""

from distill.stress.levels import LevelTable, level_verdicts
from distill.stress.measure import LIMITS, Limits, StressResult, stress, verdicts
from distill.stress.verdict import Verdict

__all__ = ["LIMITS", "LevelTable", "Limits", "StressResult", "Verdict", "level_verdicts", "stress", "verdicts"]
