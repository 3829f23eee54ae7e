"""The mixes as data: which tensors of a file type get more or fewer bits than its default, and which are never quantized.

``MIX`` reads: for this kind of tensor and this file type, the first condition that holds gives the type; when none holds
the default of the file type stays. ``mix.py`` walks a model and asks this table.

Source: llama.cpp ``llama-quant.cpp``, ``tensor_allows_quantization`` and ``llama_tensor_get_type_impl`` (ggml 0.25.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a tensor is for, as far as the mixes care; the value is the word for it in a plan listing."""

    OUTPUT = "output"
    TOKEN = "token_embd"
    QKV = "attn_qkv"
    KV_B = "attn_kv_b"
    V = "attn_v"
    K = "attn_k"
    Q = "attn_q"
    OUT = "attn_output"
    UP = "ffn_up"
    GATE = "ffn_gate"
    DOWN = "ffn_down"
    OTHER = "other"


#: tensors that hold values, alone or fused with others; they share one counter
V_LIKE = frozenset({Kind.V, Kind.QKV, Kind.KV_B})
#: feed-forward tensors; each kind has its own counter
FFN = frozenset({Kind.UP, Kind.GATE, Kind.DOWN})

#: tensors an importance matrix never covers and no file type demands one for
UNCALIBRATED = frozenset({"token_embd.weight", "per_layer_token_embd.weight", "output.weight"})
_TOKEN_NAMES = frozenset({"token_embd.weight", "per_layer_token_embd.weight"})

#: part of a name -> kind, first match wins
_KIND_PARTS = [
    ("attn_qkv.weight", Kind.QKV),
    ("attn_kv_b.weight", Kind.KV_B),
    ("attn_v.weight", Kind.V),
    ("attn_k.weight", Kind.K),
    ("attn_q.weight", Kind.Q),
    ("attn_output.weight", Kind.OUT),
    ("ffn_up", Kind.UP),
    ("ffn_gate", Kind.GATE),
    ("ffn_down", Kind.DOWN),
]


def kind_of(name: str) -> Kind:
    """The kind of the tensor called ``name``.

    >>> kind_of("blk.3.ffn_down_exps.weight"), kind_of("output.weight"), kind_of("blk.0.attn_norm.weight")
    (<Kind.DOWN: 'ffn_down'>, <Kind.OUTPUT: 'output'>, <Kind.OTHER: 'other'>)
    """
    if name == "output.weight":
        return Kind.OUTPUT
    if name in _TOKEN_NAMES:
        return Kind.TOKEN
    return next((kind for part, kind in _KIND_PARTS if part in name), Kind.OTHER)


# -- never quantized ---------------------------------------------------------------------------------------------------

#: a tensor whose name contains one of these stays as it is
_NEVER = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel|per_layer_model_proj"
    r"|ssm_conv1d|shortconv\.conv\.weight|indexer\.[kq]_proj\.weight"
    r"|time_mix_(first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight"
    r"|attn_rel_b\.weight|\.position_embd|sam\.pos_embd|sam\.neck\.|sam\.net_|\.rel_pos"
    r"|\.patch_embd|\.patch_merger|a\.rvq\.codebook|mm\.a\.code_embd"
    r"|^position_embd\.weight$|^token_types\.weight$"
)
#: the same for single architectures
_NEVER_IN = {
    "glm5-next": re.compile(
        r"hc_|indexer\.(attn_q_b|attn_k|proj)|indexer_compressor_(gate|ape)|ssm_(f_a|f_b|g_a|g_b|beta)\.weight"
        r"|attn_kv_a_mqa\.weight|attn_[kv]_b\.weight"
    )
}


def never_quantized(name: str, shape: tuple[int, ...], architecture: str) -> str:
    """Why the tensor keeps the type it has, in a few words; empty when it may be quantized.

    Parameters
    ----------
    shape : slowest dimension first; leading ones do not count as dimensions
    """
    dims = len(shape)
    while dims > 1 and shape[-dims] == 1:
        dims -= 1
    if dims < 2:
        return "a vector, never quantized"
    if not name.endswith("weight"):
        return "not a weight, never quantized"
    special = _NEVER_IN.get(architecture)
    if _NEVER.search(name) or (special and special.search(name)):
        return "never quantized"
    return ""


