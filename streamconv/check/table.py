"""The table of what a loader asks for, ``loader_tensors.json``; its own first lines say how it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from .expressions import Names, NotStated, evaluate, truth

_FUSED_QKV = "*.attn_{q,k,v}"
_FUSED_EXPERTS = "*.ffn_{gate,up}_exps"
_SUFFIXES = (".bias", ".scale", ".scales", ".lora_a", ".lora_b")


class Row(NamedTuple):
    """One tensor as the table writes it."""

    name: str
    sizes: str
    when: str


@dataclass(frozen=True)
class Wanted:
    """One tensor, or one per layer, that a loader looks for.

    Attributes
    ----------
    name : tensor name, ``*`` for the layer
    sizes : expressions for the dimensions, fastest first; ``any`` is not checked, ``any`` alone is any shape
    condition : expression that must be true for the tensor to be looked for; empty: always
    absent : expression that is true where it may be absent; empty: never
    """

    name: str
    sizes: tuple[str, ...]
    condition: str = ""
    absent: str = ""

    @property
    def per_layer(self) -> bool:
        """There is one in each block."""
        return "*" in self.name

    @property
    def optional(self) -> bool:
        """It may be absent from any file."""
        return self.absent == "1"

    def applies(self, names: Names) -> bool | None:
        """Whether the loader looks for it; None when the file does not say enough."""
        return truth(self.condition or "1", names)

    def required(self, names: Names) -> bool:
        """Whether the loader stops without it, where it looks for it."""
        return truth(self.absent or "0", names) is False

    def shape(self, names: Names) -> tuple[int | None, ...]:
        """The dimensions, None for each that cannot be told."""
        return tuple(_size(size, names) for size in self.sizes)


@dataclass(frozen=True)
class Key:
    """A key that a loader requires: one of ``names`` at least, where ``condition`` is true."""

    names: tuple[str, ...]
    condition: str = ""


#: names of conditions under which layers may be absent from a file of layers for next-token prediction alone
_ALONE = ("mtp_only", "headless", "cut")


@dataclass(frozen=True)
class Architecture:
    """What a loader asks of one architecture.

    Attributes
    ----------
    keys : keys it requires, besides those that it requires of every architecture
    rope : ``key`` where converters write the base, ``default`` where the loader's is meant, ``none`` where nothing is rotated
    usual : keys that converters always write; without one the loader uses a default of its own
    assumes : key -> what the loader takes without it, where that is not "none"
    let : names that depend on the layer at hand, those of this architecture included -> expression
    must : expression that must be true -> how it is said
    alone : the same, of a draft model that is run without the model it helps
    layers : number of layers in which tensors are looked for
    tied : logits always come from the token embeddings
    tensors : what it looks for
    """

    keys: tuple[Key, ...]
    rope: str
    usual: tuple[str, ...]
    assumes: Mapping[str, str]
    let: Mapping[str, str]
    must: Mapping[str, str]
    alone: Mapping[str, str]
    layers: str
    tied: bool
    tensors: tuple[Wanted, ...]

    @property
    def drafts_alone(self) -> bool:
        """The loader takes files that have layers for next-token prediction and no others."""
        return any(name in wanted.absent for wanted in self.tensors for name in _ALONE)


@cache
def architecture(name: str) -> Architecture | None:
    """The table's entry for ``name``, or None."""
    if name not in _document()["architectures"]:
        return None
    entry = _entry(name)
    return Architecture(
        keys=tuple(_key(key) for key in entry["keys"]),
        rope=entry["rope"],
        usual=tuple(entry.get("usual", ())),
        assumes=entry.get("assumes", {}),
        let={**_document()["let"], **entry.get("let", {})},
        must=entry.get("must", {}),
        alone=entry.get("alone", {}),
        layers=entry.get("layers", "n_layer"),
        tied=entry.get("tied", False),
        tensors=tuple(wanted for row in entry["tensors"] for wanted in _rows(row)),
    )


def architectures() -> tuple[str, ...]:
    """All names that the table knows."""
    return tuple(_document()["architectures"])


