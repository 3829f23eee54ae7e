"""Ling 3: gated delta attention, and latent attention with gates on heads in one layer of each group; sections of positions."""

from __future__ import annotations

from ...errors import BadInput
from ...kit import EXP, Mapped, Reshaped
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, vocab_size
from ..rules import Rule
from ..tokenizers import BPE
from . import _kda
from ._mla import KV_B, latent
from ._nextn import COUNTED, NEXTN_NAMES, counted, further, n_further
from ._stated import MIXTURE, WEIGHTS, numbers
from .deepseek2 import EXPERTS_OF_MLP
from .kimi_linear import without_value_length

_LAYER = "model.layers.{bid}"


def is_full(c: Config, block: int) -> bool:
    """Whether a layer has latent attention: the last of every group, those that fill no group, and those behind the last."""
    n, group = c.n_layers, max(c.integer("layer_group_size"), 1)
    return block >= n // group * group or (block + 1) % group == 0


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Key/value heads of every layer, sizes of the others, and of what every token uses."""
    heads = [int(is_full(c, n)) for n in range(c.n_layers + n_further(c))]
    m.array(f"{a}.attention.head_count_kv", "INT32", heads)
    m.u32(f"{a}.ssm.conv_kernel", c.integer("short_conv_kernel_size"))
    m.u32(f"{a}.kda.head_dim", c.integer("head_dim"))
    m.boolean(f"{a}.kda.safe_gate", True)
    m.f32(f"{a}.kda.gate_lower_bound", c.real("kda_lower_bound"))
    if c.get("n_shared_experts", "num_shared_experts") is None:
        m.u32(f"{a}.expert_shared_count", 1)
    for key, name in (("exp", "expert_swiglu_limit_list"), ("shexp", "share_expert_swiglu_limit_list")):
        if isinstance(limits := c.get(name), list):
            limits = [0.0 if each is None else float(each) for each in limits[: len(heads)]]
            m.array(f"{a}.swiglu_clamp_{key}", "FLOAT32", limits + [0.0] * (len(heads) - len(limits)))


def sections(m: Metadata, a: str, c: Config) -> None:
    """Sections of positions of what also sees: pairs of numbers that are rotated, together all of them."""
    if "BailingMoeV3VL" not in str(c.raw.get("architectures")):
        return
    found = c.get("mrope_section")
    if not isinstance(found, list) or 2 * sum(found[:3]) != c.integer("qk_rope_head_dim"):
        raise BadInput(
            f"{c.place}: 'mrope_section' is {found!r}, not three numbers of pairs, together half of qk_rope_head_dim"
        )
    m.array(f"{a}.rope.dimension_sections", "INT32", [*found[:3], 0])


def gates(source: str, target: str, full: bool) -> Rule:
    """A gate, whose name in a file depends on the kind of the layer."""
    return Rule(
        (f"blk.{{bid}}.{target}.weight",),
        (f"{_LAYER}.self_attn.{source}.weight",),
        when=lambda c, block: is_full(c, block) is full,
    )


def decay(rows: Rows, _config: Config) -> Rows:
    """A number a head, in a row of its own."""
    return Reshaped(Mapped(rows, EXP), (rows.shape[0], 1))


FAMILY = Family(
    arch="bailingmoe3",
    named_as="kimi-linear",
    architectures=("BailingMoeV3ForCausalLM", "BailingMoeV3VLForConditionalGeneration"),
    tokenizer=BPE,
    further=further,
    assumes={
        **COUNTED, **{key: value for key, value in GATED_SILU.items() if key not in ("partial_rotary_factor", "layer_types")},
        "no_kda_lora": Assumed((True,), null=True), "kda_safe_gate": Assumed((True,), null=True),
        "gated_attention_proj_granularity_type": Assumed(("head_wise",), null=True),
        "use_bias": Assumed((False,)), "use_rmsnorm": Assumed((True,)), "use_qkv_bias": Assumed((False,)),
        "layer_types": Assumed(lambda _, c: ([
            "full_attention" if is_full(c, n) else "linear_attention" for n in range(c.n_layers)],)),
    },
    idle=(
        "moe_router_*", "router_dtype", "rotary_*", "mtp_*", "mlp_layer_types", "linear_*", "qk_head_dim", "image_*", "video_*",
        "rope_interleave", "use_qk_norm",
    ),
    keys=(
        *BASE, vocab_size, latent, without_value_length, MIXTURE, sizes,
        numbers({"expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size"}), *WEIGHTS, sections, counted,
    ),
    spelled=lambda name, c: _kda.spelled(name, c).replace(".attention.", ".self_attn."),
    drops={"linear_proj.*": "not part of the text model"},
    names={
        **NEXTN_NAMES, f"{_LAYER}.mlp.gate.expert_bias": "blk.{bid}.exp_probs_b.bias",
        f"{_LAYER}.final_layernorm": "blk.{bid}.layer_output_norm",
    },
    rules=(
        KV_B, EXPERTS_OF_MLP, gates("g_proj", "attn_gate", True), gates("g_proj", "ssm_g_a", False),
        gates("f_proj", "ssm_f_a", False),
    ),
    transforms={"ssm_conv1d_*": _kda.convolution, "ssm_a": decay},
)  # fmt: skip
