"""Small weight files of gemma.cpp, valid or broken on purpose, written in the plainest way from the format's description.

Containers are ``store(blobs)``; models are ``Toy`` objects, whose parts can be changed before they are written.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAGIC, ALIGN, END = 0x0A534253, 256, 65536
TYPES = {"F32": 1, "BF16": 2, "SFP": 3, "NUQ": 4, "I8": 8}


def padded(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)


def store(blobs: Mapping[str, bytes], version: int = 2, pad_end: bool = True) -> bytes:
    """A container; of version 1 also without the zeros up to 64 KiB that old files lack."""
    n = len(blobs)
    at = ALIGN if version == 2 else -(-(16 + 32 * n) // ALIGN) * ALIGN
    ranges, payload, first = [], b"", at
    for data in blobs.values():
        ranges.append((at + len(payload), len(data)))
        payload += padded(data, ALIGN)
    directory = b"".join(key.encode("latin-1").ljust(16, b"\0") for key in blobs)
    directory += b"".join(struct.pack("<QQ", *each) for each in ranges)
    if version == 1:
        size = first + len(payload)
        size = -(-size // END) * END if pad_end else size
        return (padded(struct.pack("<IIQ", MAGIC, n, size) + directory, ALIGN) + payload).ljust(size, b"\0")
    size = -(-(first + len(payload) + -(-(16 + 32 * n) // ALIGN) * ALIGN) // END) * END
    head = padded(struct.pack("<IIQ", MAGIC, 0, END), ALIGN)
    return (head + payload).ljust(size - 16 - 32 * n, b"\0") + directory + struct.pack("<IIQ", MAGIC, n, size)


# ---- structs of words


def text(value: str) -> list[int]:
    raw = padded(value.encode(), 4)
    return [len(raw) // 4, *struct.unpack(f"<{len(raw) // 4}I", raw)]


def real(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def struct_of(words: list[int]) -> list[int]:
    return [len(words), *words]


def packed(words: list[int]) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


LAYER = (
    "model_dim", "unused_1", "ff_hidden_dim", "heads", "kv_heads", "qkv_dim", "unused_2", "ff_biases", "unused_3",
    "optimized_gating", "post_norm", "type", "activation", "post_qk", "use_qk_norm",
)  # fmt: skip


def layers_of(layers: list[dict[str, int]]) -> list[int]:
    return [len(layers), *(word for each in layers for word in struct_of([each.get(name, 0) for name in LAYER]))]


def entry(name: str, type_: int, rows: int, cols: int, scale: float = 1.0) -> list[int]:
    return struct_of([*text(name), type_, 1, rows * cols, rows, cols, real(scale), cols])


# ---- models


def bf16(values: np.ndarray) -> bytes:
    return (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()


def f32(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values, "<f4").tobytes()


@dataclass
class Toy:
    """A model that can be written.

    Attributes
    ----------
    hf : Hugging Face's tensors by name, float32 that are exact in bfloat16
    blobs : by key
    toc : words of every entry by key
    layers, image_layers, fields : of the configuration
    """

    hf: dict[str, np.ndarray]
    fields: dict[str, Any]
    layers: list[dict[str, int]]
    image_layers: list[dict[str, int]]
    blobs: dict[str, bytes] = field(default_factory=dict)
    toc: dict[str, list[int]] = field(default_factory=dict)
    tokenizer: bytes = b"unavailable"

    def put(self, key: str, values: np.ndarray, type_: str = "BF16") -> None:
        """A tensor as a matrix of BF16 or F32."""
        matrix = np.atleast_2d(values)
        self.blobs[key] = (bf16 if type_ == "BF16" else f32)(matrix)
        self.toc[key] = entry(key, TYPES[type_], *matrix.shape)

    def drop(self, *keys: str) -> None:
        for key in keys:
            del self.blobs[key], self.toc[key]

    def config(self) -> bytes:
        f, vit = self.fields, self.fields["vit"]
        tower = [vit["model_dim"], vit["seq_len"], 4 * len(self.image_layers), 14, vit["image_size"]]
        tower += [*layers_of(self.image_layers), vit["pool_dim"]]
        return packed(
            struct_of([
                1, *text(f["display_name"]), f["model"], f["wrapping"], f["weight"], f["num_layers"], f["model_dim"],
                f["vocab_size"], f["max_seq_len"], 0, real(f["att_cap"]), real(f["final_cap"]), 0, 0, f["query_scale"],
                *layers_of(self.layers), len(f["windows"]), *f["windows"], 1, *struct_of(tower), 1, f["eos_id"],
                f["second"], 0,
            ])
        )  # fmt: skip

    def everything(self) -> dict[str, bytes]:
        """All blobs of a file."""
        toc = packed([word for words in self.toc.values() for word in words])
        return {**self.blobs, "config": self.config(), "tokenizer": self.tokenizer, "toc": toc}

    def file(self, version: int = 2) -> bytes:
        return store(self.everything(), version)


D, F, H, K, Q, V = 16, 24, 4, 2, 8, 32
VIT, VIT_F, VIT_H = 12, 20, 3


def toy(kind: str = "gemma2", layout: str = "split", n_layers: int = 2, seed: int = 0) -> Toy:
    """A model of ``kind`` gemma, gemma2, gemma3, paligemma, paligemma2 or gemma3v."""
    r = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        words = r.standard_normal(shape).astype("<f4").view("<u4") & 0xFFFF0000
        return np.asarray(words.astype("<u4").view("<f4"))

    has_images = kind in ("paligemma", "paligemma2", "gemma3v")
    is_first, is_third = kind in ("gemma", "paligemma"), kind in ("gemma3", "gemma3v")
    base = "language_model.model." if has_images else "model."
    layer = {
        "model_dim": D,
        "ff_hidden_dim": F,
        "heads": H,
        "kv_heads": K,
        "qkv_dim": Q,
        "post_norm": int(not is_first),
    }
    layer |= {"use_qk_norm": int(is_third), "optimized_gating": int(is_third)}
    tower = {"model_dim": VIT, "ff_hidden_dim": VIT_F, "heads": VIT_H, "kv_heads": VIT_H, "qkv_dim": VIT // VIT_H}
    tower |= {"ff_biases": 1, "type": 1}
    every = 6 if is_third else 2
    numbers_of = {"gemma": 7, "gemma2": 7, "gemma3": 15, "gemma3v": 14}.get(kind, 10)
    fields = {
        "display_name": "Toy", "model": numbers_of, "wrapping": 3 if kind.startswith("pali") else 2 if is_third else 1,
        "weight": 2, "num_layers": n_layers, "model_dim": D, "vocab_size": V, "max_seq_len": 64,
        "att_cap": 0.0 if is_first or is_third else 50.0, "final_cap": 0.0 if is_first or is_third else 30.0, "query_scale": 0,
        "windows": [64 if is_first or (n + 1) % every == 0 else 16 for n in range(n_layers)], "eos_id": 1,
        "second": 106 if is_third else 107,
        "vit": {"model_dim": VIT * has_images, "seq_len": 4 * has_images, "image_size": 28 if has_images else 224,
                "pool_dim": 2 if kind == "gemma3v" else 1},
    }  # fmt: skip
    made = Toy({}, fields, [dict(layer) for _ in range(n_layers)], [dict(tower) for _ in range(2 * has_images)])
    hf = made.hf
    hf[f"{base}embed_tokens.weight"], hf[f"{base}norm.weight"] = numbers(V, D), numbers(D)
    made.put("c_embedding", hf[f"{base}embed_tokens.weight"])
    made.put("c_final_norm", hf[f"{base}norm.weight"])
    if has_images:
        _images(made, numbers, is_third)
    for n in range(n_layers):
        _text_layer(made, numbers, f"{base}layers.{n}.", n, layout, is_first, is_third)
    return made


def _text_layer(made: Toy, numbers: Any, at: str, n: int, layout: str, is_first: bool, is_third: bool) -> None:
    shapes = {"q": (H * Q, D), "k": (K * Q, D), "v": (K * Q, D), "o": (D, H * Q)}
    q, k, v, o = (
        made.hf.setdefault(f"{at}self_attn.{name}_proj.weight", numbers(*shape)) for name, shape in shapes.items()
    )
    gate, up = (made.hf.setdefault(f"{at}mlp.{name}_proj.weight", numbers(F, D)) for name in ("gate", "up"))
    down = made.hf.setdefault(f"{at}mlp.down_proj.weight", numbers(D, F))
    kv = [part[h * Q : (h + 1) * Q] for h in range(K) for part in (k, v)]
    if layout == "split":
        made.put(f"att_w_{n}", o)
        made.put(f"gating1_w_{n}", gate)
        made.put(f"gating2_w_{n}", up)
        made.put(f"qkv1_w_{n}", q)
        made.put(f"qkv2_w_{n}", np.concatenate(kv))
    else:
        made.put(f"att_ein_{n}", np.concatenate([o[:, h * Q : (h + 1) * Q] for h in range(H)]))
        made.put(f"gating_ein_{n}", np.concatenate([gate, up]))
        made.put(f"qkv_ein_{n}", np.concatenate([q, *kv]))
    made.put(f"linear_w_{n}", down)
    norms = {"pre_att_ns": "input_layernorm", "post_att_ns": "post_attention_layernorm"}
    norms |= {"pre_ff_ns": "pre_feedforward_layernorm", "post_ff_ns": "post_feedforward_layernorm"}
    if is_first:
        norms = {"pre_att_ns": "input_layernorm", "pre_ff_ns": "post_attention_layernorm"}
    for key, name in norms.items():
        made.put(f"{key}_{n}", made.hf.setdefault(f"{at}{name}.weight", numbers(D)))
    for key, name in (("key_norm", "k_norm"), ("query_norm", "q_norm")) if is_third else ():
        made.put(f"{key}_{n}", made.hf.setdefault(f"{at}self_attn.{name}.weight", numbers(Q)))


def _images(made: Toy, numbers: Any, is_third: bool) -> None:
    tower, projector = "vision_tower.vision_model.", "multi_modal_projector."

    def new(name: str, *shape: int) -> np.ndarray:
        return made.hf.setdefault(name, numbers(*shape))

    made.put("enc_norm_bias", new(f"{tower}post_layernorm.bias", VIT))
    made.put("enc_norm_scale", new(f"{tower}post_layernorm.weight", VIT))
    made.put("img_emb_bias", new(f"{tower}embeddings.patch_embedding.bias", VIT), "F32")
    kernel = new(f"{tower}embeddings.patch_embedding.weight", VIT, 3, 14, 14)
    made.put("img_emb_kernel", kernel.transpose(0, 2, 3, 1).reshape(VIT, -1))
    made.put("img_pos_emb", new(f"{tower}embeddings.position_embedding.weight", 4, VIT), "F32")
    if is_third:
        made.put("img_head_bias", np.zeros(D), "F32")
        made.put("img_head_kernel", new(f"{projector}mm_input_projection_weight", VIT, D).T)
        made.put("mm_embed_norm", new(f"{projector}mm_soft_emb_norm.weight", VIT))
    else:
        made.put("img_head_bias", new(f"{projector}linear.bias", D), "F32")
        made.put("img_head_kernel", new(f"{projector}linear.weight", D, VIT))
    width = VIT // VIT_H
    for n in range(2):
        at = f"{tower}encoder.layers.{n}."
        for part in (0, 1):
            made.put(f"ln_{part}_bias_{n}", new(f"{at}layer_norm{part + 1}.bias", VIT))
            made.put(f"ln_{part}_scale_{n}", new(f"{at}layer_norm{part + 1}.weight", VIT))
        w = [new(f"{at}self_attn.{name}_proj.weight", VIT, VIT) for name in "qkv"]
        b = [new(f"{at}self_attn.{name}_proj.bias", VIT) for name in "qkv"]
        heads = [part[h * width : (h + 1) * width] for h in range(VIT_H) for part in w]
        made.put(f"qkv_ein_w_{n}", np.concatenate(heads))
        made.put(
            f"qkv_ein_b_{n}", np.stack([part[h * width : (h + 1) * width] for h in range(VIT_H) for part in b]), "F32"
        )
        made.put(f"attn_out_w_{n}", new(f"{at}self_attn.out_proj.weight", VIT, VIT))
        made.put(f"attn_out_b_{n}", new(f"{at}self_attn.out_proj.bias", VIT), "F32")
        made.put(f"linear_0_w_{n}", new(f"{at}mlp.fc1.weight", VIT_F, VIT))
        made.put(f"linear_0_b_{n}", new(f"{at}mlp.fc1.bias", VIT_F), "F32")
        made.put(f"linear_1_w_{n}", new(f"{at}mlp.fc2.weight", VIT, VIT_F))
        made.put(f"linear_1_b_{n}", new(f"{at}mlp.fc2.bias", VIT), "F32")
