"""The file under examination, with the numbers its loader derives from the metadata.

Names that expressions of ``loader_tensors.json`` may use, each with its default when the key is absent:

    n_embd, n_vocab, n_ctx          embedding_length, number of tokens (else vocab_size), context_length
    n_head, n_head_kv, n_ff         of layer i where the file stores one number per layer; n_head_kv: n_head
    head_k, head_v                  attention.key_length, attention.value_length: n_embd / n_head
    head_k_mla, head_v_mla, is_mla  the same under multi-head latent attention: head_k, head_v
    head_nope, n_rot                head_k_mla - n_rot, rope.dimension_count: head_k
    k_gqa, v_gqa                    head_k * n_head_kv, head_v * n_head_kv
    n_expert, n_expert_shared       0
    n_ff_exp, n_ff_shexp            n_ff / expert_used_count, and n_ff for Qwen2-MoE, else 0
    q_lora_rank, kv_lora_rank       0
    n_layer, i                      layers without the extra ones for next-token prediction; this one
    n_dense_lead                    leading_dense_block_count: 0
    longrope, fused_experts         rope.scaling.type is longrope; the layer has ffn_gate_up_exps
    n_altup, n_altup_embd, laurel_rank, n_token_types
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..metadata import Metadata
from ..sources import GgufFile
from ..sources.gguf_header import TensorInfo

#: the loader's own limit
MAX_LAYERS = 512


@dataclass(frozen=True)
class Subject:
    """A GGUF model, whole or split.

    Attributes
    ----------
    path : the first file
    files : all files
    """

    path: Path
    files: list[GgufFile]

    @cached_property
    def metadata(self) -> Metadata:
        """Key/values of the first file, which are those a loader uses."""
        return self.files[0].metadata

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Tensor infos of all files."""
        return {name: info for file in self.files for name, info in file.tensors.items()}

    @cached_property
    def arch(self) -> str:
        """``general.architecture``, empty when there is none."""
        found = self.metadata.get("general.architecture", "")
        return found if isinstance(found, str) else ""

    @property
    def is_text_model(self) -> bool:
        """Not a projector, an adapter, an importance matrix, or a vocabulary alone."""
        kind = self.metadata.get("general.type", "model")
        return kind == "model" and self.arch not in ("clip", "") and bool(self.tensors)

    def key(self, name: str) -> str:
        """The full key of a hyper-parameter of this architecture."""
        return f"{self.arch}.{name}"

    def get(self, name: str, default: Any = None) -> Any:
        """The plain value of a hyper-parameter."""
        return self.metadata.get(self.key(name), default)

    def number(self, name: str, layer: int = 0) -> int | None:
        """An integer hyper-parameter, that of ``layer`` where there is one per layer; None when absent or of another kind."""
        found = self.get(name)
        if isinstance(found, list):
            found = found[layer] if layer < len(found) else None
        return found if type(found) is int else None

    @cached_property
    def n_blocks(self) -> int:
        """Number of ``blk.*``, never more than the loader's limit."""
        return min(max(self.number("block_count") or 0, 0), MAX_LAYERS)

    @cached_property
    def tokens(self) -> Any:
        """The token texts, or an empty list."""
        found = self.metadata.values.get("tokenizer.ggml.tokens")
        return found.value if found is not None and found.elem == "STRING" else []

    @cached_property
    def n_vocab(self) -> int | None:
        """Number of tokens as the loader counts them."""
        return len(self.tokens) or self.number("vocab_size")

    def names(self, layer: int) -> dict[str, int | None]:
        """The names expressions may use, for one layer; None for what the file does not say."""
        n_embd, n_head, n_ff = (
            self.number(key, layer) for key in ("embedding_length", "attention.head_count", "feed_forward_length")
        )
        n_head_kv = self._or("attention.head_count_kv", n_head, layer)
        per_head = n_embd // n_head if n_embd and n_head else None
        head_k = self._or("attention.key_length", per_head)
        head_v = self._or("attention.value_length", per_head)
        head_k_mla = self._or("attention.key_length_mla", head_k)
        n_rot = self._or("rope.dimension_count", head_k)
        used = self.number("expert_used_count") or 1
        return {
            "n_embd": n_embd,
            "n_vocab": self.n_vocab,
            "n_ctx": self.number("context_length"),
            "n_head": n_head,
            "n_head_kv": n_head_kv,
            "n_ff": n_ff,
            "head_k": head_k,
            "head_v": head_v,
            "head_k_mla": head_k_mla,
            "head_v_mla": self._or("attention.value_length_mla", head_v),
            "is_mla": int("attention.key_length_mla" in self and "attention.value_length_mla" in self),
            "n_rot": n_rot,
            "head_nope": None if head_k_mla is None or n_rot is None else head_k_mla - n_rot,
            "k_gqa": _product(head_k, n_head_kv),
            "v_gqa": _product(head_v, n_head_kv),
            "n_expert": self._or("expert_count", 0),
            "n_expert_shared": self._or("expert_shared_count", 0),
            "n_ff_exp": self._or("expert_feed_forward_length", n_ff // used if n_ff else None),
            "n_ff_shexp": self._or("expert_shared_feed_forward_length", n_ff if self.arch == "qwen2moe" else 0),
            "q_lora_rank": self._or("attention.q_lora_rank", 0),
            "kv_lora_rank": self._or("attention.kv_lora_rank", 0),
            "n_layer": self.n_blocks - (self.number("nextn_predict_layers") or 0),
            "i": layer,
            "n_dense_lead": self._or("leading_dense_block_count", 0),
            "longrope": int(self.get("rope.scaling.type") == "longrope"),
            "fused_experts": int(f"blk.{layer}.ffn_gate_up_exps.weight" in self.tensors),
            "n_altup": self._or("altup.num_inputs", 4),
            "n_altup_embd": self._or("embedding_length_per_layer_input", 256),
            "laurel_rank": 64,
            "n_token_types": self.metadata.get("tokenizer.ggml.token_type_count"),
        }

    def __contains__(self, name: str) -> bool:
        return self.key(name) in self.metadata

    def _or(self, name: str, default: int | None, layer: int = 0) -> int | None:
        return self.number(name, layer) if name in self else default


def _product(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a * b
