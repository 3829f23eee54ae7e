"""BitNet b1.58: weights of three values, which are made of those of training where they are not packed already."""

from __future__ import annotations

from ...kit import Ternary
from ...metadata import Metadata
from ...rows import Rows, walk
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE
from ..names import plain_name
from ..tokenizers import QWEN
from . import llama


def ternary(rows: Rows, _config: Config) -> Rows:
    """The values that the model computes with; packed ones have been made so when they were packed."""
    is_packed = any(str(getattr(each, "encoding", "")).startswith("bitnet") for each in walk(rows))
    return rows if is_packed or len(rows.shape) < 2 else Ternary(rows)


def unscaled(m: Metadata, a: str, c: Config) -> None:
    """Positions are scaled by one."""
    m.string(f"{a}.rope.scaling.type", "linear")
    m.f32(f"{a}.rope.scaling.factor", 1.0)


def spelled(name: str, _config: Config) -> str:
    """``name`` as the first models spelled it; the published one has other names for two norms."""
    name = plain_name(name)
    return name.replace(".self_attn.attn_sub_norm.", ".self_attn.inner_attn_ln.").replace(
        ".mlp.ffn_sub_norm.", ".mlp.ffn_layernorm."
    )


FAMILY = Family(
    arch="bitnet",
    architectures=("BitnetForCausalLM", "BitNetForCausalLM"),
    tokenizer=QWEN,
    classes={
        **llama.FAMILY.classes,
        "bitnet": class_defaults(
            128256, 2048, 2560, 6912, 30, 20, 5, rms_norm_eps=1e-5, hidden_act="relu2", bos_token_id=128000, eos_token_id=128001,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        ),
    },
    assumes={
        **GATED_SILU, "rope_type": Assumed(("default",)), "weight_bits": Assumed((1,)),
        "input_bits": Assumed((8,), "runtimes choose the precision of what they multiply weights with"),
    },
    keys=(*BASE, unscaled),
    spelled=spelled,
    transforms=dict.fromkeys(
        ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"), ternary
    ),
)  # fmt: skip
