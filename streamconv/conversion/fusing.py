"""Matrices with the same inputs become one where that is asked for: query, key and value, or gate and up of the experts.

Runtimes multiply by one matrix faster than by three. Which of them look for such a tensor is in the table of what loaders ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from ..errors import UsageError
from ..kit import Order, Reshaped, Stacked, join, take
from ..models import Model
from ..rows import Rows
from .options import Options

_PART = re.compile(r"(blk\.\d+)\.(\w+)\.(weight|bias)")


#: block types that checkpoints have too
BLOCKS = ("MXFP4", "NVFP4")


class _Fusion(NamedTuple):
    """What an option puts together.

    Attributes
    ----------
    flag : the option
    parts : stems of the tensors, in their order in the whole
    whole : stem of the tensor that they become
    """

    flag: str
    parts: tuple[str, ...]
    whole: str


#: by the field of the options
_FUSIONS = {
    "fuse_qkv": _Fusion("--fuse-qkv", ("attn_q", "attn_k", "attn_v"), "attn_qkv"),
    "fuse_gate_up_exps": _Fusion("--fuse-gate-up-exps", ("ffn_gate_exps", "ffn_up_exps"), "ffn_gate_up_exps"),
}


def fused(model: Model, options: Options) -> Model:
    """``model`` with the matrices in one that ``options`` ask for, where the last of them was; biases likewise.

    Those that are copied as stored blocks stay apart, as each may have a scale of its own.

    Raises
    ------
    UsageError : no runtime looks for the whole in this architecture, or no block has all the parts
    """
    asked = {*options.types, *(rule.rpartition("=")[2].upper() for rule in options.tensor_types)}
    kept = [kind for kind in BLOCKS if {kind, "auto"} & asked]
    for field, fusion in _FUSIONS.items():
        if getattr(options, field):
            model = _Fusing(model, fusion, kept).result()
    return model


class _Fusing:
    """One fusion in all blocks of a model."""

    def __init__(self, model: Model, fusion: _Fusion, kept: Sequence[str]) -> None:
        self._model, self._fusion, self._kept = model, fusion, kept

    @cached_property
    def _known(self) -> set[str]:
        """The tensors that a loader looks for, with ``*`` for the block."""
        from ..check.table import architecture

        table = architecture(self._model.arch)
        return set() if table is None else {wanted.name for wanted in table.tensors}

    def result(self) -> Model:
        """The model with what was fused."""
        model, (flag, parts, whole) = self._model, self._fusion
        is_known = all(f"blk.*.{stem}.weight" in self._known for stem in (*parts, whole))
        wholes = dict(self._wholes()) if is_known else {}
        if not wholes and any(name.endswith(f".{whole}.weight") for name in model.tensors):
            return replace(model, warnings=[*model.warnings, f"{flag} has no effect: {whole} is one tensor anyway"])
        if not wholes:
            why = (
                f"no block has {', '.join(parts)} as plain matrices"
                if is_known
                else f"no runtime looks for {whole} there"
            )
            raise UsageError(
                f"{flag} has no effect on this model of architecture {model.arch!r}: {why}", "Leave it out."
            )
        gone = {name for _, names, _ in wholes.values() for name in names}
        tensors, made_of, forced = {}, dict(model.made_of), dict(model.forced_types)
        for name, rows in model.tensors.items():
            if name not in gone:
                tensors[name] = rows
            elif name in wholes:
                target, names, made = wholes[name]
                tensors[target] = made
                made_of[target] = " and ".join(made_of.pop(part, part) for part in names)
                if name in forced:
                    forced[target] = forced[name]
        first = f".{parts[0]}.weight"
        apart = [
            name for name in tensors if name.endswith(first) and self._parts(name.removesuffix(first), "weight")[1:]
        ]
        told = [f"{flag}: {len(apart)} blocks stay as they are, such as {apart[0]}"] if apart else []
        return replace(
            model, tensors=tensors, made_of=made_of, forced_types=forced, warnings=[*model.warnings, *told]
        )  # fmt: skip

    def _wholes(self) -> Iterator[tuple[str, tuple[str, list[str], Rows]]]:
        """The last part of a whole -> its name, those of the parts, its rows."""
        order = {name: number for number, name in enumerate(self._model.tensors)}
        for block in dict.fromkeys(m[1] for name in order if (m := _PART.fullmatch(name))):
            there = {kind: self._parts(block, kind) for kind in ("weight", "bias")}
            if self._fits(there):
                for kind, names in there.items():
                    if names:
                        made = self._made([self._model.tensors[name] for name in names])
                        yield max(names, key=order.__getitem__), (f"{block}.{self._fusion.whole}.{kind}", names, made)

    def _parts(self, block: str, kind: str) -> list[str]:
        names = (f"{block}.{stem}.{kind}" for stem in self._fusion.parts)
        return [name for name in names if name in self._model.tensors]

    def _fits(self, there: dict[str, list[str]]) -> bool:
        """Whether all parts are there, with all biases or none, as matrices that one can hold."""
        model, (_, parts, whole) = self._model, self._fusion
        weights, biases = there["weight"], there["bias"]
        if len(weights) < len(parts) or (biases and len(biases) < len(parts)):
            return False
        rows = [model.tensors[name] for name in weights]
        types = {model.forced_types.get(name) for name in weights}
        shapes = {each.shape if len(each.shape) > 2 else each.shape[1:] for each in rows}
        copied = {*self._kept, *(name for name in types if name in BLOCKS)}
        return (
            (not biases or f"blk.*.{whole}.bias" in self._known)
            and len(shapes) == len(types) == 1
            and not any(each.native(kind, 0, 0) is not None for each in rows for kind in copied)
        )

    @staticmethod
    def _made(parts: Sequence[Rows]) -> Rows:
        """The parts one behind the other; those of every expert, where there are experts."""
        if len(parts[0].shape) < 3:
            return join(parts)
        experts, n_rows, n_cols = parts[0].shape
        stacked = Stacked(parts, (len(parts) * experts, n_rows, n_cols))
        order = Order((experts, len(parts)), (1, experts))
        return Reshaped(take(stacked, order), (experts, len(parts) * n_rows, n_cols))