def keyed_names() -> Mapping[str, str]:
    """Name -> ``key``, ``key = default`` or ``#key`` (the length of an array)."""
    found: dict[str, str] = _document()["names"]
    return found


def derived_names() -> Mapping[str, str]:
    """Name -> expression over other names."""
    found: dict[str, str] = _document()["derived"]
    return found


def pre_tokenizers() -> frozenset[str]:
    """The values of ``tokenizer.ggml.pre`` a loader knows."""
    return frozenset(_document()["pre_tokenizers"])


def _size(expression: str, names: Names) -> int | None:
    if expression == "any":
        return None
    try:
        return evaluate(expression, names)
    except NotStated:
        return None


def _entry(name: str) -> dict[str, Any]:
    """The entry with what it has in common with others filled in, and its tensors as one list."""
    own: dict[str, Any] = _document()["architectures"][name]
    rows = [Row(tensor, sizes, when) for when, some in own.get("tensors", {}).items() for tensor, sizes in some.items()]
    if "like" not in own:
        return {**own, "tensors": rows}
    like = _entry(own["like"])
    replaced = {row.name for row in rows} | set(own.get("without", ()))
    keys = [*own.get("keys", like["keys"]), *own.get("also", ())]
    return {**like, **own, "keys": keys, "tensors": [row for row in like["tensors"] if row.name not in replaced] + rows}


def _key(spec: str) -> Key:
    names, _, condition = spec.partition(" when ")
    return Key(tuple(names.split(" | ")), condition)


def _rows(row: Row) -> Iterator[Wanted]:
    """The tensors behind one entry; names in braces stand apart, or as one tensor where the file has that."""
    condition, _, absent = row.when.partition("? ")
    optional = row.sizes.startswith("? ")
    sizes = tuple(size.strip() for size in row.sizes.removeprefix("? ").split(","))
    wanted = Wanted(_full(row.name), sizes, condition.strip(), "1" if optional else absent)
    expand = {_FUSED_QKV: _qkv, _FUSED_EXPERTS: _experts}.get(row.name)
    yield from expand(wanted) if expand else (wanted,)


def _full(name: str) -> str:
    """``*.x`` -> ``blk.*.x.weight``, ``x:`` -> ``x``, ``x.bias`` as it is."""
    name = name.replace("*.", "blk.*.", 1) if name.startswith("*.") else name
    return name.removesuffix(":") if name.endswith((":", *_SUFFIXES)) else f"{name}.weight"


def _qkv(row: Wanted) -> Iterator[Wanted]:
    """Projections of q, k and v. Biases may be there; the fused weight may have theirs apart."""
    inputs, *parts = row.sizes
    fused, both = "blk.*.attn_qkv", " + ".join(f"({part})" if " if " in part else part for part in parts)
    yield Wanted(f"{fused}.weight", (inputs, both), row.condition, "1")
    yield Wanted(f"{fused}.bias", (both,), _and(row.condition, f"has('{fused}.weight')"), "1")
    for which, size in zip("qkv", parts, strict=True):
        apart = _and(row.condition, f"not has('{fused}.weight')")
        yield Wanted(f"blk.*.attn_{which}.weight", (inputs, size), apart, row.absent)
        yield Wanted(f"blk.*.attn_{which}.bias", (size,), _and(row.condition, f"not has('{fused}.bias')"), "1")


def _experts(row: Wanted) -> Iterator[Wanted]:
    inputs, rows, count = row.sizes
    fused = "blk.*.ffn_gate_up_exps.weight"
    yield Wanted(fused, (inputs, f"2 * ({rows})", count), row.condition, "1")
    for which in ("gate", "up"):
        apart = _and(row.condition, f"not has('{fused}')")
        yield Wanted(f"blk.*.ffn_{which}_exps.weight", row.sizes, apart, row.absent)


def _and(*conditions: str) -> str:
    return " and ".join(f"({condition})" for condition in conditions if condition)


@cache
def _document() -> Any:
    return json.loads(resources.files(__package__).joinpath("loader_tensors.json").read_text(encoding="utf-8"))
