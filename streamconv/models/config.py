"""Reading config.json as the reference converter sees it, without transformers.

The reference loads the file through a transformers configuration class, so absent keys take class defaults and legacy
spellings of the RoPE parameters are folded into one dictionary. The class defaults are facts that each family file states
(transformers 5.23).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import BadInput
from ..sources.checkpoint import Checkpoint
from ..sources.hf_config import LAYERS, TEXT_SECTIONS, VISION, flattened, section, text_sections
from ..sources.naming import shown

#: spellings of the numbers of attention heads and of experts, and of the width of the residual stream
HEADS = "num_attention_heads", "n_head", "n_heads"
KV_HEADS = "num_key_value_heads", "n_kv_heads"
HIDDEN = "hidden_size", "n_embd", "n_embed", "dim", "d_model", "model_dim"
EXPERTS = "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"
#: far more than any model has; what is planned grows with them
_MAX_LAYERS, _MAX_HEAD_DIM = 10_000, 1 << 16
_MAX_REAL = 3.4e38
#: keys of which an explicit null says that there is none of it, whatever the class defaults to
_NULL_MEANS_NONE = (
    "sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "hidden_size_per_layer_input", "q_lora_rank",
)  # fmt: skip
#: parameter of RoPE -> where configurations say it that do not say it among the others
ROPE_OF_ROOT = {
    "rope_theta": ("rope_theta", "rotary_emb_base"),
    "partial_rotary_factor": ("partial_rotary_factor", "rope_pct", "rope_percent", "rotary_pct"),
    "original_max_position_embeddings": ("original_max_position_embeddings",),
}
_ROPE_NUMBERS = (
    *ROPE_OF_ROOT, "factor", "extrapolation_factor", "attention_factor", "attn_factor", "beta_fast", "beta_slow",
    "low_freq_factor", "high_freq_factor",
)  # fmt: skip
#: kinds of scaling that start from the context a model was trained with; where it is not said it is the whole
_FROM_ORIGINAL = ("llama3", "yarn", "longrope")


_FILE = "config.json"
#: what is written of blocks that predict further tokens: all as of other blocks, these with what they share, or nothing
Further = Literal["kept", "only", "left out"]


def stated_keys(raw: Mapping[str, Any]) -> list[str]:
    """The keys of the section of the text model, of the root where there is none."""
    return list(dict.fromkeys(key for part in text_sections(raw) or [raw] for key in part))


#: architectures whose text models are not what their section names: they have more, or mean another
OUTER = ("KimiK3ForConditionalGeneration", "Sarashina2VisionForCausalLM")


def architecture(raw: Mapping[str, Any]) -> str:
    """The Hugging Face architecture name of the text model, "" where config.json says none."""
    found = []
    for where in (
        *(section(raw, name) for name in TEXT_SECTIONS[:2]),
        raw,
    ):  # others hold parts of models of their own kind
        names = where.get("architectures")
        first = names[0] if isinstance(names, list) and names else names
        if isinstance(first, str):
            found.append(first)
    return next((name for name in found if name in OUTER), next(iter(found), ""))


def tower_architectures(raw: Mapping[str, Any]) -> list[str]:
    """The Hugging Face architectures that a projector goes by: that of the vision tower, where it has one, and the outer one."""
    lists = [where.get("architectures") for where in (section(raw, VISION), raw)]
    firsts = [names[0] if isinstance(names, list) and names else names for names in lists]
    return [first for first in firsts if isinstance(first, str)]


class Recorded(dict[str, Any]):
    """A dictionary that knows what it was asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """What is there, or ``default``."""
        self.asked.add(key)
        return super().get(key, default)


