"""EXAONE 4 and 4.5: norms behind each sublayer and on heads, windows in some layers, blocks that predict further tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...kit import Constant
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, sliding_window, vocab_size
from ..names import plain_name
from ..rules import Make, Rule
from ..tokenizers import BPE
from .llama import ROPE_FREQS, rope_factors

_FURTHER = {
    "fc": "nextn.eh_proj", "pre_fc_norm_embedding": "nextn.enorm", "pre_fc_norm_hidden": "nextn.hnorm",
    "norm": "nextn.shared_head_norm",
}  # fmt: skip
#: parts of a block, which several blocks may share
_BLOCK = {
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"}, "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


def n_further(c: Config) -> int:
    """Blocks that predict further tokens: those that are stated, where the checkpoint has any."""
    names = c.checkpoint.tensors if c.checkpoint is not None else ()
    stated = c.integer("num_nextn_predict_layers") if c.get("num_nextn_predict_layers") else 0
    return stated if any(name.removeprefix("model.").startswith("mtp.") for name in names) else 0


def has_window(c: Config) -> list[bool]:
    """Which layers have a window."""
    kinds, pattern = c.get("layer_types"), c.get("sliding_window_pattern")
    if isinstance(kinds, list):
        return [kind == "sliding_attention" for kind in kinds]
    if isinstance(pattern, str) and pattern:
        return [pattern[n % len(pattern)] == "L" for n in range(c.n_layers)]
    return [(n + 1) % c.integer("sliding_window_pattern") != 0 for n in range(c.n_layers)] if pattern else []


def windows(m: Metadata, a: str, c: Config) -> None:
    """The window, which layers have it, and further blocks."""
    if c.get("sliding_window") is not None:
        sliding_window(m, a, c)
        m.array(f"{a}.attention.sliding_window_pattern", "BOOL", has_window(c))
    if n_further(c):
        m.u32(f"{a}.block_count", c.n_layers + n_further(c))
        m.u32(f"{a}.nextn_predict_layers", n_further(c))


def spelled(name: str, c: Config) -> str:
    """``name`` with the blocks that predict further tokens behind the others."""
    name = plain_name(name.replace("model.mtp.", "mtp."))
    kind, _, rest = name.partition(".layers.")
    number, _, tail = rest.partition(".")
    return f"model.layers.{c.n_layers + int(number)}.{tail}" if kind == "mtp" and number.isdecimal() else name


def with_further(family: Family, c: Config) -> Family:
    """Further blocks have copies of what they share; where there are to be none their tensors are left out."""
    first, count = c.n_layers, n_further(c)
    if not count:
        return replace(
            family, drops={"mtp.*": "config.json counts no such blocks", f"model.layers.{first}.*": "likewise"}
        )
    shared = {f"mtp.{source}": target for source, target in _FURTHER.items()}
    if c.get("mtp_share_layers"):
        shared |= {f"model.layers.{first}.{source}": target for source, target in _BLOCK.items()}
    copies = tuple(
        Rule(
            tuple(f"blk.{n}.{target}.weight" for n in range(first, first + count)),
            (f"{source}.weight",),
            _copied(count),
        )
        for source, target in shared.items()
    )
    return replace(family, rules=(*family.rules, *copies))


def _copied(count: int) -> Make:
    return lambda rows, _config: list(rows) * count


def _factors(_rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Frequency factors of llama3 scaling, of which this class has another default."""
    return [Constant(rope_factors(replace(c, rope={"factor": 16.0, **c.rope})))]


DEFAULTS = class_defaults(
    102400, 2048, 4096, 16384, 32, 32, 32, rms_norm_eps=1e-5, sliding_window=4096, sliding_window_pattern=4,
)  # fmt: skip
FAMILY = Family(
    arch="exaone4",
    architectures=("Exaone4ForCausalLM", "Exaone4_5_ForConditionalGeneration"),
    tokenizer=BPE,
    classes={"exaone4": DEFAULTS, "exaone4_5_text": DEFAULTS},
    assumes={
        **{key: GATED_SILU[key] for key in ("hidden_act", "rope_type", "partial_rotary_factor", "truncate")},
        "num_nextn_predict_layers": Assumed(lambda _, c: (n_further(c),), "the checkpoint has no such blocks"),
    },
    idle=("reduced_vocab_size",),
    keys=(*BASE, vocab_size, windows),
    variant=with_further,
    spelled=spelled,
    rules=(ROPE_FREQS._replace(make=_factors),),
)  # fmt: skip
