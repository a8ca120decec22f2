from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pseudo_labels.errors import PocketiqaError
from teachers.seagull.extractor import (
    LEVELS,
    ExtractorSizes,
    MaskExtractor,
    load_official_extractor,
    mean_inside,
    meta_extractor,
    parameters_in_use,
)
from tests.teachers.seagull import plain

SMALL = ExtractorSizes(64, (6, 8, 10, 12), 32, 48, heads=4, block_hidden=24, local_hidden=20, mask_side=6)


def random_state(sizes: ExtractorSizes, seed: int = 0) -> dict[str, Tensor]:
    """Weights under the published names; norms and biases differ from their first values."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator) * (0.3 if value.ndim == 1 else value[0].numel() ** -0.5)
        for name, value in meta_extractor(sizes).state_dict().items()
    }


def picture(sizes: ExtractorSizes, regions: int, seed: int = 1) -> tuple[list[Tensor], Tensor, Tensor]:
    """Feature maps, masks (a rectangle each, the first one of a single pixel, the second empty) and crops."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(shape, generator=generator) for shape in sizes.map_shapes]
    masks = torch.zeros((regions, sizes.side_px, sizes.side_px), dtype=torch.bool)
    masks[0, 1, 1] = True
    for row in range(2, regions):
        top, left = (int(torch.randint(sizes.side_px // 2, (), generator=generator)) for _ in range(2))
        masks[row, top : top + 9 + row, left : left + 20] = True
    return maps, masks, torch.randn((regions, 3, sizes.side_px, sizes.side_px), generator=generator)


def as_numpy(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.double().numpy() for tensor in tensors]


def assert_equal_to_numpy(extractor: MaskExtractor, state: dict[str, Tensor], sizes: ExtractorSizes, regions: int):
    maps, masks, crops = picture(sizes, regions)
    with torch.inference_mode():
        given = extractor(maps, masks, crops)
    weights = {name: value.double().numpy() for name, value in state.items()}
    expected = plain.extract(weights, as_numpy(*maps), masks.numpy(), as_numpy(crops)[0], sizes.heads)
    for actual, wanted in zip(given, expected, strict=True):
        assert actual.dtype == torch.float32
        # Worst case seen: 2e-6 of the largest value.
        np.testing.assert_allclose(actual.numpy(), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_the_published_sizes_are_met_to_the_unit():
    extractor = meta_extractor()
    assert sum(value.numel() for value in extractor.parameters()) == 102_875_674
    assert sum(value.numel() for value in extractor.mask_linear.parameters()) == 18_094_080
    shapes = {name: tuple(value.shape) for name, value in extractor.state_dict().items()}
    assert len(shapes) == 70
    assert shapes["mask_linear.layers.0.weight"] == (1024, 12544)
    assert shapes["g_res2.weight"] == (1024, 16384)
    assert shapes["cross_att_res.cross_attn.out_proj.weight"] == (1024, 512)
    assert shapes["global_vit.3.weight"] == (1, 5, 1, 1)
    assert shapes["mlp.layers.2.weight"] == (4096, 512)
    assert shapes["final_mlp.weight"] == (4096, 8192)


def test_it_computes_what_plain_numpy_does():
    state = random_state(SMALL)
    assert_equal_to_numpy(load_official_extractor(state, sizes=SMALL), state, SMALL, regions=6)


def test_the_published_side_and_maps_compute_what_plain_numpy_does():
    # All but the width of the language model, which costs seconds here and changes nothing but the last layers.
    sizes = ExtractorSizes(embedding=64, mask_side=4)
    state = random_state(sizes)
    assert_equal_to_numpy(load_official_extractor(state, sizes=sizes), state, sizes, regions=3)


def test_regions_see_each_other_only_when_asked_together():
    extractor = load_official_extractor(random_state(SMALL), sizes=SMALL)
    maps, masks, crops = picture(SMALL, 5)
    with torch.inference_mode():
        alone = [extractor(maps, masks[row : row + 1], crops[row : row + 1]) for row in range(5)]
        apart = extractor(maps, masks, crops, together=False)
        together = extractor(maps, masks, crops)
    expected = torch.cat([region for region, _ in alone])
    torch.testing.assert_close(apart[0], expected, rtol=1e-5, atol=1e-5)
    assert (together[0] - expected).abs().max() > 1e-3
    torch.testing.assert_close(together[1], torch.cat([local for _, local in alone]), rtol=1e-5, atol=1e-5)


def test_a_region_that_touches_no_cell_of_a_map_gives_zeros():
    level, mask = torch.ones((3, 4, 4)), torch.zeros((2, 64, 64))
    mask[0, 1, 1] = 1  # lies between the four pixels that each cell of 16 x 16 looks at
    mask[1, 8, 8] = 1
    assert mean_inside(level, mask).tolist() == [[0, 0, 0], [pytest.approx(1)] * 3]


def test_maps_are_taken_by_name_too_and_no_regions_give_no_rows():
    extractor = load_official_extractor(random_state(SMALL), sizes=SMALL)
    maps, masks, crops = picture(SMALL, 3)
    with torch.inference_mode():
        by_name = extractor(dict(zip(LEVELS, maps, strict=True)), masks, crops)
        in_order = extractor(maps, masks.float(), crops)
        nothing = extractor(maps, masks[:0], crops[:0])
    assert torch.equal(by_name[0], in_order[0])
    assert [tuple(value.shape) for value in nothing] == [(0, 48), (0, 48)]
    with pytest.raises(PocketiqaError, match="lack res5"):
        extractor(dict(zip(LEVELS[:3], maps[:3], strict=True)), masks, crops)


def test_other_shapes_are_named():
    extractor = MaskExtractor(SMALL)
    maps, masks, crops = picture(SMALL, 3)
    with pytest.raises(PocketiqaError, match=r"of 64x64 pixels, \[\(6, 16, 16\)"):
        extractor([*maps[:3], maps[3][:, :1]], masks, crops)
    with pytest.raises(PocketiqaError, match=r"masks \[3, 32, 64\] and crops \[3, 3, 64, 64\]: \[q, 64, 64\]"):
        extractor(maps, masks[:, :32], crops)
    with pytest.raises(PocketiqaError, match="one crop for each mask"):
        extractor(maps, masks, crops[:2])


def test_files_and_names_with_the_prefix_are_read(tmp_path: Path):
    state = random_state(SMALL)
    save_file(state, tmp_path / "extractor.safetensors")
    torch.save({f"mask_extractor.{name}": value.half() for name, value in state.items()}, tmp_path / "extractor.bin")
    for name in ("extractor.safetensors", "extractor.bin"):
        loaded = load_official_extractor(tmp_path / name, sizes=SMALL).state_dict()
        assert {value.dtype for value in loaded.values()} == {torch.float32}
        torch.testing.assert_close(loaded["res2.weight"], state["res2.weight"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"res2.bias": None}, "it lacks res2.bias"),
        ({"res6.bias": torch.zeros(1)}, "it has the foreign res6.bias"),
        ({"sa.q_proj.bias": torch.zeros(3)}, r"sa.q_proj.bias of shape \[3\] instead of \[16\]"),
    ],
)
def test_tensors_of_another_model_are_refused(change: dict[str, Tensor | None], said: str):
    state = {name: value for name, value in {**random_state(SMALL), **change}.items() if value is not None}
    with pytest.raises(PocketiqaError, match=said):
        load_official_extractor(state, sizes=SMALL)


def test_what_learns_is_what_an_embedding_depends_on():
    extractor = MaskExtractor(SMALL)
    maps, masks, crops = picture(SMALL, 4)
    names = {id(value): name for name, value in extractor.named_parameters()}
    for together in (True, False):
        extractor.zero_grad()
        torch.cat(extractor(maps, masks, crops, together=together)).square().sum().backward()
        moved = {name for name, value in extractor.named_parameters() if value.grad is not None}
        assert {names[id(value)] for value in parameters_in_use(extractor, together=together)} == moved
