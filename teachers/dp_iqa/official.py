"""The authors' published teacher checkpoint -> ``DpIqa``, by name and shape, strictly.

The names are facts about the published file (see TEACHERS.md, section 1); nothing was taken from the authors' code.
The checkpoint holds no prompt features: make a prompt bank with CLIP ViT-L/14, or use the parts that need none.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.dp_iqa.assembly import meta_model
from teachers.dp_iqa.base_weights import today_name
from teachers.dp_iqa.model import Conditioning, DpIqa
from teachers.dp_iqa.tensors import assign, read_tensors, refuse_misfits, tensors_only
from teachers.misfits import some

# Ours -> theirs. conv1 takes the finest tap, as ``QualityDecoder.reduce[0]`` does.
_THEIRS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (r"text_adapter\.gamma", "gamma"),
        (r"text_adapter\.layers\.", "text_adapter.fc."),
        (r"image_adapter\.adapter\.", "img_adapter."),
        *((rf"decoder\.reduce\.{index}\.", f"QFD.conv{index + 1}.") for index in range(4)),
        *((rf"decoder\.weigh\.{index}\.layers\.", f"QFD.se{index + 1}.fc.") for index in range(4)),
        (r"decoder\.fuse\.", "QFD.fuse_conv."),
        (r"decoder\.weigh_fused\.layers\.", "QFD.se_fuse.fc."),
        *((rf"decoder\.narrow\.{2 * index}\.", f"QFD.conv_score{index + 1}.") for index in range(3)),
        *((rf"decoder\.tail\.{2 * index}\.", f"QFD.fc{index + 1}.") for index in range(3)),
    )
)
_PLAYS_NO_PART = re.compile(r"(QFD\.)?(bnc1|classifier_dist)\..+")
_PARALLEL = "module."


@dataclass(frozen=True)
class Official:
    """A loaded checkpoint.

    Attributes:
        model: in evaluation mode, float32, on the device of the tensors.
        unused: names in the checkpoint that play no part in a score.
    """

    model: DpIqa
    unused: tuple[str, ...]


def load_official(
    checkpoint: str | Path | Mapping[str, Tensor],
    *,
    prompts: Tensor | None = None,
    conditioning: Conditioning | None = None,
    trainable: str = "all",
    variant: str = "sd15",
) -> Official:
    """Load the authors' checkpoint.

    Args:
        checkpoint: a ``.pth`` or safetensors file, or its state dict.
        prompts: features [1485, 768] of a prompt bank; without them, ``taps`` must be given some.
        conditioning: the authors' own choice is ``posterior: sample``.
        trainable: what stays trainable.
        variant: sizes; ``sd15`` is the published one.

    Raises:
        PocketiqaError: the file is missing, damaged or not tensors alone; an entry that is used is missing or of
            another shape; an entry is foreign. The message has the checkpoint's own names.
    """
    if isinstance(checkpoint, str | Path):
        where, content = str(checkpoint), read_tensors(Path(checkpoint))
    else:
        where, content = "the state dict", tensors_only(checkpoint, "the state dict")
    given = {_one_spelling(name): tensor for name, tensor in content.items()}
    unused = tuple(name for name in given if _PLAYS_NO_PART.fullmatch(name))
    model = meta_model(variant, prompts=prompts, conditioning=conditioning, trainable=trainable)
    own = model.state_dict()
    wanted = {official_name(name): tensor for name, tensor in own.items()}
    if not set(wanted) & set(given):
        found = some(given) or "nothing"
        raise PocketiqaError(f"{where} is no DP-IQA checkpoint: it holds {found}; give the authors' published teacher")
    refuse_misfits(wanted, {name: tensor for name, tensor in given.items() if name not in unused}, where)
    assign(model, {name: given[official_name(name)] for name in own}, where)
    return Official(model.eval(), unused)


def official_name(name: str) -> str:
    """The authors' name of one of our tensors."""
    for ours, theirs in _THEIRS:
        match = ours.match(name)
        if match:
            return theirs + name[match.end() :]
    return name


def _one_spelling(name: str) -> str:
    """Without what data parallelism and diffusers' wrapper put in front, and with today's names of attention."""
    name = name.removeprefix(_PARALLEL)
    if name.startswith("img_adapter.adapter."):
        name = "img_adapter." + name.removeprefix("img_adapter.adapter.")
    return today_name(name)