# -- when ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a tensor stands, which is all a rule may look at.

    Attributes
    ----------
    index : running number among the tensors of its kind that the mix has seen (value-like kinds count together)
    layer : position to judge by: ``index``, or for feed-forward tensors of expert models the block number in the name
    count : how many positions there are
    heads_per_kv : query heads that share one key/value head; 0 without such heads
    experts : experts of the model, 0 or 1 when dense
    imatrix : an importance matrix is given
    """

    index: int
    layer: int
    count: int
    heads_per_kv: int
    experts: int
    imatrix: bool


@dataclass(frozen=True)
class When:
    """A condition with the words that explain it."""

    words: str
    holds: Callable[[Place], bool]

    def __and__(self, other: When) -> When:
        return When(f"{self.words}, {other.words}", lambda p: self.holds(p) and other.holds(p))

    def __or__(self, other: When) -> When:
        return When(f"{self.words} or {other.words}", lambda p: self.holds(p) or other.holds(p))


def _spread(p: Place) -> bool:
    """The first and last eighth, and every third position between."""
    eighth = p.count // 8
    return p.layer < eighth or p.layer >= 7 * p.count // 8 or (p.layer - eighth) % 3 == 2


ALWAYS = When("in every layer", lambda p: True)
FIRST_8TH = When("in the first eighth of the layers", lambda p: p.layer < p.count // 8)
#: the very low file types count tensors here even where the others go by block number
FIRST_8TH_SEEN = When("in the first eighth of the layers", lambda p: p.index < p.count // 8)
FIRST_16TH = When("in the first sixteenth of the layers", lambda p: p.layer < p.count // 16)
FIRST_2 = When("in the first 2 layers", lambda p: p.index < 2)
FIRST_4 = When("in the first 4 layers", lambda p: p.index < 4)
SPREAD = When("in the first and last eighth of the layers, every third between", _spread)
MIDDLE = When("in the middle layers", lambda p: p.count // 8 <= p.layer < 7 * p.count // 8)
SHARED_KV = When("4 or more query heads share it", lambda p: p.heads_per_kv >= 4)
EXPERTS_4 = When("4 or more experts", lambda p: p.experts >= 4)
EXPERTS_8 = When("8 experts", lambda p: p.experts == 8)
IMATRIX = When("imatrix", lambda p: p.imatrix)
NO_IMATRIX = When("no imatrix", lambda p: not p.imatrix)

# -- the tables ------------------------------------------------------------------------------------------------------------

#: (tensor type, condition); the first condition that holds wins
Steps = tuple[tuple[str, When], ...]
Table = dict[Kind, dict[str, Steps]]


def _one(name: str, when: When = ALWAYS) -> Steps:
    return ((name, when),)


_V: dict[str, Steps] = {
    "Q2_K": (("Q4_K", SHARED_KV), ("Q3_K", ALWAYS)),
    "Q2_K_S": _one("Q4_K", SHARED_KV),
    "Q3_K_M": (("Q5_K", FIRST_2), ("Q4_K", ALWAYS)),
    "Q3_K_L": _one("Q5_K"),
    "Q4_K_S": _one("Q5_K", FIRST_4),
    "Q4_K_M": _one("Q6_K", SPREAD),
    "Q5_K_M": _one("Q6_K", SPREAD),
    "IQ3_XXS": (("Q4_K", SHARED_KV), ("IQ3_XXS", IMATRIX), ("IQ3_S", ALWAYS)),
    "IQ3_XS": _one("Q4_K", SHARED_KV),
    "IQ3_S": _one("Q4_K", SHARED_KV),
    "IQ3_M": _one("Q4_K"),
    "IQ4_NL": _one("Q5_K", SHARED_KV),
    "IQ4_XS": _one("Q5_K", SHARED_KV),
}
_QK: dict[str, Steps] = {"IQ3_XS": _one("IQ3_XXS"), "IQ3_XXS": _one("IQ2_S")}
_UP: dict[str, Steps] = {"IQ3_XS": _one("IQ3_XXS", MIDDLE)}
_DOWN: dict[str, Steps] = {
    "Q4_0": _one("Q4_1", FIRST_8TH & IMATRIX),
    "Q5_0": _one("Q5_1", FIRST_8TH & IMATRIX),
    "Q2_K": _one("Q3_K"),
    "Q2_K_S": _one("Q4_K", FIRST_8TH),
    "Q3_K_M": (("Q5_K", FIRST_16TH), ("Q4_K", ALWAYS)),
    "Q3_K_L": _one("Q5_K"),
    "Q4_K_S": _one("Q5_K", FIRST_8TH),
    "Q4_K_M": _one("Q6_K", SPREAD),
    "Q5_K_M": _one("Q6_K", SPREAD),
    "IQ3_XXS": (("Q4_K", FIRST_8TH & NO_IMATRIX), ("Q3_K", NO_IMATRIX)),
    "IQ3_M": _one("Q4_K", FIRST_8TH | (EXPERTS_8 & SPREAD)),
    "IQ4_NL": _one("Q5_K", FIRST_8TH & NO_IMATRIX),
    "IQ4_XS": _one("Q5_K", FIRST_8TH & NO_IMATRIX),
}
_OUT: dict[str, Steps] = {
    "Q2_K": _one("Q3_K"),
    "Q3_K_M": _one("Q4_K"),
    "Q3_K_L": _one("Q5_K"),
    "IQ3_XXS": _one("IQ3_S"),
    "IQ3_M": _one("Q4_K"),
}
_FALCON_DOWN: dict[str, Steps] = {
    **_DOWN,
    "Q3_K_M": (("Q5_K", FIRST_16TH), ("Q4_K", SPREAD), ("Q3_K", ALWAYS)),
    "Q3_K_L": _one("Q4_K"),
    "Q4_K_S": (),
    "Q4_K_M": (("Q6_K", FIRST_16TH), ("Q5_K", SPREAD), ("Q4_K", ALWAYS)),
}
#: attention is a small part of a model of 8 experts, so its matrices may be large
_8_EXPERT_OUT: dict[str, Steps] = {
    **dict.fromkeys(("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M"), _one("Q5_K", EXPERTS_8)),
    **dict.fromkeys(("IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"), _one("Q5_K", EXPERTS_8)),
}

MIX: Table = {
    **dict.fromkeys(V_LIKE, _V),
    Kind.K: _QK,
    Kind.Q: _QK,
    Kind.OUT: _OUT,
    Kind.UP: _UP,
    Kind.GATE: _UP,
    Kind.DOWN: _DOWN,
}
FALCON_MIX: Table = {**MIX, Kind.DOWN: _FALCON_DOWN, Kind.OUT: {"Q3_K_L": _one("Q4_K")}}
#: experts are 8: value and key matrices are Q8_0 whatever this says
EIGHT_EXPERT_MIX: Table = {**MIX, Kind.OUT: _8_EXPERT_OUT}

#: file types of about 2 bits per weight, and the type of their attn_v and first ffn_down matrices
VERY_LOW = {
    "IQ1_S": "Q2_K",
    "IQ1_M": "Q2_K",
    "IQ2_XXS": "Q2_K",
    "IQ2_XS": "Q2_K",
    "IQ2_S": "IQ3_S",
    "IQ2_M": "IQ3_S",
}
_VERY_LOW_OUT = {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}

_VERY_LOW_V: dict[str, Steps] = {f: (("Q4_K", SHARED_KV | EXPERTS_4), (t, ALWAYS)) for f, t in VERY_LOW.items()}
VERY_LOW_MIX: Table = {
    **dict.fromkeys(V_LIKE, _VERY_LOW_V),
    Kind.K: {f: _one("Q4_K", EXPERTS_8) for f in VERY_LOW},
    Kind.DOWN: {f: _one(t, FIRST_8TH_SEEN) for f, t in VERY_LOW.items()},
    Kind.OUT: {f: (("Q5_K", EXPERTS_8), *(_one(_VERY_LOW_OUT[f]) if f in _VERY_LOW_OUT else ())) for f in VERY_LOW},
}

#: output matrix (or shared embedding): Q6_K, but these stay below
OUTPUT_Q5_K = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS"})
#: token embedding of a model that has its own output matrix
TOKEN_TYPES = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS"), "Q2_K"),
    **dict.fromkeys(("IQ2_S", "IQ2_M", "IQ3_XXS"), "IQ3_S"),
    **dict.fromkeys(("TQ1_0", "TQ2_0", "Q2_0"), "Q4_K"),
}

#: what takes over when the columns are not whole blocks of the type; the last resort is F16
FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}

#: final types that need importance weights (Q2_K too, in a Q2_K_S file)
NEEDS_IMATRIX = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})
#: final types whose quantizer cannot run at all without them
CANNOT_DO_WITHOUT = frozenset({"IQ1_S", "IQ2_XXS", "IQ2_XS"})

#: (architecture, blocks) of the models of about 70B parameters whose few value heads deserve more bits
SIZE_70B = frozenset({("llama", 80), ("qwen2", 80), ("deci", 80), ("olmo", 80), ("jais2", 68)})
