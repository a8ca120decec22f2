"""Regions by the Segment Anything Model: automatic masks, objects from boxes, parts from random points.

Source: Kirillov et al. 2023, arXiv 2304.02643, with the models of segment-anything. Its ``SamAutomaticMaskGenerator``
enlarges each of the three masks of each point to the size of the image before it looks at one; that is nearly all of
its time. Here masks are filtered as the decoder gives them (256 x 256): by predicted IoU, by stability, and against
each other; only those that remain are enlarged. Stability and boxes are then those of the coarse mask, which moves a
few masks across the thresholds; ``filter="full"`` runs the generator of segment-anything itself. What remains is the
decoder, and with ``skip_covered`` points that lie in masks of earlier points are not asked at all.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.utils.amg import batched_mask_to_box, build_point_grid, calculate_stability_score
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torchvision.ops import nms

from pseudo_labels.crops import generator
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import sha256_file
from pseudo_labels.records import ImageRef, Status
from pseudo_labels.regions.masks import box_of, encode
from pseudo_labels.regions.readers import TableSource
from pseudo_labels.regions.sources import OBJECT, PART, Proposal
from pseudo_labels.tensor_files import misfits
from teachers.launch import PRECISIONS, check_precision, current_launch
from teachers.needs import find_sam_checkpoint
from teachers.sam_iqa.variants import SamVariant, build_vit, read_checkpoint, variant_named

PROMPTS = ("automatic", "boxes", "points")
FILTERS = ("low", "full")
# Most masks of an image that are enlarged: a pool's limits keep fewer.
_MOST_MASKS = 256
# A mask of more than this fraction of the image, such as its background, answers for no point but its own.
_COVERING = 0.25
# Pixels of masks that are enlarged at a time.
_PIXELS_AT_ONCE = 32_000_000


def build_sam(variant: SamVariant) -> Sam:
    """The whole model with random weights, on the current default device, as the official builder makes it."""
    width, grid = variant.neck_width, variant.native_side_px // variant.patch_px
    tiny = not variant.checkpoint
    depth, heads, hidden = (1, 2, 16) if tiny else (2, 8, 2048)
    side = variant.native_side_px
    prompts = PromptEncoder(width, (grid, grid), (side, side), 4 if tiny else 16)
    decoder = MaskDecoder(transformer_dim=width, transformer=TwoWayTransformer(depth, width, heads, hidden))
    return Sam(build_vit(variant), prompts, decoder)


def load_sam(name: str, weights: str | Path | None) -> Sam:
    """The whole model with the weights of a checkpoint, in float32 on the CPU, in evaluation mode.

    Args:
        name: key of ``variants.VARIANTS``.
        weights: file or folder, see ``variants.load_vit``.

    Raises:
        PocketiqaError: the file is missing, corrupt, holds more than tensors, or is of another model.
    """
    variant = variant_named(name)
    path = find_sam_checkpoint(name, weights)
    content = read_checkpoint(path)
    with torch.device("meta"):
        sam = build_sam(variant)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise PocketiqaError(f"{path} does not hold SAM's tensors by name: give an official SAM checkpoint")
    reason = misfits(sam.state_dict(), content)
    if reason:
        raise PocketiqaError(f"{path} does not fit SAM {name}: {reason}; give {variant.checkpoint or 'another file'}")
    # Assigned, not copied: the meta model has no memory to copy into.
    sam.load_state_dict({key: value.float() for key, value in content.items()}, assign=True)
    # Two buffers that no checkpoint holds.
    for key, values in (("pixel_mean", (123.675, 116.28, 103.53)), ("pixel_std", (58.395, 57.12, 57.375))):
        sam.register_buffer(key, torch.tensor(values).view(-1, 1, 1), persistent=False)
    return sam.eval().requires_grad_(False)


class SamSource:
    """Masks of SAM as regions (``pseudo_labels.regions.sources.RegionSource``), those it trusts most first.

    Args:
        file: checkpoint, or a folder with the official file; None as for ``variants.load_vit``.
        variant: ``vit_b``, ``vit_l``, ``vit_h``, or ``tiny`` for tests.
        prompts: ``automatic`` (a grid of points, three masks each), ``boxes`` (an object in each box) or ``points`` (a
            part at each of ``points`` random points; seed and image id decide).
        boxes: table of boxes for ``prompts="boxes"``, see ``pseudo_labels.regions.readers``.
        points_per_side: points of the grid on a side.
        points: number of random points.
        points_at_once: prompts in one pass of the decoder.
        min_iou: least predicted IoU of a mask.
        min_stability: least IoU between the masks at thresholds of the logits lowered and raised by
            ``stability_offset``.
        stability_offset: above 0.
        skip_covered: leave out points of the grid that lie in a mask of an earlier batch of ``points_at_once`` points,
            if it is not larger than a quarter of the image: fewer passes, but fewer parts of objects.
        max_box_overlap: IoU of boxes above which the mask that SAM trusts less is left out.
        filter: ``low`` or ``full``, see the module; ``full`` is for automatic masks.
        precision: ``fp32``, or ``bf16`` (autocast) for a GPU.
        device: see ``launch.current_launch``.
        seed: of random points.

    Raises:
        PocketiqaError: an unknown choice, a number out of range, or weights that cannot be read.
    """

    name = "sam"
    needs_pixels = True
    in_threads = False  # one model

    def __init__(
        self,
        file: str | Path | None = None,
        *,
        variant: str = "vit_b",
        prompts: str = "automatic",
        boxes: str | Path | None = None,
        points_per_side: int = 32,
        points: int = 16,
        points_at_once: int = 64,
        min_iou: float = 0.88,
        min_stability: float = 0.95,
        stability_offset: float = 1.0,
        max_box_overlap: float = 0.7,
        skip_covered: bool = False,
        filter: str = "low",
        precision: str = "fp32",
        device: str = "auto",
        seed: int = 0,
    ):
        for what, value, known in (("prompts", prompts, PROMPTS), ("filter", filter, FILTERS)):
            if value not in known:
                raise PocketiqaError(f"{what} is {value!r}: choose {', '.join(known)}")
        if (prompts == "boxes") != (boxes is not None):
            raise PocketiqaError("prompts='boxes' and boxes=FILE belong together: give both or none")
        if filter == "full" and prompts != "automatic":
            raise PocketiqaError(f"filter='full' is for automatic masks, not for prompts={prompts!r}: leave it out")
        for what, number in (("points_per_side", points_per_side), ("points", points), ("at once", points_at_once)):
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 1000:
                raise PocketiqaError(f"{what} is {number!r}, but must be a whole number from 1 to 1000")
        check_precision(precision)
        self._variant = variant_named(variant)
        self._file = find_sam_checkpoint(variant, file)
        self._boxes = None if boxes is None else TableSource(boxes)
        self._precision = precision
        self._device = current_launch(device).device
        self._at_once = points_at_once
        self._filter, self._prompts, self._skip_covered = filter, prompts, bool(skip_covered)
        self._side, self._points, self._seed = points_per_side, points, seed
        self._offset = float(stability_offset)
        self._min_iou, self._min_stability, self._nms = float(min_iou), float(min_stability), float(max_box_overlap)
        self._options: dict[str, Any] = {
            "variant": variant,
            "prompts": prompts,
            "min_iou": self._min_iou,
            "min_stability": self._min_stability,
            "stability_offset": self._offset,
            "max_box_overlap": self._nms,
            "points_at_once": points_at_once,
            "precision": precision,
            "filter": filter,
        }
        if prompts == "automatic":
            self._options |= {"points_per_side": points_per_side, "skip_covered": self._skip_covered}
        self._options |= {"points": points, "seed": seed} if prompts == "points" else {}
        self._sam = load_sam(variant, file).to(self._device)
        self._resize = ResizeLongestSide(self._variant.native_side_px)

    def spec(self) -> dict[str, Any]:
        """Checkpoint, options, boxes, and the version of segment-anything, whose code computes the masks."""
        files = {"checkpoint": sha256_file(self._file), "segment-anything": metadata.version("segment-anything")}
        return {**self._options, **files, "boxes": None if self._boxes is None else self._boxes.spec()}

    def opened(self, images: Iterable[ImageRef], scratch: Path) -> AbstractContextManager[Any]:
        """Read the boxes, if there are any."""
        return nullcontext() if self._boxes is None else self._boxes.opened(images, scratch)

    def notes(self) -> dict[str, Any]:
        """Those of the boxes."""
        return {} if self._boxes is None else self._boxes.notes()

    def propose(self, ref: ImageRef, rgb: np.ndarray | None) -> list[Proposal]:
        """Masks of an image, by falling IoU as SAM predicts it; those of boxes in the order of the file."""
        if rgb is None:
            raise PocketiqaError("SAM needs the pixels of an image")
        if self._filter == "full":
            return self._generated(rgb)
        # A list, not a generator: between two yields, the caller would work under inference mode and autocast.
        with torch.inference_mode(), self._autocast():
            resized = self._resize.apply_image(rgb)
            pixels = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))[None].to(self._device)
            features = self._sam.image_encoder(self._sam.preprocess(pixels.float()))
            size = resized.shape[0], resized.shape[1]
            if self._boxes is not None:
                return list(self._objects(ref, rgb.shape[:2], size, features))
            # Fractions of width and height.
            if self._prompts == "automatic":
                points = build_point_grid(self._side)
            else:
                points = generator("sam points", self._seed, ref.id).random((self._points, 2))
            low = self._from_points(torch.from_numpy(points * [size[1], size[0]]).float(), size, features)
            level = OBJECT if self._prompts == "automatic" else PART
            return [Proposal(encode(mask), level) for mask in self._enlarged(low, size, rgb.shape[:2])]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, PRECISIONS[self._precision])

    def _decoded(self, features: Tensor, *, several: bool, **prompt: Any) -> tuple[Tensor, Tensor]:
        """Logits [B, 1 or 3, l, l] and predicted IoU [B, 1 or 3] of prompts, in float32."""
        sparse, dense = self._sam.prompt_encoder(**{"points": None, "boxes": None, "masks": None, **prompt})
        low, iou = self._sam.mask_decoder(
            image_embeddings=features,
            image_pe=self._sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
        )
        return low.float(), iou.float()

    def _from_points(self, points: Tensor, size: tuple[int, int], features: Tensor) -> Tensor:
        """Logits [n, l, l] of the masks of points that pass, by falling predicted IoU.

        Args:
            points: [p, 2], x and y in the resized image.
            size: of the resized image, height and width.
            features: of the encoder.
        """
        every: list[Tensor] = []
        ious: list[Tensor] = []
        remaining = points.to(self._device)
        while len(remaining):
            part, remaining = remaining[: self._at_once], remaining[self._at_once :]
            labels = torch.ones(len(part), 1, dtype=torch.int, device=self._device)
            low, iou = self._decoded(features, several=True, points=(part[:, None], labels))
            if self._prompts == "points":  # one part for each point: the mask that SAM trusts most
                best = iou.argmax(1, keepdim=True)
                low, iou = low.take_along_dim(best[..., None, None], 1), iou.take_along_dim(best, 1)
            low, iou = low.flatten(0, 1), iou.flatten()
            good = iou > self._min_iou
            low, iou = low[good], iou[good]
            # The padding of the square input is no part of the image.
            stable = calculate_stability_score(self._inside(low, size), self._sam.mask_threshold, self._offset)
            # A mask without a pixel has no stability (0 / 0).
            good = (stable >= self._min_stability) & (self._inside(low, size) > self._sam.mask_threshold).any(-1).any(
                -1
            )
            every.append(low[good])
            ious.append(iou[good])
            if self._skip_covered and self._prompts == "automatic":
                remaining = self._uncovered(remaining, low[good], size)
        low, iou = torch.cat(every), torch.cat(ious)
        boxes = batched_mask_to_box(self._inside(low, size) > self._sam.mask_threshold).float()
        # ``nms`` gives the survivors by falling score. The last pixel belongs to a box.
        boxes[:, 2:] += 1
        chosen = nms(boxes, iou, self._nms)[:_MOST_MASKS]
        return low[chosen]

    def _uncovered(self, points: Tensor, low: Tensor, size: tuple[int, int]) -> Tensor:
        """Those of points [p, 2] (x and y in the resized image) that lie in no small mask of the logits [n, l, l]."""
        masks = self._inside(low, size) > self._sam.mask_threshold
        small = masks[masks.float().mean((-1, -2)) <= _COVERING]
        if not len(small) or not len(points):
            return points
        covered = small.any(0)
        cells = (points * (low.shape[-1] / self._variant.native_side_px)).long()
        return points[
            ~covered[cells[:, 1].clamp(max=covered.shape[0] - 1), cells[:, 0].clamp(max=covered.shape[1] - 1)]
        ]

    def _inside(self, low: Tensor, size: tuple[int, int]) -> Tensor:
        scale = low.shape[-1] / self._variant.native_side_px
        return low[..., : math.ceil(size[0] * scale), : math.ceil(size[1] * scale)]

    def _enlarged(self, low: Tensor, size: tuple[int, int], original: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Masks bool [H, W] of logits [n, l, l], at the size of the image, a few at a time."""
        pixels = max(original[0] * original[1], self._variant.native_side_px**2)
        for part in low.split(max(1, _PIXELS_AT_ONCE // pixels)):
            masks = self._sam.postprocess_masks(part[:, None], size, (original[0], original[1]))
            yield from (masks[:, 0] > self._sam.mask_threshold).cpu().numpy()

    def _objects(
        self, ref: ImageRef, original: tuple[int, ...], size: tuple[int, int], features: Tensor
    ) -> Iterator[Proposal]:
        """The object in each box; a box that cannot be read, or an object that SAM does not trust, is a refusal."""
        assert self._boxes is not None
        for given in self._boxes.propose(ref, None):
            if given.status != Status.OK:
                yield given
                continue
            left, top, width, height = box_of(given.counts, ref.height, ref.width)
            box = np.array([[left, top, left + width, top + height]], np.float64)
            scaled = torch.from_numpy(self._resize.apply_boxes(box, (original[0], original[1]))).float()
            low, iou = self._decoded(features, several=False, boxes=scaled.to(self._device))
            if float(iou[0, 0]) <= self._min_iou:
                reason = f"SAM predicts an IoU of {float(iou[0, 0]):.3f} for the box {[left, top, width, height]}"
                yield Proposal("", OBJECT, Status.DROPPED, f"{reason}: at least {self._min_iou:g} is needed")
                continue
            for mask in self._enlarged(low[0], size, original):
                yield Proposal(
                    encode(mask), OBJECT, quality=given.quality, importance=given.importance, severity=given.severity,
                    distortion=given.distortion,
                )  # fmt: skip

    def _generated(self, rgb: np.ndarray) -> list[Proposal]:
        """By segment-anything's own generator."""
        made = SamAutomaticMaskGenerator(
            self._sam,
            points_per_side=self._side,
            points_per_batch=self._at_once,
            pred_iou_thresh=self._min_iou,
            stability_score_thresh=self._min_stability,
            stability_score_offset=self._offset,
            box_nms_thresh=self._nms,
            output_mode="coco_rle",
        )
        with torch.inference_mode(), self._autocast():
            masks = made.generate(rgb)
        masks = sorted(masks, key=lambda one: -one["predicted_iou"])[:_MOST_MASKS]
        return [Proposal(mask["segmentation"]["counts"], OBJECT) for mask in masks]
