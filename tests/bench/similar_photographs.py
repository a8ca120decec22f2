"""Series of similar photographs, made of those that scikit-image ships, for the picture in ``docs/best.md``.

    python -m tests.bench.similar_photographs demo
    pocketiqa best demo --model paired.onnx --page demo.html

Each series has one photograph as it is; the others are damaged, and shifted by a few pixels as a hand does.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pseudo_labels.distort import distort
from tests.helpers.pools import photograph

SERIES = {
    "coffee": ((None, 0), ("motion_blur", 3), ("white_noise", 3), ("darken", 4)),
    "cat": (("lens_blur", 2), (None, 0), ("jpeg", 4)),
    "astronaut": (("gaussian_blur", 3), ("pixelate", 2), (None, 0), ("impulse_noise", 2), ("darken", 5)),
    "rocket": ((None, 0),),
}
_SIDE_PX, _MARGIN_PX = 480, 12


def main(folder: Path) -> None:
    """Write the series: ``coffee_BURST001.jpg`` and so on."""
    folder.mkdir(parents=True)
    for name, damages in SERIES.items():
        rgb = photograph(name, _SIDE_PX)
        for number, (damage, level) in enumerate(damages, start=1):
            top, left = (5 * number) % _MARGIN_PX, (7 * number) % _MARGIN_PX
            shot = np.ascontiguousarray(rgb[top : top - _MARGIN_PX, left : left - _MARGIN_PX])
            if damage is not None:
                shot = distort(shot, damage, level, seed=0, image_id=name)
            Image.fromarray(shot).save(folder / f"{name}_BURST{number:03}.jpg", quality=92)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