@dataclass(frozen=True)
class Config:
    """A normalised configuration.

    Attributes
    ----------
    values : keys of the text model with class defaults filled in
    rope : ``rope_parameters`` of the full-attention layers: rope_type, rope_theta, factor, …
    rope_local : the same for sliding-window layers, {} where the family has one kind
    checkpoint : whose it is: config.json as it stands, and side files
    defaults : of the configuration's class
    further : what is written of blocks that predict further tokens
    """

    values: Mapping[str, Any]
    rope: Mapping[str, Any]
    rope_local: Mapping[str, Any]
    checkpoint: Checkpoint | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    further: Further = "kept"

    @property
    def target(self) -> Checkpoint:
        """The model that this one drafts for; there is one where a family asks (``Family.target``)."""
        assert self.checkpoint is not None
        assert self.checkpoint.target is not None
        return self.checkpoint.target

    @property
    def raw(self) -> Mapping[str, Any]:
        """config.json as it stands, all sections."""
        return self.checkpoint.config if self.checkpoint is not None else self.values

    @property
    def folder(self) -> str:
        """Where it lies, for messages."""
        return str(self.checkpoint.folder) if self.checkpoint is not None else "the checkpoint"

    @property
    def place(self) -> str:
        """What messages call config.json."""
        return str(self.checkpoint.called(self.checkpoint.config_file)) if self.checkpoint is not None else _FILE

    @property
    def _file(self) -> str:
        return self.checkpoint.config_file if self.checkpoint is not None else _FILE

    def raw_value(self, key: str) -> Any:
        """What the text model's section says, or the root."""
        return flattened(self.raw).get(key)

    def side(self, name: str) -> Any:
        """What is in another JSON file of the checkpoint, None where it has none of that name."""
        return self.checkpoint.json(name) if self.checkpoint is not None else None

    def side_list(self, name: str) -> list[Any]:
        """What is in another JSON file of the checkpoint that is a list; empty where it has none of that name."""
        return self.checkpoint.json_list(name) if self.checkpoint is not None else []

    def get(self, *names: str) -> Any:
        """The first of ``names`` that is present and not null, else None."""
        found = [self.values.get(name) for name in names]  # all, so that none counts as unknown
        return next((value for value in found if value is not None), None)

    def integer(self, *names: str, most: int = (1 << 31) - 1) -> int:
        """The first of ``names``, which must be there and a whole number up to ``most`` (BadInput otherwise)."""
        value = self.get(*names)
        if value is None:
            raise BadInput(f"{self._file}: {names[0]!r} is missing")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value < math.inf or value != int(value):
            raise BadInput(f"{self._file}: {names[0]!r} is {shown(repr(value))}, not a whole number")
        if value > most:
            raise BadInput(f"{self._file}: {names[0]!r} is {shown(repr(value))}, more than any model has")
        return int(value)

    def real(self, *names: str) -> float:
        """The first of ``names``, which must be there and a number (BadInput otherwise)."""
        value = self.get(*names)
        if not _is_real(value):
            what = "missing" if value is None else shown(repr(value))
            raise BadInput(f"{self._file}: {names[0]!r} is {what}, not a number that can be used")
        return float(value)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.integer(*LAYERS, most=_MAX_LAYERS)

    @property
    def layer_types(self) -> list[Any]:
        """Kind of each block, [] where it is not stated; BadInput where it is of too few."""
        stated = self.get("layer_types") or []
        if stated and len(stated) < self.n_layers:
            raise BadInput(f"{self.place}: 'layer_types' has {len(stated)} entries for {self.n_layers} layers")
        return list(stated[: self.n_layers])

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.integer(*HIDDEN)

    @property
    def n_heads(self) -> int:
        """Attention heads."""
        return self.integer(*HEADS)

    @property
    def n_kv_heads(self) -> int:
        """Key/value heads; as many as heads where the configuration has no such key."""
        return self.integer(*KV_HEADS) if self.get(*KV_HEADS) else self.n_heads

    @property
    def n_experts(self) -> int:
        """Experts of a block, 0 where the configuration has none."""
        return self.integer(*EXPERTS) if self.get(*EXPERTS) is not None else 0

    @property
    def head_dim(self) -> int:
        """Width of one head, stated or derived."""
        if self.get("head_dim") is not None:
            return self.integer("head_dim", most=_MAX_HEAD_DIM)
        return head_width(self)


class UnlessNull(int):
    """A class default of ``head_dim``, in place of which null stands for an equal share of the width of the residual stream.

    With other defaults that are numbers null is read as it stands, and loaders take that share too.
    """


def head_width(config: Config) -> int:
    """A class default of ``head_dim``: the heads share the width of the residual stream."""
    return config.hidden // max(config.n_heads, 1)


