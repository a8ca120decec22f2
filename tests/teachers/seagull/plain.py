"""SEAGULL's extractor once more, in numpy and float64, written from the description of its layers alone."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import erf, softmax

Weights = Mapping[str, np.ndarray]


def linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def relu_layers(weights: Weights, name: str, x: np.ndarray, count: int) -> np.ndarray:
    for number in range(count):
        x = linear(weights, f"{name}.layers.{number}", x)
        x = np.maximum(x, 0) if number < count - 1 else x
    return x


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def layer_norm(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(weights: Weights, name: str, queries: np.ndarray, context: np.ndarray, heads: int) -> np.ndarray:
    query = linear(weights, f"{name}.q_proj", queries)
    key, value = linear(weights, f"{name}.k_proj", context), linear(weights, f"{name}.v_proj", context)
    size = query.shape[1] // heads
    parts = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        weight = softmax(query[:, part] @ key[:, part].T / np.sqrt(size), axis=1)
        parts.append(weight @ value[:, part])
    return linear(weights, f"{name}.out_proj", np.concatenate(parts, 1))


def bilinear_rows(length: int, size: int) -> np.ndarray:
    """Matrix [size, length] of a bilinear resize, half-pixel centres, edge repeated, no antialiasing."""
    matrix = np.zeros((size, length))
    for row in range(size):
        position = max((row + 0.5) * length / size - 0.5, 0.0)
        low = min(int(position), length - 1)
        matrix[row, low] += 1 - (position - low)
        matrix[row, min(low + 1, length - 1)] += position - low
    return matrix


def pooled(level: np.ndarray, masks: np.ndarray) -> np.ndarray:
    _, height, width = level.shape
    means = []
    for mask in masks.astype(np.float64):
        small = bilinear_rows(mask.shape[0], height) @ mask @ bilinear_rows(mask.shape[1], width).T
        inside = small > 0
        means.append(level[:, inside].sum(1) / (inside.sum() + 1e-8))
    return np.stack(means)


def mean_pool_4(x: np.ndarray) -> np.ndarray:
    return x.reshape(x.shape[0], x.shape[1] // 4, 4, x.shape[2] // 4, 4).mean((2, 4))


def local_token(weights: Weights, crop: np.ndarray, heads: int) -> np.ndarray:
    def one_by_one(name: str, x: np.ndarray) -> np.ndarray:
        kernel = weights[f"{name}.weight"][:, :, 0, 0]
        return np.tensordot(kernel, x, 1) + weights[f"{name}.bias"][:, None, None]

    small = mean_pool_4(gelu(one_by_one("global_vit.0", crop)))
    small = mean_pool_4(gelu(one_by_one("global_vit.3", small)))
    token = small.reshape(1, -1)
    return relu_layers(weights, "mlp", attention(weights, "sa", token, token, heads), 3)[0]


def extract(
    weights: Weights, features: Sequence[np.ndarray], masks: np.ndarray, crops: np.ndarray, heads: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Global and local embeddings, [q, n] each; arguments as those of ``MaskExtractor``, as numpy arrays."""
    basic_sum, compared_sum = np.zeros(1), np.zeros(1)
    for name, level in zip(("res2", "res3", "res4", "res5"), features, strict=True):
        basic = linear(weights, name, pooled(level, masks))
        channels = linear(weights, f"g_{name}", level.reshape(level.shape[0], -1))
        x = layer_norm(
            weights,
            "cross_att_res.norm1",
            basic + attention(weights, "cross_att_res.self_attn", basic, basic, heads),
        )
        x = layer_norm(
            weights, "cross_att_res.norm2", x + attention(weights, "cross_att_res.cross_attn", x, channels, heads)
        )
        hidden = np.maximum(linear(weights, "cross_att_res.mlp.lin1", x), 0)
        compared_sum = compared_sum + x + linear(weights, "cross_att_res.mlp.lin2", hidden)
        basic_sum = basic_sum + basic
    joined = np.concatenate(
        [linear(weights, "cross_feat_linear", compared_sum), linear(weights, "feat_linear", basic_sum)], 1
    )
    return linear(weights, "final_mlp", joined), np.stack([local_token(weights, crop, heads) for crop in crops])
