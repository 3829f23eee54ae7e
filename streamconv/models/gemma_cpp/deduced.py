"""Files of before May 2025: no configuration, no table of contents. What model it is follows from the keys.

A key is a letter for the type and the name of the tensor. Scales, where there are any, lie in one blob in the order in which
tensors are loaded.

Source: gemma.cpp ``gemma/model_store.cc``, ``DeduceModel`` and ``gemma/configs.cc`` (October 2025). Of the first
generation Gemma 2B has as many layers as Gemma 3 270M, and PaliGemma as many as PaliGemma 2, which is what later loaders take them
for; norms of keys and of what layers give tell them apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from ...errors import BadInput
from .model_config import IMAGE_LAYER, MODEL_WIDTH, PALIGEMMA, LayerConfig, ModelConfig, VitConfig
from .models import MODELS, KnownModel
from .tensors import LAYOUTS, tensors

#: types by the first letter of a key
PREFIXES = {"F": "F32", "B": "BF16", "$": "SFP", "2": "NUQ", "I": "I8"}
SCALES = "Fscales"
#: bytes of the positions of an image of 448 x 448 pixels, at the least
_POSITIONS_448 = 448 * 448 * 5 * 2


class _Sizes(NamedTuple):
    """Sizes of the layers of a text model, and its windows by turns; 0: none."""

    ff: int
    heads: int
    kv_heads: int
    head: int
    windows: tuple[int, ...]


_GEMMA_2B = _Sizes(16384, 8, 1, 256, (0,))
_GEMMA2_2B, _GEMMA2_9B = _Sizes(9216, 8, 4, 256, (4096, 0)), _Sizes(14336, 16, 8, 256, (4096, 0))
_SIZES: Mapping[str, _Sizes] = {
    "gemma2-2b": _GEMMA2_2B,
    "gemma2-9b": _GEMMA2_9B,
    "gemma2-27b": _Sizes(36864, 32, 16, 128, (4096, 0)),
    "gemma3-270m": _Sizes(2048, 4, 1, 256, (*[512] * 5, 0)),
    "gemma3-1b": _Sizes(6912, 4, 1, 256, (*[512] * 5, 0)),
    "gemma3-4b": _Sizes(10240, 8, 4, 256, (*[1024] * 5, 0)),
    "gemma3-12b": _Sizes(15360, 16, 8, 256, (*[1024] * 5, 0)),
    "gemma3-27b": _Sizes(21504, 32, 16, 128, (*[1024] * 5, 0)),
    "paligemma2-3b-224": _GEMMA2_2B,
    "paligemma2-3b-448": _GEMMA2_2B,
    "paligemma2-10b-224": _GEMMA2_9B,
    "paligemma2-10b-448": _GEMMA2_9B,
    "gemma-2b": _GEMMA_2B,
    "paligemma-3b-224": _GEMMA_2B,
    "paligemma-3b-448": _GEMMA_2B,
}
#: the first generation, which later loaders do not know
_FIRST = {
    "gemma-2b": KnownModel(1, "Gemma_2B", "gemma", 2048, 18, 256000, 8192),
    "paligemma-3b-224": KnownModel(8, "PaliGemma_224", "paligemma", 2048, 18, 257152, 8192, 224, PALIGEMMA),
    "paligemma-3b-448": KnownModel(9, "PaliGemma_448", "paligemma", 2048, 18, 257152, 8192, 448, PALIGEMMA),
}


def layer_number(key: str) -> int:
    """The number of the layer at the end of a key, as loaders see it; 0 where there is none."""
    _, underscore, tail = key.rpartition("_")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    return int(digits) if underscore and digits and int(digits) < 1 << 31 else 0


def deduced_name(sizes: Mapping[str, int]) -> str:
    """What the model is called by its keys and the bytes of their blobs; "" where they tell nothing."""
    n_layers = 1 + max(map(layer_number, sizes), default=0)
    has_images = any("qkv_ein_w" in key for key in sizes)
    pixels = 448 if any("img_pos_emb" in key and n > _POSITIONS_448 for key, n in sizes.items()) else 224
    if n_layers == 18 and not any("key_norm" in key for key in sizes):
        return "gemma-2b"
    if n_layers == 27 and not any("post_att_ns" in key for key in sizes):
        return f"paligemma-3b-{pixels}"
    if n_layers == 26:
        return "gemma3-1b" if has_images or any("key_norm" in key for key in sizes) else "gemma2-2b"
    found = {
        18: "gemma3-270m", 27: f"paligemma2-3b-{pixels}", 34: "gemma3-4b", 46: "gemma2-27b", 48: "gemma3-12b", 62: "gemma3-27b",
        42: f"paligemma2-10b-{pixels}" if has_images else "gemma2-9b",
    }  # fmt: skip
    return found.get(n_layers, "")


def deduced_config(sizes: Mapping[str, int], path: object) -> ModelConfig:
    """The configuration of that model, which gemma.cpp has built in.

    Raises
    ------
    BadInput : the keys are those of no model that is known
    """
    name = deduced_name(sizes)
    if not name:
        n_layers = 1 + max(map(layer_number, sizes), default=0)
        raise BadInput(
            f"{path} has no configuration, and its keys are those of no model that is known ({n_layers} layers)",
            "A file of gemma.cpp from before May 2025 holds a model as it was published.",
        )
    known = _FIRST[name] if name in _FIRST else MODELS[name]
    found = _text(known, _SIZES[name], is_first=name in _FIRST)
    return _with_images(found, known) if known.image_size and any("img_" in key for key in sizes) else found


def _text(known: KnownModel, sizes: _Sizes, is_first: bool) -> ModelConfig:
    is_third = known.family == "gemma3"
    is_second = not (is_first or is_third)
    layer = LayerConfig(
        model_dim=known.width, ff_hidden_dim=sizes.ff, heads=sizes.heads, kv_heads=sizes.kv_heads, qkv_dim=sizes.head,
        optimized_gating=int(is_third), post_norm=int(not is_first), use_qk_norm=int(is_third),
    )  # fmt: skip
    windows = [sizes.windows[n % len(sizes.windows)] or known.max_seq_len for n in range(known.n_layers)]
    return ModelConfig(
        display_name=known.display_name, model=known.number, wrapping=known.wrapping or 0, num_layers=known.n_layers,
        model_dim=known.width, vocab_size=known.vocab_size, max_seq_len=known.max_seq_len, att_cap=50.0 if is_second else 0.0,
        final_cap=30.0 if is_second else 0.0, query_scale=MODEL_WIDTH if known.display_name == "Gemma2_27B" else 0,
        layer_configs=(layer,) * known.n_layers, attention_window_sizes=tuple(windows),
        secondary_eos_id=106 if is_third else 107,
    )  # fmt: skip


def _with_images(config: ModelConfig, known: KnownModel) -> ModelConfig:
    layer = LayerConfig(
        model_dim=1152, ff_hidden_dim=4304, heads=16, kv_heads=16, qkv_dim=72, ff_biases=1, type=IMAGE_LAYER
    )
    tower = VitConfig(
        model_dim=1152, seq_len=(known.image_size // 14) ** 2, num_scales=108, image_size=known.image_size,
        layer_configs=(layer,) * 27, pool_dim=4 if known.family == "gemma3" else 1,
    )  # fmt: skip
    return replace(config, vit_config=tower)


def in_order_of_loading(config: ModelConfig, present: Collection[str]) -> Iterator[str]:
    """Names of those tensors among ``present`` that have scales, in the order in which these lie in their blob."""
    order = {name: n for n, name in enumerate(("att_ein", "qkv_ein", "gating_ein", "linear_w"))}
    found = {e.key: e for layout in LAYOUTS for e in tensors(config, layout) if e.base in order and e.key in present}
    return iter(sorted(found, key=lambda key: (layer_number(key), order[found[key].base])))
