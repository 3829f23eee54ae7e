"""One layer of a model of each much used family, at its published sizes: what a checkpoint holds, in bfloat16 and MXFP4 blocks.

A model of experts has as many of them as fit the size that is asked for; all else is as published, but for a small vocabulary.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint import TOKENIZER, bf16

Shapes = dict[str, tuple[int, ...]]
#: number of experts -> config.json and the tensors of the layer; names that end in ``_blocks`` and ``_scales`` are bytes
Made = tuple[dict[str, Any], Shapes]
Make = Callable[[int], Made]
VOCABULARY = 512
_AT = "model.layers.0."


def norms(hidden: int, *names: str, at: str = _AT) -> Shapes:
    return {f"{at}{name}.weight": (hidden,) for name in names or ("input_layernorm", "post_attention_layernorm")}


def attention(hidden: int, heads: int, kv: int, head: int, at: str = f"{_AT}self_attn.", out: str = "o_proj") -> Shapes:
    return {
        f"{at}q_proj.weight": (heads * head, hidden), f"{at}k_proj.weight": (kv * head, hidden),
        f"{at}v_proj.weight": (kv * head, hidden), f"{at}{out}.weight": (hidden, heads * head),
    }  # fmt: skip


def gated(hidden: int, ffn: int, at: str = f"{_AT}mlp.", names: str = "gate_proj up_proj down_proj") -> Shapes:
    gate, up, down = names.split()
    return {f"{at}{gate}.weight": (ffn, hidden), f"{at}{up}.weight": (ffn, hidden), f"{at}{down}.weight": (hidden, ffn)}


def apart(n: int, hidden: int, ffn: int, at: str = f"{_AT}mlp.", names: str = "gate_proj up_proj down_proj") -> Shapes:
    """Experts one by one, and their router."""
    found: Shapes = {f"{at}gate.weight": (n, hidden)}
    for x in range(n):
        found |= gated(hidden, ffn, f"{at}experts.{x}.", names)
    return found


def config(name: str, kind: str, hidden: int, ffn: int, heads: int, kv: int, head: int, **more: Any) -> dict[str, Any]:
    return {
        "architectures": [name], "model_type": kind, "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": 1,
        "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": head, "vocab_size": VOCABULARY,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", **more,
    }  # fmt: skip


def dense(name: str, kind: str, *sizes: int, qk: int = 0, biases: bool = False, **more: Any) -> Make:
    """The layout of Llama; ``sizes``: width, feed-forward width, heads, key/value heads, head width; ``qk``: norms on heads."""
    hidden, ffn, heads, kv, head = sizes

    def make(_n: int) -> Made:
        shapes = norms(hidden) | attention(hidden, heads, kv, head) | gated(hidden, ffn)
        if biases:
            shapes |= {f"{_AT}self_attn.{x}_proj.bias": (n * head,) for x, n in (("q", heads), ("k", kv), ("v", kv))}
        if qk:
            shapes |= norms(qk, "self_attn.q_norm", "self_attn.k_norm")
        return config(name, kind, *sizes, **more), shapes

    return make


def mixture(name: str, kind: str, *sizes: int, expert: int, qk: int = 0, **more: Any) -> Make:
    """Experts one by one; ``expert`` is the width of one."""
    hidden, _, heads, kv, head = sizes

    def make(n: int) -> Made:
        shapes = norms(hidden) | attention(hidden, heads, kv, head) | apart(n, hidden, expert)
        if qk:
            shapes |= norms(qk, "self_attn.q_norm", "self_attn.k_norm")
        stated = {"num_experts": n, "num_experts_per_tok": 8, "moe_intermediate_size": expert, "norm_topk_prob": True}
        return config(name, kind, *sizes, **{**stated, **more}), shapes

    return make


def gemma3(_n: int) -> Made:
    names = ("input", "post_attention", "pre_feedforward", "post_feedforward")
    shapes = norms(3840, *(f"{name}_layernorm" for name in names)) | norms(256, "self_attn.q_norm", "self_attn.k_norm")
    shapes |= attention(3840, 16, 8, 256) | gated(3840, 15360)
    more = {"sliding_window": 1024, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256}
    stated = config("Gemma3ForCausalLM", "gemma3_text", 3840, 15360, 16, 8, 256, **more)
    return {k: v for k, v in stated.items() if k != "hidden_act"}, shapes


def phi(_n: int) -> Made:
    shapes = norms(5120) | {
        f"{_AT}self_attn.qkv_proj.weight": (60 * 128, 5120), f"{_AT}self_attn.o_proj.weight": (5120, 5120),
        f"{_AT}mlp.gate_up_proj.weight": (2 * 17920, 5120), f"{_AT}mlp.down_proj.weight": (5120, 17920),
    }  # fmt: skip
    return config("Phi3ForCausalLM", "phi3", 5120, 17920, 40, 10, 128, original_max_position_embeddings=8192), shapes


def mixtral(n: int) -> Made:
    shapes = norms(4096) | attention(4096, 32, 8, 128)
    shapes |= apart(n, 4096, 14336, f"{_AT}block_sparse_moe.", "w1 w3 w2")
    more = {"num_local_experts": n, "num_experts_per_tok": 2}
    return config("MixtralForCausalLM", "mixtral", 4096, 14336, 32, 8, 128, **more), shapes


def minimax(n: int) -> Made:
    shapes = norms(3072) | attention(3072, 48, 8, 128) | apart(n, 3072, 1536, f"{_AT}block_sparse_moe.", "w1 w3 w2")
    shapes |= {f"{_AT}self_attn.q_norm.weight": (48 * 128,), f"{_AT}self_attn.k_norm.weight": (8 * 128,)}
    shapes[f"{_AT}block_sparse_moe.e_score_correction_bias"] = (n,)
    more = {"num_local_experts": n, "num_experts_per_tok": 8, "rotary_dim": 64, "scoring_func": "sigmoid"}
    return config("MiniMaxM2ForCausalLM", "minimax_m2", 3072, 1536, 48, 8, 128, use_routing_bias=True, **more), shapes


def gpt_oss(n: int) -> Made:
    h = 2880
    shapes = norms(h) | attention(h, 64, 8, 64) | {f"{_AT}self_attn.sinks": (64,)}
    widths = (("q", 4096), ("k", 512), ("v", 512), ("o", h))
    shapes |= {f"{_AT}self_attn.{x}_proj.bias": (width,) for x, width in widths}
    shapes |= {f"{_AT}mlp.router.weight": (n, h), f"{_AT}mlp.router.bias": (n,)}
    for part, rows in (("gate_up_proj", 2 * h), ("down_proj", h)):
        at = f"{_AT}mlp.experts.{part}"
        shapes |= {f"{at}_blocks": (n, rows, h // 32, 16), f"{at}_scales": (n, rows, h // 32), f"{at}_bias": (n, rows)}
    more = {
        "num_local_experts": n,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "attention_bias": True,
    }
    section = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.embed_tokens"]}
    return config("GptOssForCausalLM", "gpt_oss", h, h, 64, 8, 64, quantization_config=section, **more), shapes


def latent(name: str, kind: str, hidden: int, heads: int, ranks: tuple[int, int], expert: int, **more: Any) -> Make:
    """DeepSeek's attention and experts; ``ranks`` of queries, and of keys with values."""
    q, kv = ranks
    nope, rope, value = more.pop("widths", (128, 64, 128))

    def make(n: int) -> Made:
        at = f"{_AT}self_attn."
        shapes = norms(hidden) | norms(q, "q_a_layernorm", at=at) | norms(kv, "kv_a_layernorm", at=at) | {
            f"{at}q_a_proj.weight": (q, hidden), f"{at}q_b_proj.weight": (heads * (nope + rope), q),
            f"{at}kv_a_proj_with_mqa.weight": (kv + rope, hidden), f"{at}kv_b_proj.weight": (heads * (nope + value), kv),
            f"{at}o_proj.weight": (hidden, heads * value), f"{_AT}mlp.gate.e_score_correction_bias": (n,),
        }  # fmt: skip
        shapes |= apart(n, hidden, expert) | gated(hidden, expert, f"{_AT}mlp.shared_experts.")
        stated = {
            "n_routed_experts": n, "num_experts_per_tok": 8, "n_shared_experts": 1, "moe_intermediate_size": expert,
            "first_k_dense_replace": 0, "q_lora_rank": q, "kv_lora_rank": kv, "qk_nope_head_dim": nope, "qk_rope_head_dim": rope,
            "v_head_dim": value, "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
            "scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1, "num_nextn_predict_layers": 0,
        }  # fmt: skip
        found = config(name, kind, hidden, 4 * hidden, heads, heads, rope, **{**stated, **more})
        return found, shapes

    return make


