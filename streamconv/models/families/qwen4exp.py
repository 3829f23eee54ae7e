"""Qwen 3.8 Flash Next: Qwen 3.5's layers between hyper-connections, an indexer, embeddings of n-grams in one layer.

The n-grams' hash is of whole numbers that no float32 holds, which become keys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...errors import BadInput
from ...kit import cut, squeezed
from ...metadata import Metadata
from ...rows import Rows, matrix_shape
from ..assumed import Assumed
from ..config import Config
from ..names import plain_name
from ..rules import Rule
from . import qwen2moe, qwen35, qwen35moe
from ._stated import numbers
from .gemma import plus_one
from .qwen3next import delta

_SHARD = re.compile(r"\.ngram_embedding\.shard_(\d+)\.")
_HASH = {
    "layer_multipliers": "layer_multipliers", "head_offsets": "ngram_heads_offsets", "head_vocab_sizes": "ngram_heads_vocab_sizes",
}  # fmt: skip
_LAYER, _INDEXER = "model.layers.{bid}", "model.layers.{bid}.self_attn.indexer"


def spelled(name: str, _config: Config) -> str:
    """``name`` with the numbers of shards as parts of their own."""
    name = plain_name(name.replace("model.mtp.", "mtp.")).replace(".dt_bias", ".dt_proj.bias")
    return _SHARD.sub(r".ngram_embedding.shards.\1.", name)


def table(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """The embeddings of n-grams of all shards, one behind the other."""
    if len(rows[0].sources) != c.integer("split_ngram_parts"):
        raise ValueError(f"there are {len(rows[0].sources)} shards")
    return rows


def queries_and_keys(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """What makes queries of the indexer, and behind it what makes its keys."""
    n = c.integer("indexer_n_heads") * c.integer("indexer_head_dim")
    return [cut(rows[0], 0, n), cut(rows[0], n, rows[0].shape[0])]


def whole_numbers(rows: Rows) -> list[int]:
    """A vector of whole numbers, all of their digits."""
    found = rows.native("I64", 0, matrix_shape(rows.shape)[0])
    values = rows.read(0, matrix_shape(rows.shape)[0]) if found is None else np.ascontiguousarray(found).view("<i8")
    return [int(value) for value in values.reshape(-1)]


def connections(m: Metadata, a: str, c: Config) -> None:
    """How many keys each layer compresses into one, and the hash of n-grams where a layer has them."""
    ratio, kinds = c.integer("indexer_compress_ratio"), c.layer_types
    m.array(f"{a}.attention.compress_ratios", "INT32", [0 if kind == "linear_attention" else ratio for kind in kinds])
    if not c.get("ple_layer_ids"):
        return
    m.array(f"{a}.ple.layers", "INT32", [n - 1 for n in c.get("ple_layer_ids")])
    ngrams(m, a, c)
    ends = c.get("eos_token_id")
    values = {"eos_token_id": ends[-1] if isinstance(ends, list) and ends else ends}
    m.u32(f"{a}.ple.eos_token_id", replace(c, values=values).integer("eos_token_id"))
    image(m, a, c)
    tensors = c.checkpoint.tensors if c.checkpoint is not None else {}
    width = next((rows.shape[-1] for name, rows in tensors.items() if _SHARD.search(name)), None)
    if width is not None:
        m.u32(f"{a}.embedding_length_per_layer_input", width)
    for key, name in _HASH.items():
        found = next((rows for tensor, rows in tensors.items() if tensor.endswith(f"ple_embedding.{name}")), None)
        if found is None and tensors:
            raise BadInput(f"{c.folder}: no tensor ends in 'ple_embedding.{name}'", "Is this the whole checkpoint?")
        if found is not None:
            m.array(f"{a}.ple.{key}", "UINT64", whole_numbers(found))


ngrams = numbers({
    "ple.ngram_size": "ngram_size", "ple.heads_per_ngram": "heads_per_ngram", "ple.conv_kernel": "ple_conv_kernel_size",
})  # fmt: skip
image = numbers({"ple.image_token_id": "image_token_id"})
_PLE = {
    "conv1d": "ple_conv1d", "key_proj": "ple_key", "value_proj": "ple_value", "norm_key": "ple_norm_key",
    "norm_query": "ple_norm_query", "norm_conv": "ple_norm_conv",
}  # fmt: skip
_HYPER = {
    "hc_norm": "norm", "input_mix_weight_down": "down", "input_mix_weight_up": "up", "block_inject_weight": "inject",
}  # fmt: skip
_IN_LAYERS = {"attn_hyper_connection": "hc_attn", "mlp_hyper_connection": "hc_ffn"}
FAMILY = replace(
    qwen35moe.FAMILY,
    arch="qwen4exp",
    named_as="qwen35moe",
    architectures=("Qwen4ExpForConditionalGeneration", "Qwen4ExpForCausalLM"),
    classes={},
    further=None,
    assumes={
        **{key: value for key, value in qwen35moe.FAMILY.assumes.items() if not key.startswith("mtp_")},
        "ple_layer_ids": Assumed(lambda ids, _: (ids,) if isinstance(ids, list) and len(ids) < 2 else ()),
        "indexer_kv_heads": Assumed((1,)),
    },
    idle=("mtp_*", "seed", "*ngram*", "number_of_conv_states", "ple_*", "mrope_interleaved"),
    keys=(*qwen2moe.FAMILY.keys, qwen35.sections, delta, numbers({
        "hyper_connection.count": "hc_count", "hyper_connection.low_rank": "hc_lowrank",
        "attention.indexer.head_count": "indexer_n_heads", "attention.indexer.key_length": "indexer_head_dim",
        "attention.indexer.top_k": "indexer_budget",
    }), connections),
    spelled=spelled,
    drops={"mtp.*": "runtimes predict one token at a time with this architecture", **{
        f"*ple_embedding.{name}": "its numbers are a key" for name in _HASH.values()}},
    names={
        **{f"{_LAYER}.{module}.{name}": f"blk.{{bid}}.{target}_{part}"
           for module, target in _IN_LAYERS.items() for name, part in _HYPER.items()},
        **{f"model.hyper_connection_mixer.{name}": f"output_hc_{part}" for name, part in _HYPER.items()},
        **{f"{_LAYER}.ple.{name}": f"blk.{{bid}}.{target}" for name, target in _PLE.items()},
        **{f"{_INDEXER}.{part}_layernorm": f"blk.{{bid}}.indexer.{part}_norm" for part in "qk"},
    },
    rules=(
        *qwen35moe.FAMILY.rules, Rule(("per_layer_token_embd.weight",), (
            "model.layers.{bid}.ple.ple_embedding.ngram_embedding.shards.{x}.weight",), table, joined=True),
        Rule(("blk.{bid}.indexer.q_proj.weight", "blk.{bid}.indexer.k_proj.weight"), (f"{_INDEXER}.index_qk_proj.weight",),
             queries_and_keys),
    ),
    transforms={
        **qwen35moe.FAMILY.transforms, "ple_norm_*": plus_one, "ple_conv1d": lambda rows, _: squeezed(rows),
    },
)  # fmt: skip
