"""The first version's use of matches: images that show alike and score apart must not look alike to the decoder.

Source: Li et al., arXiv 2312.06158v1 (December 2023) matches similar semantics with different scores, contrastively.
The form of the loss is ours.
"""

from torch import Tensor
from torch.nn import functional

from teachers.qfm_iqm.matching import Matches, similarities


def too_alike(cosine: Tensor, gap: Tensor, valid: Tensor) -> Tensor:
    """The loss of each image [B]: how far its matches' features are more alike than their scores allow, on average.

    Two images whose scores are ``gap`` apart may have features with a cosine up to 1 - gap.

    Args:
        cosine: of an image's features with those of its matches, [B, k].
        gap: of their scores, [B, k].
        valid: which of them are real; an image without any has no loss.
    """
    excess = functional.relu(cosine - (1 - gap)) * valid
    return excess.sum(1) / valid.sum(1).clamp_min(1)


def contrast(own: Tensor, remembered: Tensor, gap: Tensor, matches: Matches) -> Tensor:
    """The same [B] from features.

    Args:
        own: selected features of B images, with their gradient; [B, ...].
        remembered: of the memory; [L, ...].
        gap: score differences; [B, L].
        matches: rows of the memory.
    """
    cosine = similarities(own.flatten(1), remembered.flatten(1)).gather(1, matches.index)
    return too_alike(cosine, gap.gather(1, matches.index), matches.valid)