def glm(n: int) -> Made:
    made, shapes = mixture("Glm4MoeForCausalLM", "glm4_moe", 4096, 10944, 96, 8, 128, expert=1408)(n)
    shapes |= {f"{_AT}self_attn.{x}_proj.bias": (k * 128,) for x, k in (("q", 96), ("k", 8), ("v", 8))}
    shapes |= gated(4096, 1408, f"{_AT}mlp.shared_experts.") | {f"{_AT}mlp.gate.e_score_correction_bias": (n,)}
    more = {"n_routed_experts": n, "n_shared_experts": 1, "first_k_dense_replace": 0, "num_nextn_predict_layers": 0}
    return {**{k: v for k, v in made.items() if k != "num_experts"}, **more, "partial_rotary_factor": 0.5}, shapes


def delta(kind: str) -> Make:
    """Qwen's delta networks with 16 heads of keys and 32 of values; Qwen 3.5 has its projections apart, Qwen3-Next fused."""
    h, keys, values = 2048, 16 * 128, 32 * 128

    def make(n: int) -> Made:
        at = f"{_AT}linear_attn."
        shapes = norms(h) | norms(128, "norm", at=at) | {
            f"{at}A_log": (32,), f"{at}dt_bias": (32,), f"{at}conv1d.weight": (2 * keys + values, 1, 4),
            f"{at}out_proj.weight": (h, values),
        }  # fmt: skip
        if kind == "qwen3_next":
            shapes |= {f"{at}in_proj_qkvz.weight": (2 * keys + 2 * values, h), f"{at}in_proj_ba.weight": (64, h)}
            shapes |= apart(n, h, 512)
        else:
            shapes |= {f"{at}in_proj_qkv.weight": (2 * keys + values, h), f"{at}in_proj_z.weight": (values, h)}
            shapes |= {f"{at}in_proj_{x}.weight": (32, h) for x in "ab"} | {f"{_AT}mlp.gate.weight": (n, h)}
            shapes |= {f"{_AT}mlp.experts.gate_up_proj": (n, 1024, h), f"{_AT}mlp.experts.down_proj": (n, h, 512)}
        shapes |= gated(h, 512, f"{_AT}mlp.shared_expert.") | {f"{_AT}mlp.shared_expert_gate.weight": (1, h)}
        name = "Qwen3NextForCausalLM" if kind == "qwen3_next" else "Qwen3_5MoeForCausalLM"
        more = {"num_experts": n, "num_experts_per_tok": 8, "moe_intermediate_size": 512, "norm_topk_prob": True}
        more |= {"shared_expert_intermediate_size": 512, "layer_types": ["linear_attention"]}
        return config(name, kind, h, 5120, 16, 2, 256, **more), shapes

    return make


