"""What an adapter folder of PEFT says: its configuration, and the meaning of its tensors by their names.

    base_model.model.<module>.lora_A.weight, .lora_B.weight, .lora_B.bias      a linear layer's low-rank change
    base_model.model.<module>.lora_embedding_A, .lora_embedding_B              an embedding's
    base_model.model.<module>.lora_magnitude_vector                            lengths of DoRA
    base_model.model.<module>.base_layer.<parameter>                           what the change was trained on
    base_model.model.<module>.token_adapter.trainable_tokens_delta             rows of an embedding that were trained
    base_model.model.<module>.<parameter>                                      a tensor to take instead of the base's

Older files have the adapter's name (``default``) after ``lora_A`` or ``modules_to_save``. Source: PEFT's documentation of its
checkpoint format; read files, no code.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import isfinite, sqrt
from typing import Any

from ..errors import BadInput
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from ..sources.naming import shown
from ..sources.patterns import NotReadable, Patterns
from .module_patterns import ModulePatterns

CONFIG = "adapter_config.json"
#: the setting that names the tokens behind which an adapter acts
INVOCATION = "alora_invocation_tokens"
_PREFIX = re.compile(r"^base_model\.model\.")
_PART = re.compile(
    r"^(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?:\.(?P<kind>weight|bias))?$"
)
_TOKENS = re.compile(r"^(?P<module>.+)\.token_adapter\.trainable_tokens_delta(?:\.(?P<adapter>[^.]+))?$")
_SAVED = re.compile(r"\.modules_to_save\.(?P<adapter>[^.]+)(?=\.)")
#: names of tensors that other kinds of adapters have
_FOREIGN = re.compile(r"\.(lora_E|lora_mobius|hada_\w+|lokr_\w+|ia3_l|vera_\w+|oft_\w+|boft_\w+|lora_indices)(\.|$)")
#: settings that change what the adapter computes in ways that cannot be merged, or that are not supported here
_REFUSED = {
    "layer_replication": "repeats layers of the base",
    "target_parameters": "changes bare parameters, not layers",
    INVOCATION: "acts only behind certain tokens, so it cannot become part of the weights",
    "use_qalora": "is a QALoRA adapter",
    "use_bdlora": "is a block-diagonal adapter",
    "arrow_config": "chooses among several adapters while it runs",
    "monteclora_config": "is a Monte Carlo adapter",
    "kasa_config": "is a KaSA adapter",
    "velora_config": "is a VeLoRA adapter",
}
#: ways of initialization that also change the base
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass
class Change:
    """What the adapter does to one module.

    Attributes
    ----------
    module : its path in the model
    parts : ``lora_A`` … -> (tensor name, rows)
    bias : ``lora_B.bias``
    tokens : rows that take the place of rows of the embedding
    """

    module: str
    parts: dict[str, tuple[str, Rows]] = field(default_factory=dict)
    bias: tuple[str, Rows] | None = None
    tokens: tuple[str, Rows] | None = None


@dataclass(frozen=True)
class Adapter:
    """An adapter, sorted out.

    Attributes
    ----------
    where : for messages
    changes : module -> change
    saved : name in the model -> (tensor name, rows) of tensors to be taken as they are
    """

    where: str
    config: Mapping[str, Any]
    changes: Mapping[str, Change]
    saved: Mapping[str, tuple[str, Rows]]
    warnings: list[str]
    _engine: Patterns = field(default_factory=Patterns, compare=False)
    _patterns: dict[str, ModulePatterns] = field(default_factory=dict, compare=False)

    @property
    def fan_in_fan_out(self) -> bool:
        """Whether square matrices are stored as [n_in, n_out]."""
        return bool(self.config.get("fan_in_fan_out", False))

    @property
    def keeps_tying(self) -> bool:
        """Whether embedding and head were trained as one."""
        return bool(self.config.get("ensure_weight_tying", False))

    def scale(self, module: str, rank: int) -> float:
        """``alpha / rank``, or ``alpha / √rank`` of rank-stabilized adapters.

        Raises
        ------
        BadInput : the configuration gives the module another rank than its tensors have
        """
        if rank < 1:
            raise BadInput(f"{self.where}: lora_A of {module!r} has no rows")
        stated = self._pattern("rank_pattern", module, self._number("r", rank))
        if stated != rank:
            raise BadInput(
                f"{self.where}: lora_A of {module!r} has rank {rank}, {CONFIG} says {stated:g}",
                "Configuration and weights are not of the same adapter.",
            )
        alpha = self._pattern("alpha_pattern", module, self._number("lora_alpha", 8))
        return alpha / (sqrt(rank) if self.config.get("use_rslora") else rank)

    def token_indices(self, module: str) -> list[int]:
        """The rows of an embedding that were trained one by one.

        Raises
        ------
        BadInput : the configuration does not list them
        """
        found = self.config.get("trainable_token_indices")
        if isinstance(found, Mapping):
            keys = [key for key in found if module == key or module.endswith(f".{key}")]
            found = found[keys[0]] if keys else None
        if not isinstance(found, list) or not all(type(index) is int and index >= 0 for index in found):
            raise BadInput(f"{self.where}: {CONFIG} does not say which tokens of {module!r} were trained")
        return found

    def _number(self, key: str, default: float) -> float:
        return self._checked(key, f"is {shown(repr(self.config.get(key)))}", self.config.get(key, default))

    def _checked(self, key: str, says: str, value: Any) -> float:
        """``value``, which the configuration gives in the way that ``says`` tells."""
        try:
            if not isinstance(value, bool) and isinstance(value, int | float) and isfinite(value):
                return value
        except OverflowError:  # of a whole number
            pass
        raise BadInput(f"{self.where}: {key} in {CONFIG} {says}, not a number that can be used")

    def _pattern(self, key: str, module: str, default: float) -> float:
        """The first entry of the pattern ``key`` that matches the end of ``module`` from a dot on."""
        entries = self.config.get(key) or {}
        if not isinstance(entries, Mapping):
            raise BadInput(f"{self.where}: {key} in {CONFIG} is not an object")
        if key not in self._patterns:
            self._patterns[key] = ModulePatterns(entries, self.changes, self._engine)
        try:
            text = self._patterns[key].first(module)
        except NotReadable as e:
            raise BadInput(f"{self.where}: {key} in {CONFIG}: {e}") from None
        if text is None:
            return default
        return self._checked(key, f"gives {shown(text)} {shown(repr(entries[text]))}", entries[text])


def read_adapter(checkpoint: Checkpoint, is_merged: bool = True) -> Adapter:
    """Sort out the tensors of an opened adapter folder, whose ``config`` is adapter_config.json.

    Parameters
    ----------
    is_merged : it is to become part of the weights, which one that acts behind certain tokens only cannot

    Raises
    ------
    BadInput : it is not a LoRA adapter, or of a kind that cannot be merged; names the tensor or the setting
    """
    where, config = str(checkpoint.path), checkpoint.config
    warnings: list[str] = []
    _check_config(where, config, warnings, () if is_merged else (INVOCATION,))
    changes: dict[str, Change] = {}
    saved: dict[str, tuple[str, Rows]] = {}
    adapters: set[str] = set()
    for name, rows in checkpoint.tensors.items():
        if _FOREIGN.search(name):
            raise BadInput(f"{where}: tensor {name!r} belongs to no LoRA adapter", "Only LoRA adapters can be merged.")
        plain = _PREFIX.sub("", name)
        found = _PART.match(plain) or _TOKENS.match(plain)
        if found is None:
            kept = _SAVED.search(plain)
            adapters.update([kept["adapter"]] if kept else [])
            target = _SAVED.sub("", plain).replace(".base_layer.", ".")
            if ".original_module." not in target:
                saved[target] = (name, rows)
            continue
        adapters.update([found["adapter"]] if found["adapter"] else [])
        change = changes.setdefault(found["module"], Change(found["module"]))
        if found.re is _TOKENS:
            change.tokens = (name, rows)
        elif found["kind"] == "bias":
            if found["part"] != "lora_B":
                raise BadInput(f"{where}: tensor {name!r} is the bias of {found['part']}, which has none")
            change.bias = (name, rows)
        else:
            change.parts[found["part"]] = (name, rows)
    if len(adapters) > 1:
        raise BadInput(
            f"{where} holds several adapters: {', '.join(sorted(adapters))}", "Save each one alone and name one."
        )
    if not changes and not saved:
        raise BadInput(f"{where} holds no tensors")
    return Adapter(where, config, changes, saved, warnings)


def _check_config(where: str, config: Mapping[str, Any], warnings: list[str], allowed: Collection[str]) -> None:
    """Refuse what is no LoRA, and settings that change what the tensors mean."""
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise BadInput(
            f"{where} is a {kind} adapter; only LORA can be merged",
            "Merge it with PEFT (merge_and_unload) and give the resulting model.",
        )
    for key, what in _REFUSED.items():
        if key not in allowed and config.get(key) not in (None, False, [], {}):
            raise BadInput(
                f"{where} {what} ({key} in {CONFIG})",
                "Merge it with PEFT (merge_and_unload), if that can, and give the resulting model.",
            )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_MOVES_BASE):
        warnings.append(
            f"{where} was initialized by {start}, which changes the base too: "
            "it fits the base that was saved with it, or must have been converted to a plain LoRA"
        )
