"""The authors' checkpoint, independent of the code under test: its names and shapes, and its decoder by hand."""

import torch
from torch import Tensor
from torch.nn import functional

from teachers.dp_iqa.variants import VARIANTS, build_unet, build_vae


def published(variant: str) -> dict[str, Tensor]:
    """A state dict with the names and shapes of the published one, made without the code under test."""
    sizes = VARIANTS[variant]
    text, (first, second, third, fourth) = sizes.text_width, sizes.unet["block_out_channels"]
    width, reduction = sizes.decoder.width, sizes.decoder.reduction
    shapes: dict[str, tuple[int, ...]] = {"gamma": (text,)}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    layer("text_adapter.fc.0", text, text)
    layer("text_adapter.fc.2", text, text)
    layer("img_adapter.conv_in", first, 3 * 64, 3, 3)
    previous = first
    for block, count in enumerate((first, second, third, fourth)):
        if count != previous:
            layer(f"img_adapter.body.{block}.in_conv", count, previous, 1, 1)
        for unit in (0, 1):
            layer(f"img_adapter.body.{block}.resnets.{unit}.block1", count, count, 3, 3)
            layer(f"img_adapter.body.{block}.resnets.{unit}.block2", count, count, 1, 1)
        previous = count
    # The up blocks give the widths of the down blocks in reverse: conv1 reads the finest.
    for number, count in enumerate((first, second, third, fourth), start=1):
        layer(f"QFD.conv{number}", width, count, 3, 3)
    for name in ("se1", "se2", "se3", "se4", "se_fuse"):
        layer(f"QFD.{name}.fc.0", width // reduction, width, bias=False)
        layer(f"QFD.{name}.fc.2", width, width // reduction, bias=False)
    layer("QFD.fuse_conv", width, 4 * width, 3, 3)
    counts = (width, *sizes.decoder.narrow)
    for number in (1, 2, 3):
        layer(f"QFD.conv_score{number}", counts[number], counts[number - 1], 1, 1)
    hidden, cells = sizes.decoder.hidden, sizes.decoder.map_side**2
    for number, shape in enumerate(((hidden, counts[-1] * cells), (hidden, hidden), (1, hidden)), start=1):
        layer(f"QFD.fc{number}", *shape)
    layer("QFD.classifier_dist", 24, 512)
    shapes |= {f"QFD.bnc1.{name}": (512,) for name in ("weight", "bias", "running_mean", "running_var")}
    state = {name: torch.randn(shape) * 0.05 for name, shape in shapes.items()}
    state |= {f"vae.{name}": value for name, value in build_vae(sizes.vae).state_dict().items()}
    return state | {f"unet.{name}": value for name, value in build_unet(sizes.unet).state_dict().items()}


def by_hand(
    weights: dict[str, torch.Tensor], taps: list[torch.Tensor], map_side: int = 16
) -> tuple[torch.Tensor, torch.Tensor]:
    """The decoder once more, written down from the fact sheet, with the published names."""

    def excite(x: torch.Tensor, name: str) -> torch.Tensor:
        hidden = torch.relu(x.mean((2, 3)) @ weights[f"{name}.fc.0.weight"].T)
        return x * torch.sigmoid(hidden @ weights[f"{name}.fc.2.weight"].T)[..., None, None]

    def convolve(x: torch.Tensor, name: str, padding: int) -> torch.Tensor:
        return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    coarsest, coarse, fine, finest = (
        functional.interpolate(tap, size=(map_side, map_side), mode="bicubic", align_corners=False) for tap in taps
    )
    maps = [
        excite(convolve(tap, f"QFD.conv{number}", 1), f"QFD.se{number}")
        for number, tap in enumerate((finest, fine, coarse, coarsest), start=1)
    ]
    x = excite(convolve(torch.cat(maps, 1), "QFD.fuse_conv", 1), "QFD.se_fuse")
    for number in (1, 2, 3):
        x = convolve(x, f"QFD.conv_score{number}", 0).clamp(min=0)
    y = x.reshape(len(x), -1)
    for number in (1, 2, 3):
        y = y @ weights[f"QFD.fc{number}.weight"].T + weights[f"QFD.fc{number}.bias"]
        y = y.clamp(min=0) if number < 3 else y
    return y[:, 0], x