def llama4(n: int) -> Made:
    h, ffn, at = 5120, 8192, f"{_AT}feed_forward."
    shapes = norms(h) | attention(h, 40, 8, 128) | gated(h, ffn, f"{at}shared_expert.") | {
        f"{at}router.weight": (n, h), f"{at}experts.gate_up_proj": (n, h, 2 * ffn), f"{at}experts.down_proj": (n, ffn, h),
    }  # fmt: skip
    more = {
        "num_local_experts": n,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
        "intermediate_size_mlp": 2 * ffn,
    }
    return config(
        "Llama4ForCausalLM", "llama4_text", h, ffn, 40, 8, 128, moe_layers=[0], no_rope_layers=[1], **more
    ), shapes


def granite(n: int) -> Made:
    h, ffn, at = 1536, 512, f"{_AT}block_sparse_moe."
    shapes = norms(h) | attention(h, 24, 8, 64) | {
        f"{at}router.layer.weight": (n, h), f"{at}input_linear.weight": (n, 2 * ffn, h), f"{at}output_linear.weight": (n, h, ffn),
    }  # fmt: skip
    return config(
        "GraniteMoeForCausalLM", "granitemoe", h, ffn, 24, 8, 64, num_local_experts=n, num_experts_per_tok=8
    ), shapes


def lfm2(n: int) -> Made:
    h, at = 2048, f"{_AT}feed_forward."
    shapes = norms(h, "operator_norm", "ffn_norm") | {
        f"{_AT}conv.conv.weight": (h, 1, 3), f"{_AT}conv.in_proj.weight": (3 * h, h), f"{_AT}conv.out_proj.weight": (h, h),
        f"{at}expert_bias": (n,),
    }  # fmt: skip
    shapes |= apart(n, h, 1792, at, "w1 w3 w2")
    more = {
        "num_experts": n,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1792,
        "num_dense_layers": 0,
        "norm_eps": 1e-5,
    }
    more |= {
        "layer_types": ["conv"],
        "conv_L_cache": 3,
        "conv_bias": False,
        "use_expert_bias": True,
        "norm_topk_prob": True,
    }
    return config("Lfm2MoeForCausalLM", "lfm2_moe", h, 7168, 32, 8, 64, **more), shapes


def command_r(_n: int) -> Made:
    shapes = norms(8192, "input_layernorm") | attention(8192, 64, 64, 128) | gated(8192, 22528)
    stated = config("CohereForCausalLM", "cohere", 8192, 22528, 64, 64, 128, logit_scale=0.0625, layer_norm_eps=1e-5)
    return {k: v for k, v in stated.items() if k != "rms_norm_eps"}, shapes


