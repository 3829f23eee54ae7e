"""DeciLM and Nemotron NAS: layers that a search has given heads and networks of their own, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...errors import BadInput
from ...kit import interleaved, take
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, key_value_length, rope_dimension_count, rope_scaling, vocab_size
from ..tokenizers import TokenizerRule
from ..tokenizers.bpe import read_bpe
from ..tokenizers.files import TokenizerFiles
from ..tokenizers.json_model import holds_pieces
from ..tokenizers.json_pieces import read_json_pieces
from ..tokenizers.vocabulary import Vocabulary
from .llama import ROPE_FREQS

#: what a layer's attention or network may say that runtimes do not compute
_UNKNOWN = {
    "attention": ("window_length", "num_sink_tokens", "unshifted_sink", "use_prefill_window_in_sink_attention"),
    "ffn": ("replace_with_linear",),
}  # fmt: skip
_MULTIPLE = 256


def blocks(c: Config) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Attention and network of each layer, as ``block_configs`` has them.

    Raises
    ------
    BadInput : it is not a list of such, or a layer is of a kind that runtimes do not compute
    """
    stated = c.get("block_configs")
    if not isinstance(stated, list) or len(stated) != c.n_layers:
        raise BadInput(f"{c.place}: 'block_configs' is not a list of {c.n_layers} layers")
    for number, block in enumerate(stated):
        parts: list[Mapping[str, Any]] = []
        for part in _UNKNOWN:
            found = block.get(part) if isinstance(block, Mapping) else None
            if not isinstance(found, Mapping):
                raise BadInput(f"{c.place}: 'block_configs' has no {part!r} of layer {number}")
            parts.append(found)
            if said := next((key for key in _UNKNOWN[part] if found.get(key)), None):
                raise BadInput(
                    f"{c.place}: {said!r} is {found[said]!r} in layer {number}, which runtimes do not compute",
                    "No GGUF key expresses this, so the output would be a different model.",
                )
        yield parts[0], parts[1]


def by_layer(m: Metadata, a: str, c: Config) -> None:
    """Heads of each layer, of which linear attention has no keys and a layer without attention none, and widths of networks."""
    heads, kv_heads, widths = [], [], []
    for attention, network in blocks(c):
        group, factor = attention.get("n_heads_in_group"), network.get("ffn_mult")
        if not all(n is None or (isinstance(n, (int, float)) and 0 < n < 1e6) for n in (group, factor)):
            raise BadInput(f"{c.place}: 'block_configs' has n_heads_in_group {group!r} and ffn_mult {factor!r}")
        heads.append(c.n_heads if group or attention.get("replace_with_linear") else 0)
        kv_heads.append(int(c.n_heads // group) if group else 0)
        widths.append(-(-int(2 * (factor or 0) * c.hidden / 3) // _MULTIPLE) * _MULTIPLE)
    for key, values in (
        ("attention.head_count_kv", kv_heads), ("attention.head_count", heads), ("feed_forward_length", widths),
    ):  # fmt: skip
        m.array(f"{a}.{key}", "INT32", values)


def head_width(m: Metadata, a: str, c: Config) -> None:
    """Width of a head, whatever ``head_dim`` says."""
    for kind in ("key", "value"):
        m.u32(f"{a}.attention.{kind}_length", c.hidden // max(c.n_heads, 1))


def kv_heads(m: Metadata, a: str, c: Config) -> None:
    """Key/value heads of each layer, where they differ."""
    stated = c.get("num_key_value_heads_per_layer")
    if stated is None:
        return
    if not isinstance(stated, list) or len(stated) != c.n_layers or not all(type(n) is int for n in stated):
        raise BadInput(f"{c.place}: 'num_key_value_heads_per_layer' is not a list of {c.n_layers} numbers")
    m.array(f"{a}.attention.head_count_kv", "INT32", stated)


def interleave(rows: Rows, c: Config) -> Rows:
    """Rows of heads, as many as there are in the layer, with adjacent rotary pairs."""
    return take(rows, interleaved(rows.shape[0], rows.shape[0] // max(c.head_dim, 1)))


def read_vocabulary(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, pre: str | None) -> Vocabulary:
    """That of tokenizer.json: byte-level, or pieces that are special where the tokenizer names them."""
    return read_json_pieces(files, config, size, True) if holds_pieces(files) else read_bpe(files, config, size, pre)


def searched(family: Family, c: Config) -> Family:
    """That of models whose layers differ in more than key/value heads."""
    if c.get("block_configs") is None:
        return family
    common = (key for key in BASE if key not in (rope_scaling, key_value_length))
    return replace(
        family,
        keys=(*common, by_layer, head_width, vocab_size, rope_dimension_count),
        assumes={**GATED_SILU, "rope_type": Assumed(("default", "llama3"))},
    )


FAMILY = Family(
    arch="deci",
    architectures=("DeciLMForCausalLM",),
    tokenizer=TokenizerRule(("json", "spm"), own={"json": ("tokenizer.json", read_vocabulary)}),
    variant=searched,
    keys=(*BASE, kv_heads, vocab_size, rope_dimension_count),
    transforms={"attn_q": interleave, "attn_k": interleave},
    rules=(ROPE_FREQS,),
)
