"""Making small checkpoints: safetensors files, changed copies of recorded ones, and a Gemma-2-shaped model."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parent / "data"
#: tensor name -> (dtype as safetensors spells it, words)
Tensors = dict[str, tuple[str, np.ndarray]]
_WORDS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


def read_safetensors(path: Path) -> Tensors:
    raw = path.read_bytes()
    (n,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + n])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + n + at for at in entry["data_offsets"])
        words = np.frombuffer(raw[begin:end], _WORDS[entry["dtype"]])
        tensors[name] = entry["dtype"], words.reshape(entry["shape"]).copy()
    return tensors


def write_safetensors(path: Path, tensors: Tensors) -> Path:
    header, parts, at = {}, [], 0
    for name, (dtype, words) in tensors.items():
        raw = words.tobytes()
        header[name] = {"dtype": dtype, "shape": list(words.shape), "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    return path


def changed(
    source: Path,
    target: Path,
    tensors: Callable[[Tensors], Tensors | None] = lambda t: t,
    config: Callable[[dict[str, Any]], Any] = lambda c: c,
) -> Path:
    """A copy of checkpoint ``source`` in the new folder ``target``, with its tensors and config.json changed."""
    shutil.copytree(source, target)
    for path in target.iterdir():
        path.chmod(0o644)
    weights = target / "model.safetensors"
    loaded = read_safetensors(weights)
    write_safetensors(weights, tensors(loaded) or loaded)
    values = json.loads((target / "config.json").read_text())
    config(values)
    (target / "config.json").write_text(json.dumps(values))
    return target


def renamed(rule: Callable[[str], str]) -> Callable[[Tensors], Tensors]:
    """A change of tensor names for ``changed``."""
    return lambda tensors: {rule(name): value for name, value in tensors.items()}


def gemma2(folder: Path, seed: int = 0) -> Path:
    """A random Gemma-2-shaped checkpoint: 2 layers, hidden 64, 4 heads of 16 over 2 key/value heads, 520 tokens, F32."""
    folder.mkdir()
    r = np.random.default_rng(seed)
    hidden, ffn, q, kv = 64, 96, 64, 32
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (512, hidden)}
    for block in range(2):
        at = f"model.layers.{block}."
        shapes |= {
            f"{at}self_attn.q_proj.weight": (q, hidden),
            f"{at}self_attn.k_proj.weight": (kv, hidden),
            f"{at}self_attn.v_proj.weight": (kv, hidden),
            f"{at}self_attn.o_proj.weight": (hidden, q),
            f"{at}mlp.gate_proj.weight": (ffn, hidden),
            f"{at}mlp.up_proj.weight": (ffn, hidden),
            f"{at}mlp.down_proj.weight": (hidden, ffn),
        }
        norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
        shapes |= {f"{at}{norm}_layernorm.weight": (hidden,) for norm in norms}
    shapes["model.norm.weight"] = (hidden,)
    write_safetensors(
        folder / "model.safetensors",
        {name: ("F32", r.standard_normal(shape).astype("<f4") * np.float32(0.1)) for name, shape in shapes.items()},
    )
    config = {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_size": hidden, "intermediate_size": ffn,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window": 64,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 16,
        "hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
        "torch_dtype": "float32", "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(DATA / "tokenizers" / "gemma1" / name, folder / name)
        (folder / name).chmod(0o644)
    return folder


#: config.json of an EAGLE-3 draft, and its tokens in the vocabulary of the model that it helps
DRAFT: dict[str, Any] = {
    "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "vocab_size": 516, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0, "draft_vocab_size": 8,
}  # fmt: skip
DRAFTED = (3, 4, 9, 16, 21, 100, 300, 515)


def draft(folder: Path, ids: Sequence[int] = DRAFTED, **config: Any) -> Path:
    """An EAGLE-3 draft whose tokens are ``ids``, in a new folder without a tokenizer."""
    shapes = {
        "midlayer.self_attn.q_proj": (64, 128), "midlayer.self_attn.k_proj": (32, 128), "midlayer.self_attn.v_proj": (32, 128),
        "midlayer.self_attn.o_proj": (64, 64), "midlayer.mlp.gate_proj": (96, 64), "midlayer.mlp.up_proj": (96, 64),
        "midlayer.mlp.down_proj": (64, 96), "fc": (64, 192), "lm_head": (8, 64), "norm": (64,),
        **{f"midlayer.{name}": (64,) for name in ("hidden_norm", "input_layernorm", "post_attention_layernorm")},
    }  # fmt: skip
    tensors: Tensors = {f"{n}.weight": ("F32", np.ones(shape, "<f4")) for n, shape in shapes.items()}
    tensors["d2t"] = "I64", np.array(ids, "<i8") - np.arange(len(ids))
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", dict(sorted(tensors.items())))
    (folder / "config.json").write_text(json.dumps({**DRAFT, **config}))
    return folder
