import torch

from teachers.tensor_digest import tensor_digest

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.tensor(3)}


def test_order_layout_and_identity_do_not_matter():
    same = {"c": TENSORS["c"], "b": TENSORS["b"].clone(), "a": TENSORS["a"].T.contiguous().T}
    assert not same["a"].is_contiguous()
    assert tensor_digest(same) == tensor_digest(TENSORS)


def test_names_types_shapes_and_values_matter():
    others = [
        {},
        {"a": TENSORS["a"], "b": TENSORS["b"]},
        {"a": TENSORS["a"], "d": TENSORS["b"], "c": TENSORS["c"]},
        {"a": TENSORS["a"], "b": TENSORS["c"], "c": TENSORS["b"]},
        {**TENSORS, "b": TENSORS["b"].float()},
        {**TENSORS, "b": TENSORS["b"].view(torch.int16)},
        {**TENSORS, "a": TENSORS["a"].reshape(3, 2)},
        {**TENSORS, "a": TENSORS["a"] + 1e-6},
        {**TENSORS, "c": torch.tensor(4)},
    ]
    assert len({tensor_digest(other) for other in [TENSORS, *others]}) == 1 + len(others)
