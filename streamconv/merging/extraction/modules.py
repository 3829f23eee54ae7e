"""Which tensors of a model become factors, which are saved whole, and what adapter_config.json says about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import BadInput, UsageError
from ...rows import Rows, matrix_shape
from ...sources.checkpoint import Checkpoint
from ...sources.hf_config import is_tied, text_section
from ..inputs import is_whole
from ..layout import Place, lay_out

#: layers of GPT-2, which are stored as [n_in, n_out]
_CONV1D = re.compile(r"(^|\.)(c_attn|c_proj|c_fc|q_attn)$")
_KIND = re.compile(r"^(?P<module>.+)\.(?P<kind>weight|bias)$")


@dataclass(frozen=True)
class ModuleChoice:
    """What the user asks for.

    Attributes
    ----------
    rank : most factors a matrix gets
    embed_lora : embeddings become factors, too; else they are saved whole
    save : names of modules that are saved whole, as the end of their paths
    include, exclude : regular expressions that are searched in the paths of modules; None: all, none
    skip_undecomposable : leave out what cannot be expressed, instead of refusing
    """

    rank: int
    embed_lora: bool = False
    save: tuple[str, ...] = ()
    include: str | None = None
    exclude: str | None = None
    skip_undecomposable: bool = False


@dataclass(frozen=True)
class Pair:
    """A tensor of both models.

    Attributes
    ----------
    name : in the base
    place : where it stands
    base, tuned : the rows
    """

    name: str
    place: Place
    base: Rows
    tuned: Rows

    @property
    def module(self) -> str:
        """Path of the module it belongs to; the tensor's name where that does not tell."""
        found = _KIND.match(self.name)
        return found["module"] if found else self.name

    @property
    def is_weight(self) -> bool:
        """Whether it is called ``weight``."""
        return self.name.endswith(".weight")

    @property
    def is_embedding(self) -> bool:
        """Whether its rows are looked up."""
        return self.place.is_embedding and self.place.is_vocabulary

    @property
    def same_shape(self) -> bool:
        """Whether a difference can be taken."""
        return self.base.shape == self.tuned.shape


@dataclass(frozen=True)
class Selection:
    """The tensors of an adapter.

    Attributes
    ----------
    decomposed : become factors
    saved : are taken as they are
    biases : likewise, being biases of layers
    conv1d : paths of layers that are stored as [n_in, n_out]
    modules : paths of all modules of the model
    tied : head and embedding are one tensor of both models
    """

    decomposed: Sequence[Pair]
    saved: Sequence[Pair]
    biases: Sequence[Pair]
    conv1d: frozenset[str]
    modules: tuple[str, ...]
    tied: bool


def pairs_of(base: Checkpoint, tuned: Checkpoint) -> list[Pair]:
    """All tensors of two models of the same structure, in the order of the base.

    A head that only one of them stores is the embedding of the other.

    Raises
    ------
    BadInput : one has a tensor that the other lacks
    """
    ours, theirs = lay_out(base.tensors, base.config), lay_out(tuned.tensors, tuned.config)
    found = []
    for place in dict.fromkeys((*ours.names, *theirs.names)):
        name, other = ours.names.get(place), theirs.names.get(place)
        if is_whole((base.tensors[name] if name else tuned.tensors[other or ""]).dtype):
            continue
        rows = []
        for checkpoint, layout, own in ((base, ours, name), (tuned, theirs, other)):
            at = own or (layout.embedding if place.is_head and place.is_vocabulary else None)
            if at is None:
                there = tuned if checkpoint is base else base
                raise BadInput(
                    f"{checkpoint.path} has no tensor for {name or other!r}, which {there.path} has",
                    "Give a model and the one it was tuned from.",
                )
            rows.append(checkpoint.tensors[at])
        found.append(Pair(name or str(other), place, *rows))
    return found