def _is_real(value: Any) -> bool:
    """Whether ``value`` is a number, and one that a 32-bit float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _MAX_REAL


def normalise(
    values: Mapping[str, Any], classes: Mapping[str, Mapping[str, Any]], checkpoint: Checkpoint | None = None
) -> Config:
    """The configuration with the keys ``values``, those of the section that is meant, as transformers reads it.

    Parameters
    ----------
    classes : ``model_type`` -> class defaults, ``rope_parameters`` among them; a default may be a function of what is stated.
        The first are those of a file that names no type; one that names another is read as it stands, as the reference does
    checkpoint : whose they are
    """
    kind = values.get("model_type")
    defaults = classes.get(kind, {}) if isinstance(kind, str) else next(iter(classes.values()), {})
    for names in (HEADS, EXPERTS, LAYERS, HIDDEN):  # what is stated in one spelling has no default in another
        if any(values.get(name) is not None for name in names):
            defaults = {k: v for k, v in defaults.items() if k not in names}
    _refuse_texts(values, defaults, checkpoint)
    # An explicit null counts as absent where the class computes or defaults the value.
    merged = {**defaults, **{k: v for k, v in values.items() if v is not None or k in _NULL_MEANS_NONE}}
    if defaults and (values.get("num_key_value_heads", 0) is None or merged.get("num_key_value_heads") is None):
        merged["num_key_value_heads"] = merged.get("num_attention_heads")
    shared = defaults.get("head_dim")
    if "head_dim" in values and values["head_dim"] is None and not callable(shared):
        merged["head_dim"] = head_width(Config(merged, {}, {})) if isinstance(shared, UnlessNull) else None
    for key, derive in defaults.items():
        if callable(derive) and merged[key] is derive:
            merged[key] = derive(Config(merged, {}, {}))
    rope, local = _rope(
        merged, values, defaults.get("rope_parameters", {}), checkpoint.config_file if checkpoint is not None else _FILE
    )
    return Config(Recorded(merged), rope, local, checkpoint, defaults)


def _refuse_texts(values: Mapping[str, Any], defaults: Mapping[str, Any], checkpoint: Checkpoint | None) -> None:
    """BadInput for a text where only true and false, a list or an object mean something: Python would take any for true."""
    where = f"{checkpoint.folder}/{checkpoint.config_file}" if checkpoint is not None else _FILE
    if not isinstance(values.get("layer_types"), list | None):
        raise BadInput(
            f"{where}: 'layer_types' is {shown(repr(values['layer_types']))}, not a list",
            "Write the kind of every layer.",
        )
    for key, value in values.items():
        is_flag = isinstance(defaults.get(key), bool) or str(value).lower() in ("true", "false")
        if isinstance(value, str) and is_flag:
            raise BadInput(f"{where}: {key!r} is the text {shown(value)}", "Write true or false, without quotes.")
        if key in ("rope_scaling", "rope_parameters") and not isinstance(value, Mapping | None):
            raise BadInput(
                f"{where}: {key!r} is {shown(repr(value))}, not an object", "Write it as {...}, or null for none."
            )


def _rope(
    merged: Mapping[str, Any], values: Mapping[str, Any], defaults: Mapping[str, Any], file: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """RoPE parameters of full and of sliding-window layers, from new or legacy spellings."""
    scaling, stated = dict(section(values, "rope_scaling")), dict(section(values, "rope_parameters"))
    two_kinds = "full_attention" in defaults
    default, default_local = (
        (defaults["full_attention"], defaults["sliding_attention"]) if two_kinds else (defaults, {})
    )
    if any(isinstance(stated.get(kind), Mapping) for kind in ("full_attention", "sliding_attention")):
        full = {**section(stated, "full_attention"), **scaling}
        local = dict(section(stated, "sliding_attention"))
    else:
        full, local = scaling or stated or {k: v for k, v in default.items() if k != "rope_theta"}, {}
    if full.get("rope_type") is None:
        full["rope_type"] = full.get("type") or "default"
    if full["rope_type"] == "mrope":  # plain RoPE, whose sections another key tells
        full["rope_type"] = "default"
    for key, names in ROPE_OF_ROOT.items():
        said = [value for name in names if (value := merged.get(name)) is not None]
        if full.get(key) is None and said:
            full[key] = said[0]
    if full.get("rope_theta") is None:
        full["rope_theta"] = default.get("rope_theta")
    length = merged.get("max_position_embeddings")
    if full["rope_type"] in _FROM_ORIGINAL and full.get("original_max_position_embeddings") is None and length:
        full["original_max_position_embeddings"] = length
    if two_kinds or local:
        local = local or {k: v for k, v in default_local.items() if k != "rope_theta"}
        if local.get("rope_type") is None:
            local["rope_type"] = local.get("type") or "default"
        if local.get("rope_theta") is None:
            theta = merged.get("rope_local_base_freq" if two_kinds else "rope_theta")
            local["rope_theta"] = theta if theta is not None else (default_local or default).get("rope_theta")
    for key, value in (*full.items(), *local.items()):
        if key in _ROPE_NUMBERS and value is not None and not _is_real(value):
            raise BadInput(f"{file}: {key!r} of RoPE is {shown(repr(value))}, not a number that can be used")
        if key == "rope_theta" and value is not None and not (_is_real(value) and value > 0):
            raise BadInput(f"{file}: 'rope_theta' is {shown(repr(value))}, not a number above 0")
    return full, local
