"""What the tensors of gemma.cpp's weight files are called, which shapes they have and which tensors of Hugging Face they hold.

The table is read in both directions: ``how`` says what is done with the tensors of Hugging Face, of which

    same        the only one, as it is
    cut         the only one, of which the file has the first rows, or all
    stacked     one behind the other
    heads       the only one, D x H*Q, cut by heads: the columns of head 0, those of head 1, …
    qkv         all of q, then of each key/value head its rows of k and of v
    kv          of each key/value head its rows of k and of v
    by_head     of each head its rows of q, of k and of v
    patches     the only one, d x 3 x P x P, with the colours last
    transposed  the only one
    zeros       none; the file has zeros

Norms are stored as Hugging Face has them. Source: gemma.cpp ``gemma/tensor_info.cc`` and ``gemma/weights.h`` (October 2025).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import BadInput
from .model_config import GEMMA3_IMAGES, LayerConfig, ModelConfig

#: of names that both directions have
LAYOUTS = ("exporter", "split")
#: most characters of a key, and what the number at the end of one must stay below: the loader takes it for a layer
MAX_KEY, MAX_SUFFIX = 16, 999

#: kinds of tensors, which decide the types that they may have
MATRIX, EMBEDDING, NORM, BIAS, POSITIONS, IMAGE_MATRIX = (
    "matrix",
    "embedding",
    "norm",
    "bias",
    "positions",
    "image matrix",
)
#: modules of a checkpoint
TEXT, IMAGES, PROJECTOR = "text", "images", "projector"
#: what the names of a module begin with, in the order in which they are tried; the first is how the classic layout of the model
#: with images has it, the last of ``TEXT`` how a text model has it
PREFIXES = {
    TEXT: ("language_model.model.", "model.language_model.", "language_model.", "model."),
    IMAGES: (
        "vision_tower.vision_model.", "model.vision_tower.vision_model.", "vision_tower.", "model.vision_tower.",
    ),
    PROJECTOR: ("multi_modal_projector.", "model.multi_modal_projector."),
}  # fmt: skip


class Entry(NamedTuple):
    """A tensor of a weight file.

    Attributes
    ----------
    key : name of its blob
    shape : rows and columns
    kind : see above
    how : what is done with the tensors of Hugging Face, see above
    module : which module of the checkpoint these belong to
    names : what they are called in there
    n_heads, width : of what is cut by heads: how many, and the rows (or columns) of each
    """

    key: str
    shape: tuple[int, int]
    kind: str
    how: str = "same"
    module: str = TEXT
    names: tuple[str, ...] = ()
    n_heads: int = 0
    width: int = 0

    @property
    def base(self) -> str:
        """The key without the number of the layer."""
        head, _, tail = self.key.rpartition("_")
        return head if tail.isdigit() else self.key

    @property
    def source_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the tensors of Hugging Face, as there; of what is ``cut`` the least."""
        rows, cols = self.shape
        heads = self.n_heads * self.width
        if self.how in ("qkv", "kv"):
            queries = [(rows - 2 * heads, cols)] if self.how == "qkv" else []
            return [*queries, (heads, cols), (heads, cols)]
        if self.how == "by_head":
            return [(heads * cols,) if self.kind == BIAS else (heads, cols)] * 3
        if self.how == "patches":
            side = math.isqrt(cols // 3)
            return [(rows, 3, side, side)]
        found = {"heads": (rows // max(self.n_heads, 1), heads), "transposed": (cols, rows)}.get(self.how, self.shape)
        if self.how == "stacked":
            found = (rows // len(self.names), cols)
        return [found[1:] if self.kind in (NORM, BIAS) else found] * len(self.names)


def tensors(config: ModelConfig, layout: str = "split") -> Iterator[Entry]:
    """Every tensor that a file of this configuration holds.

    Parameters
    ----------
    layout : ``exporter`` has fused matrices, ``split`` such as are used as they are stored

    Raises
    ------
    BadInput : a key that no file can have; names the tensor and the limit
    """
    for entry in _tensors(config, layout):
        tail = entry.key.rpartition("_")[2]
        if len(entry.key) > MAX_KEY or (tail.isdigit() and int(tail) >= MAX_SUFFIX):
            what = f"has {len(entry.key)} characters, the limit is {MAX_KEY}"
            if len(entry.key) <= MAX_KEY:
                what = f"ends in {tail}, the number of a layer must be below {MAX_SUFFIX}"
            raise BadInput(f"key {entry.key!r} of tensor {' and '.join(entry.names) or entry.key!r} {what}")
        yield entry


def _tensors(config: ModelConfig, layout: str) -> Iterator[Entry]:
    width = config.model_dim
    yield Entry("c_embedding", (config.vocab_size, width), EMBEDDING, "cut", names=("embed_tokens.weight",))
    yield Entry("c_final_norm", (1, width), NORM, names=("norm.weight",))
    if config.vit_config.layer_configs:
        yield from _image_tensors(config)
    for number, layer in enumerate(config.layer_configs):
        for entry in (*_attention(layer, layout), *_feed_forward(layer, layout), *_norms(layer)):
            yield _numbered(entry, number, "layers")
    for number, layer in enumerate(config.vit_config.layer_configs):
        for entry in _image_layer(layer):
            yield _numbered(entry, number, "encoder.layers")


def _numbered(entry: Entry, number: int, where: str) -> Entry:
    names = tuple(f"{where}.{number}.{name}" for name in entry.names)
    return entry._replace(key=f"{entry.key}_{number}", names=names)


def _attention(layer: LayerConfig, layout: str) -> Iterator[Entry]:
    d, q, n, kv = layer.model_dim, layer.qkv_dim, layer.heads, layer.kv_heads
    query, key, value, out = (f"self_attn.{name}_proj.weight" for name in "qkvo")
    if layout == "exporter":
        yield Entry("att_ein", (n * d, q), MATRIX, "heads", names=(out,), n_heads=n, width=q)
        yield Entry(
            "qkv_ein", ((n + 2 * kv) * q, d), MATRIX, "qkv", names=(query, key, value), n_heads=kv, width=q
        )  # fmt: skip
    else:
        yield Entry("att_w", (d, n * q), MATRIX, names=(out,))
        yield Entry("qkv1_w", (n * q, d), MATRIX, names=(query,))
        yield Entry("qkv2_w", (2 * kv * q, d), MATRIX, "kv", names=(key, value), n_heads=kv, width=q)
    if layer.use_qk_norm:
        yield Entry("key_norm", (1, q), NORM, names=("self_attn.k_norm.weight",))
        yield Entry("query_norm", (1, q), NORM, names=("self_attn.q_norm.weight",))


def _feed_forward(layer: LayerConfig, layout: str) -> Iterator[Entry]:
    d, f = layer.model_dim, layer.ff_hidden_dim
    gate, up = "mlp.gate_proj.weight", "mlp.up_proj.weight"
    if layout == "exporter":
        yield Entry("gating_ein", (2 * f, d), MATRIX, "stacked", names=(gate, up))
    else:
        yield Entry("gating1_w", (f, d), MATRIX, names=(gate,))
        yield Entry("gating2_w", (f, d), MATRIX, names=(up,))
    yield Entry("linear_w", (d, f), MATRIX, names=("mlp.down_proj.weight",))


def _norms(layer: LayerConfig) -> Iterator[Entry]:
    norms = {"pre_att_ns": "input_layernorm", "pre_ff_ns": "post_attention_layernorm"}
    if layer.post_norm:
        norms = {
            "pre_att_ns": "input_layernorm", "post_att_ns": "post_attention_layernorm",
            "pre_ff_ns": "pre_feedforward_layernorm", "post_ff_ns": "post_feedforward_layernorm",
        }  # fmt: skip
    for key, name in norms.items():
        yield Entry(key, (1, layer.model_dim), NORM, names=(f"{name}.weight",))


def _image_tensors(config: ModelConfig) -> Iterator[Entry]:
    vit, width = config.vit_config, config.model_dim
    d, patch = vit.model_dim, "embeddings.patch_embedding"
    yield Entry("enc_norm_bias", (1, d), NORM, module=IMAGES, names=("post_layernorm.bias",))
    yield Entry("enc_norm_scale", (1, d), NORM, module=IMAGES, names=("post_layernorm.weight",))
    yield Entry("img_emb_bias", (1, d), BIAS, module=IMAGES, names=(f"{patch}.bias",))
    yield Entry(
        "img_emb_kernel", (d, 3 * vit.patch_width**2), IMAGE_MATRIX, "patches", IMAGES, (f"{patch}.weight",)
    )  # fmt: skip
    yield Entry(
        "img_pos_emb", (vit.seq_len, d), POSITIONS, module=IMAGES, names=("embeddings.position_embedding.weight",)
    )
    if config.wrapping == GEMMA3_IMAGES:
        yield Entry("img_head_bias", (1, width), BIAS, "zeros", PROJECTOR)
        yield Entry(
            "img_head_kernel", (width, d), IMAGE_MATRIX, "transposed", PROJECTOR, ("mm_input_projection_weight",)
        )
        yield Entry("mm_embed_norm", (1, d), NORM, module=PROJECTOR, names=("mm_soft_emb_norm.weight",))
    else:
        yield Entry("img_head_bias", (1, width), BIAS, module=PROJECTOR, names=("linear.bias",))
        yield Entry("img_head_kernel", (width, d), IMAGE_MATRIX, module=PROJECTOR, names=("linear.weight",))


def _image_layer(layer: LayerConfig) -> Iterator[Entry]:
    d, f, n, q = layer.model_dim, layer.ff_hidden_dim, layer.heads, layer.qkv_dim
    heads = tuple(f"self_attn.{name}_proj" for name in "qkv")
    found = [
        Entry("ln_0_bias", (1, d), NORM, names=("layer_norm1.bias",)),
        Entry("ln_0_scale", (1, d), NORM, names=("layer_norm1.weight",)),
        Entry("ln_1_bias", (1, d), NORM, names=("layer_norm2.bias",)),
        Entry("ln_1_scale", (1, d), NORM, names=("layer_norm2.weight",)),
        Entry(
            "qkv_ein_w", (3 * n * q, d), IMAGE_MATRIX, "by_head", names=tuple(f"{name}.weight" for name in heads),
            n_heads=n, width=q,
        ),
        Entry("qkv_ein_b", (3 * n, q), BIAS, "by_head", names=tuple(f"{name}.bias" for name in heads), n_heads=n, width=1),
        Entry("attn_out_w", (d, n * q), IMAGE_MATRIX, names=("self_attn.out_proj.weight",)),
        Entry("attn_out_b", (1, d), BIAS, names=("self_attn.out_proj.bias",)),
        Entry("linear_0_w", (f, d), IMAGE_MATRIX, names=("mlp.fc1.weight",)),
        Entry("linear_0_b", (1, f), BIAS, names=("mlp.fc1.bias",)),
        Entry("linear_1_w", (d, f), IMAGE_MATRIX, names=("mlp.fc2.weight",)),
        Entry("linear_1_b", (1, d), BIAS, names=("mlp.fc2.bias",)),
    ]  # fmt: skip
    yield from (entry._replace(module=IMAGES) for entry in found)