#: family -> its layer, and how many experts it has
FAMILIES: dict[str, tuple[Make, int]] = {
    "Llama 3 8B": (dense("LlamaForCausalLM", "llama", 4096, 14336, 32, 8, 128), 0),
    "Mistral Small 24B": (dense("MistralForCausalLM", "mistral", 5120, 32768, 32, 8, 128), 0),
    "Qwen2.5 7B": (dense("Qwen2ForCausalLM", "qwen2", 3584, 18944, 28, 4, 128, biases=True), 0),
    "Qwen3 8B": (dense("Qwen3ForCausalLM", "qwen3", 4096, 12288, 32, 8, 128, qk=128), 0),
    "Gemma 3 12B": (gemma3, 0),
    "Phi 4": (phi, 0),
    "Command R": (command_r, 0),
    "Granite 3.3 8B": (dense("GraniteForCausalLM", "granite", 4096, 12800, 32, 8, 128), 0),
    "SmolLM3 3B": (dense("SmolLM3ForCausalLM", "smollm3", 2048, 11008, 16, 4, 128, no_rope_layers=[1]), 0),
    "Seed-OSS 36B": (dense("SeedOssForCausalLM", "seed_oss", 5120, 27648, 80, 8, 128, biases=True), 0),
    "Mixtral 8x7B": (mixtral, 8),
    "Qwen3 30B-A3B": (mixture("Qwen3MoeForCausalLM", "qwen3_moe", 2048, 6144, 32, 4, 128, expert=768, qk=128), 128),
    "Qwen3.5 35B-A3B": (delta("qwen3_5_moe_text"), 256),
    "Qwen3-Next 80B-A3B": (delta("qwen3_next"), 512),
    "gpt-oss 20B": (gpt_oss, 32),
    "DeepSeek V3": (latent("DeepseekV3ForCausalLM", "deepseek_v3", 7168, 128, (1536, 512), 2048), 256),
    "Kimi K2": (latent("DeepseekV3ForCausalLM", "deepseek_v3", 7168, 64, (1536, 512), 2048), 384),
    "GLM 4.5 Air": (glm, 128),
    "MiniMax M2": (minimax, 256),
    "Llama 4 Scout": (llama4, 16),
    "Granite 3 MoE 3B": (granite, 40),
    "LFM2 8B-A1B": (lfm2, 32),
}  # fmt: skip


def n_bytes(name: str, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * (1 if name.endswith(("_blocks", "_scales")) else 2)


def write(out: Path, family: str, most: int) -> tuple[int, int]:
    """Write the checkpoint folder ``out`` of at most about ``most`` bytes; its bytes, and how many experts it has."""
    make, n = FAMILIES[family]
    size = lambda n: sum(n_bytes(*each) for each in make(n)[1].items())  # noqa: E731
    while n > 4 and size(n) > most:
        n = max(4, n * 3 // 4)
    stated, shapes = make(n)
    hidden = stated["hidden_size"]
    shapes = {"model.embed_tokens.weight": (VOCABULARY, hidden), "model.norm.weight": (hidden,), **shapes}
    if stated["model_type"] == "lfm2_moe":
        shapes = {("model.embedding_norm.weight" if k == "model.norm.weight" else k): v for k, v in shapes.items()}
    out.mkdir(parents=True)
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + n_bytes(name, shape)
        is_bytes = name.endswith(("_blocks", "_scales"))
        header[name] = {"dtype": "U8" if is_bytes else "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    pool = bf16(np.random.default_rng(0).standard_t(8, size=8 << 20) * 0.02).tobytes()
    exponents = np.random.default_rng(1).integers(110, 125, 8 << 20, np.uint8).tobytes()
    with open(out / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            source, left = exponents if name.endswith("_scales") else pool, n_bytes(name, shape)
            while left:
                left -= f.write(source[:left])
    (out / "config.json").write_text(json.dumps(stated))
    _write_tokenizer(out, is_spm=stated["model_type"] in ("llama", "mistral", "mixtral", "phi3", "gemma3_text"))
    return at, n


def _write_tokenizer(out: Path, is_spm: bool) -> None:
    if is_spm:
        for name in ("tokenizer.model", "tokenizer_config.json"):
            shutil.copy(TOKENIZER / name, out / name)
        return
    codes = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(n) for n in codes] + [chr(256 + n) for n in range(256 - len(codes))]
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {letter: n for n, letter in enumerate(letters)}, "merges": []}
    added = [{"id": 256 + n, "content": f"<|{n}|>", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False} for n in range(4)]  # fmt: skip
    tokenizer = {"version": "1.0", "added_tokens": added, "pre_tokenizer": split, "decoder": split, "model": model}
    (out / "tokenizer.json").write_text(json.dumps(tokenizer))
    marks = {"eos_token": "<|0|>", "bos_token": "<|1|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (out / "tokenizer_config.json").write_text(json.dumps(marks))
