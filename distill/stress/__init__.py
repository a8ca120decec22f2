"""How an exported student behaves under stress: distortion, sizes, file formats, odd images, and where its map points.

``stress`` measures, ``verdicts`` compares with ``LIMITS``; both need the distortions, so the extra ``train``.
"""

from distill.stress.measure import LIMITS, Limits, StressResult, Verdict, stress, verdicts

__all__ = ["LIMITS", "Limits", "StressResult", "Verdict", "stress", "verdicts"]