def select(base: Checkpoint, pairs: Sequence[Pair], choice: ModuleChoice) -> Selection:
    """Sort the tensors out.

    Raises
    ------
    BadInput : a tensor that differs cannot be expressed by an adapter
    UsageError : a regular expression is invalid, or nothing is left
    """
    wanted = [pair for pair in pairs if _wanted(pair.module, choice)]
    decomposed, saved, biases = [], [], []
    # a head of its own over a tied embedding: factors of one would be merged into the other
    untied = any(pair.place.is_head and pair.name not in base.tensors for pair in pairs)
    for pair in wanted:
        if not pair.is_weight:
            continue
        if _is_named(pair.module, choice.save) or (untied and (pair.place.is_head or pair.is_embedding)):
            saved.append(pair)
        elif len(pair.base.shape) == 1 or not pair.same_shape or (pair.is_embedding and not choice.embed_lora):
            if pair.place.is_vocabulary or (len(pair.base.shape) == 1 and pair.same_shape):
                saved.append(pair)
            else:
                _refuse(pair, choice)
        elif len(pair.base.shape) == 2:
            decomposed.append(pair)
        else:
            _refuse(pair, choice)
    whole = {pair.module for pair in saved}
    for pair in wanted:
        if pair.is_weight:
            continue
        if pair.module in whole:
            saved.append(pair)
        elif pair.name.endswith(".bias") and pair.same_shape:
            biases.append(pair)
        else:
            _refuse(pair, choice)
    if not decomposed and not saved:
        raise UsageError("nothing is left to extract", "See --include-regex, --exclude-regex and --save-module.")
    is_gpt2 = text_section(base.config).get("model_type") == "gpt2"
    conv1d = frozenset(
        p.module for p in decomposed if is_gpt2 and p.place.layer is not None and _CONV1D.search(p.module)
    )
    tied = is_tied(base.config) and not any(pair.place.is_head for pair in pairs)
    return Selection(decomposed, saved, biases, conv1d, tuple(dict.fromkeys(pair.module for pair in pairs)), tied)


def _refuse(pair: Pair, choice: ModuleChoice) -> None:
    """No adapter can express this tensor."""
    if not choice.skip_undecomposable:
        shapes = list(pair.base.shape), list(pair.tuned.shape)
        raise BadInput(
            f"tensor {pair.name!r} of shape {shapes[0]}{'' if pair.same_shape else f' and {shapes[1]}'} "
            "cannot become part of an adapter",
            "--skip-undecomposable leaves such tensors as the base has them; --exclude-regex leaves out some.",
        )


def _wanted(module: str, choice: ModuleChoice) -> bool:
    try:
        if choice.include is not None and not re.search(choice.include, module):
            return False
        return choice.exclude is None or not re.search(choice.exclude, module)
    except re.error as e:
        raise UsageError(f"--include-regex or --exclude-regex is not a valid regular expression: {e}") from None


def _is_named(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def describe(selection: Selection, choice: ModuleChoice, base_name: str) -> dict[str, Any]:
    """adapter_config.json. The scale of every layer is 1, for its alpha is its rank."""
    ranks = {pair.module: min(choice.rank, *matrix_shape(pair.base.shape)) for pair in selection.decomposed}
    rank = max(ranks.values(), default=choice.rank)
    others = {module: r for module, r in ranks.items() if r != rank}
    pattern: dict[str, int] = {}
    for r in sorted(set(others.values())):
        keys = _short([m for m, found in others.items() if found == r], selection.modules)
        pattern |= {key.replace(".", r"\."): r for key in keys}
    saved = [pair.module for pair in selection.saved]
    return {
        "base_model_name_or_path": base_name,
        "bias": "all" if selection.biases else "none",
        "ensure_weight_tying": selection.tied and any(pair.is_embedding for pair in selection.saved),
        "fan_in_fan_out": bool(selection.conv1d),
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": _short(saved, selection.modules) or None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": pattern,
        "alpha_pattern": dict(pattern),
        "target_modules": _short(list(ranks), selection.modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def _short(chosen: Sequence[str], modules: Sequence[str]) -> list[str]:
    """Names for modules: the last part of the path where it means no other module, else the path."""
    wanted, names = set(chosen), []
    for module in chosen:
        last = module.rsplit(".", 1)[-1]
        means = [other for other in modules if other.endswith(last)]
        names.append(last if wanted.issuperset(means) and not last.isdigit() else module)
    return list(dict.fromkeys(names))
