"""Ways to break a good model, each with what ``check`` must say. The same list is held against the real loader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from gguf_edit import Gguf


@dataclass(frozen=True)
class Break:
    """One way.

    Attributes
    ----------
    arch : model to break
    change : what is done to it
    words : must occur in a finding
    severity : of that finding
    """

    arch: str
    change: Callable[[Gguf], object]
    words: str
    severity: str = "error"


def drop(*names: str) -> Callable[[Gguf], object]:
    def change(model: Gguf) -> None:
        for name in names:
            model.tensors.pop(name, None)
            model.keys.remove(name)

    return change


def put(key: str, kind: str, plain: object, elem: str = "") -> Callable[[Gguf], object]:
    return lambda model: model.set(key, kind, plain, elem)


def tensor(name: str, *shape: int) -> Callable[[Gguf], object]:
    return lambda model: model.floats(name, *shape)


def both(*changes: Callable[[Gguf], object]) -> Callable[[Gguf], object]:
    return lambda model: [change(model) for change in changes]


def tokens(change: Callable[[list[str]], object]) -> Callable[[Gguf], object]:
    def apply(model: Gguf) -> None:
        found = list(model.keys.get("tokenizer.ggml.tokens"))
        change(found)
        model.set("tokenizer.ggml.tokens", "ARRAY", found, "STRING")

    return apply


def fuse_qkv(model: Gguf) -> None:
    for layer in range(2):
        parts = [model.tensors.pop(f"blk.{layer}.attn_{which}.weight") for which in "qkv"]
        rows = sum(part[0][0] for part in parts)
        model.tensors[f"blk.{layer}.attn_qkv.weight"] = ((rows, 32), "F32", b"".join(part[2] for part in parts))


def poison(name: str, value: float) -> Callable[[Gguf], object]:
    def change(model: Gguf) -> None:
        shape, kind, raw = model.tensors[name]
        values = np.frombuffer(raw, "<f4").copy()
        values[37] = value
        model.tensors[name] = (shape, kind, values.tobytes())

    return change


def renamed_key(old: str, new: str) -> Callable[[Gguf], object]:
    def change(model: Gguf) -> None:
        model.keys.values[new] = model.keys.values.pop(old)

    return change


BREAKS: dict[str, Break] = {
    # tensors
    "no embedding": Break("llama", drop("token_embd.weight"), "'token_embd.weight' is missing"),
    "no output norm": Break("gemma3", drop("output_norm.weight"), "'output_norm.weight' is missing"),
    "one layer lacks a norm": Break(
        "gemma3", drop("blk.1.attn_q_norm.weight"), "'blk.1.attn_q_norm.weight' is missing"
    ),
    "no layer has v": Break(
        "llama",
        drop("blk.0.attn_v.weight", "blk.1.attn_v.weight"),
        "'blk.0.attn_v.weight' and 1 more of 2 layers are missing",
    ),
    "ffn transposed": Break("llama", tensor("blk.0.ffn_up.weight", 32, 64), "of wrong shape: the file has [64, 32]"),
    "k has as many rows as q": Break("llama", tensor("blk.0.attn_k.weight", 32, 32), "expects [32, 16]"),
    "extra tensor": Break("llama", tensor("blk.0.attn_rot_embd", 4), "does not look for 'blk.0.attn_rot_embd'"),
    "layer too many": Break("llama", tensor("blk.2.attn_norm.weight", 32), "blk.2.attn_norm"),
    "layer too few": Break("qwen3", put("qwen3.block_count", "UINT32", 3), "'blk.2.attn_norm.weight' is missing"),
    "output required": Break("olmo2", drop("output.weight"), "does not fall back to token_embd.weight"),
    "output not wanted": Break("gemma", tensor("output.weight", 40, 32), "always reuses token_embd.weight"),
    "output of wrong shape": Break("llama", tensor("output.weight", 41, 32), "'output.weight' is of wrong shape"),
    "heads as a matrix": Break("qwen3", tensor("blk.0.attn_q_norm.weight", 4, 8), "wrong shape"),
    # keys
    "no architecture": Break("llama", drop("general.architecture"), "general.architecture is missing"),
    "no epsilon": Break("llama", drop("llama.attention.layer_norm_rms_epsilon"), "layer_norm_rms_epsilon is missing"),
    "wrong epsilon": Break(
        "qwen2",
        renamed_key("qwen2.attention.layer_norm_rms_epsilon", "qwen2.attention.layer_norm_epsilon"),
        "layer_norm_rms_epsilon is missing",
    ),
    "no context": Break("gemma3", drop("gemma3.context_length"), "gemma3.context_length is missing"),
    "no block count": Break("llama", drop("llama.block_count"), "llama.block_count is missing"),
    "no heads": Break("llama", drop("llama.attention.head_count"), "head_count is missing"),
    "no ffn length": Break("llama", drop("llama.feed_forward_length"), "feed_forward_length is missing"),
    "600 layers": Break("llama", put("llama.block_count", "UINT32", 600), "the loader accepts 1 to 512"),
    "context as u64": Break("llama", put("llama.context_length", "UINT64", 64), "stored as UINT64"),
    "epsilon as f64": Break(
        "llama", put("llama.attention.layer_norm_rms_epsilon", "FLOAT64", 1e-6), "stored as FLOAT64"
    ),
    "causal as a number": Break("qwen2", put("qwen2.attention.causal", "UINT32", 1), "the loader reads BOOL"),
    "base as f64": Break("gemma2", put("gemma2.rope.freq_base", "FLOAT64", 1e4), "the loader reads FLOAT32"),
    "heads as i32": Break("qwen3", put("qwen3.attention.head_count", "INT32", 4), "the loader reads UINT32"),
    "scaling as a number": Break("llama", put("llama.rope.scaling.type", "UINT32", 1), "the loader reads STRING"),
    "soft-capping as a flag": Break(
        "gemma2", put("gemma2.attn_logit_softcapping", "BOOL", False), "is stored as BOOL, the loader reads FLOAT32"
    ),
    "file type as text": Break("llama", put("general.file_type", "STRING", "F16"), "the loader reads UINT32"),
    "name as a number": Break("llama", put("general.name", "UINT32", 7), "the loader reads STRING"),
    "empty key": Break("llama", put("", "UINT32", 1), "a metadata key is empty"),
    "rope dimensions": Break("llama", put("llama.rope.dimension_count", "UINT32", 4), "must be the head size, 8"),
    "experts used": Break(
        "llama",
        both(put("llama.expert_count", "UINT32", 4), put("llama.expert_used_count", "UINT32", 8)),
        "8 of 4 experts",
    ),
    "heads per layer": Break(
        "llama", put("llama.attention.head_count", "ARRAY", [4, 4, 4], "INT32"), "3 entries for 2 layers"
    ),
    "heads shared unevenly": Break(
        "llama", put("llama.attention.head_count_kv", "UINT32", 3), "which does not divide 4 heads"
    ),
    "experts used where there are none": Break(
        "llama", put("llama.expert_used_count", "UINT32", 2), "is 2, but there are no experts"
    ),
    # vocabulary
    "no tokenizer": Break("llama", drop("tokenizer.ggml.model"), "finds no vocabulary"),
    "no tokens": Break("llama", drop("tokenizer.ggml.tokens"), "tokenizer.ggml.tokens is missing"),
    "one token more": Break("llama", tokens(lambda t: t.append("new")), "40 rows, the vocabulary 41 tokens"),
    "token twice": Break("llama", tokens(lambda t: t.__setitem__(30, "t1")), "are both 't1'"),
    "unknown kind of tokenizer": Break(
        "llama", put("tokenizer.ggml.model", "STRING", "wordlevel"), "'wordlevel', which the loader does not know"
    ),
    "adding eos as a number": Break(
        "gemma", put("tokenizer.ggml.add_eos_token", "UINT8", 0), "is stored as UINT8, the loader reads BOOL"
    ),
    "adding a blank as text": Break(
        "llama", put("tokenizer.ggml.add_space_prefix", "STRING", "false"), "the loader reads BOOL"
    ),
    "end of turn as i32": Break("gemma3", put("tokenizer.ggml.eot_token_id", "INT32", -1), "the loader reads UINT32"),
    "token types as u32": Break(
        "llama", put("tokenizer.ggml.token_type", "ARRAY", [1] * 40, "UINT32"), "an array of UINT32, the loader reads"
    ),
    "scores as f64": Break(
        "llama", put("tokenizer.ggml.scores", "ARRAY", [0.0] * 40, "FLOAT64"), "an array of FLOAT32 or INT32"
    ),
    "pieces as byte-level": Break(
        "llama",
        both(
            tokens(lambda t: t.__setitem__(slice(20, 40), [f"\u2581{n}" for n in range(20)])),
            put("tokenizer.ggml.model", "STRING", "gpt2"),
            put("tokenizer.ggml.pre", "STRING", "gpt-2"),
            put("tokenizer.ggml.merges", "ARRAY", ["\u2581 1"], "STRING"),
        ),
        "the loader drops spaces and newlines",
        "warning",
    ),
    "byte-level as pieces": Break(
        "qwen2",
        tokens(lambda t: t.__setitem__(slice(3, 40), [f"\u0120{n}" for n in range(37)])),
        "as in byte-level BPE",
        "warning",
    ),
    "words spelled as bert spells them": Break(
        "qwen2",
        both(
            put("tokenizer.ggml.model", "STRING", "bert"),
            tokens(lambda t: t.__setitem__(slice(3, 40), [f"##{n}" for n in range(37)])),
            put("tokenizer.ggml.token_type", "ARRAY", [1] * 40, "INT32"),
        ),
        "words that begin with U+2581",
        "warning",
    ),
    "turn markers as ordinary tokens": Break(
        "llama",
        both(
            tokens(lambda t: t.__setitem__(slice(20, 23), ["<|im_start|>", "[INST]", "<other>"])),
            put("tokenizer.chat_template", "STRING", "<|im_start|>user [INST] {{ m }}"),
        ),
        "spells '<|im_start|>', '[INST]', whose type is neither",
        "warning",
    ),
    "unknown pre-tokenizer": Break(
        "llama",
        both(
            put("tokenizer.ggml.model", "STRING", "gpt2"),
            put("tokenizer.ggml.merges", "ARRAY", ["t 1"], "STRING"),
            put("tokenizer.ggml.pre", "STRING", "no-such"),
        ),
        "does not know this pre-tokenizer",
    ),
    "no merges": Break(
        "llama",
        both(put("tokenizer.ggml.model", "STRING", "gpt2"), put("tokenizer.ggml.pre", "STRING", "gpt-2")),
        "merges is missing",
    ),
    "scores too short": Break("llama", put("tokenizer.ggml.scores", "ARRAY", [0.0] * 39, "FLOAT32"), "39 entries"),
    "token types too short": Break("llama", put("tokenizer.ggml.token_type", "ARRAY", [1] * 39, "INT32"), "39 entries"),
    "scores too long": Break(
        "llama", put("tokenizer.ggml.scores", "ARRAY", [0.0] * 41, "FLOAT32"), "41 entries for 40 tokens", "warning"
    ),
    "a size that is not that of the tokens": Break(
        "llama", put("llama.vocab_size", "UINT32", 48), "the loader uses the number of tokens", "warning"
    ),
    # rope
    "unknown scaling": Break("llama", put("llama.rope.scaling.type", "STRING", "llama3"), "the loader knows"),
    "no base": Break("llama", drop("llama.rope.freq_base"), "the loader assumes 10000", "warning"),
    "linear without factor": Break(
        "llama", put("llama.rope.scaling.type", "STRING", "linear"), "nothing is scaled", "warning"
    ),
    "yarn without original": Break(
        "qwen2",
        both(put("qwen2.rope.scaling.type", "STRING", "yarn"), put("qwen2.rope.scaling.factor", "FLOAT32", 4.0)),
        "yarn has no effect",
        "warning",
    ),
    "llama 3.1 without factors": Break(
        "llama",
        both(put("llama.rope.freq_base", "FLOAT32", 500000.0), put("llama.context_length", "UINT32", 131072)),
        "rope_freqs.weight is absent",
        "warning",
    ),
    "gemma 3 local base for candle": Break(
        "gemma3", put("gemma3.rope.freq_base_swa", "FLOAT32", 20000.0), "candle assumes 10000", "warning"
    ),
    # endings
    "no eos": Break("llama", drop("tokenizer.ggml.eos_token_id"), "uses id 2, '</s>', as end of generation", "warning"),
    "no bos where one is added": Break(
        "llama",
        both(drop("tokenizer.ggml.bos_token_id"), put("tokenizer.ggml.add_bos_token", "BOOL", True)),
        "every prompt begins with '<bos>'",
        "warning",
    ),
    "eos out of range": Break(
        "llama", put("tokenizer.ggml.eos_token_id", "UINT32", 99), "vocabulary ends at 39", "warning"
    ),
    "template ends turns with no token": Break(
        "gemma3",
        put("tokenizer.chat_template", "STRING", "{{ m }}<end_of_turn>"),
        "generation will not stop there",
        "warning",
    ),
    "template cut": Break(
        "gemma3",
        put("tokenizer.chat_template", "STRING", "{% if a %}{{ x }}"),
        "'if' of line 1 is never ended",
        "warning",
    ),
    "soft-capping left out": Break("gemma2", drop("gemma2.attn_logit_softcapping"), "the loader assumes 50", "warning"),
}

#: kept apart: the loader takes such a file, what it computes is useless
VALUES: dict[str, Break] = {
    "NaN": Break("llama", poison("blk.1.ffn_down.weight", float("nan")), "1 of 2048 values are NaN or infinite"),
    "infinity": Break("llama", poison("token_embd.weight", float("-inf")), "the first in row 1, value 5"),
}

#: changes that must not trouble anyone
HARMLESS: dict[str, tuple[str, Callable[[Gguf], object]]] = {
    "fused qkv": ("llama", fuse_qkv),
    "own output": ("llama", tensor("output.weight", 40, 32)),
    "q bias": ("qwen2", tensor("blk.0.attn_q.bias", 32)),
    "rope factors": ("llama", tensor("rope_freqs.weight", 4)),
    "scores as integers": ("llama", put("tokenizer.ggml.scores", "ARRAY", [0] * 40, "INT32")),
    "turn markers as control tokens": (
        "llama",
        both(
            tokens(lambda t: t.__setitem__(slice(1, 3), ["<|im_start|>", "</s>"])),
            put("tokenizer.chat_template", "STRING", "<|im_start|>user <0x00> <{{ m }}>"),
        ),
    ),
    "unknown key": ("llama", put("llama.something.new", "UINT32", 3)),
    "both local bases": (
        "gemma3",
        both(
            put("gemma3.rope.freq_base_swa", "FLOAT32", 10000.0),
            put("gemma3.rope.local_freq_base", "FLOAT32", 10000.0),
        ),
    ),
    "heads per layer": ("llama", put("llama.attention.head_count", "ARRAY", [4, 4], "INT32")),
    "the usual local base for candle alone": ("gemma3", put("gemma3.rope.local_freq_base", "FLOAT32", 10000.0)),
}
