"""The block of DeepSeek V4 that predicts a further token, which is written alone: with the others runtimes predict one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import BadInput
from ...kit import Reshaped, interleaved, join, take
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..rules import Rule, rename
from ..tokenizers.brought_along import template_where_none

_LAYER = "layers.{bid}"
_FURTHER = re.compile(r"mtp\.(\d+)\.")
#: what blocks that predict further tokens have in a DSpark draft, which drafts several at once
_DSPARK = ("main_proj.", "main_norm.", "markov_head.", "confidence_head.")
#: name in a block that predicts further tokens -> what it is called here
_NEXTN = {
    **{f"{part}.weight": f"nextn.{part}.weight" for part in ("e_proj", "h_proj", "enorm", "hnorm")},
    "norm.weight": "nextn.shared_head_norm.weight",
}  # fmt: skip
#: name in the checkpoint -> GGUF name, both without suffix
NEXTN_NAMES = {f"{_LAYER}.nextn.{part}": f"blk.{{bid}}.nextn.{part}" for part in ("enorm", "hnorm", "shared_head_norm")}


def further(c: Config) -> range:
    """Blocks that predict further tokens, as many as config.json counts, where the checkpoint has them."""
    stated = c.integer("num_nextn_predict_layers") if c.get("num_nextn_predict_layers") else 0
    names = c.checkpoint.tensors if c.checkpoint is not None else ()
    there = sum(any(name.startswith(f"mtp.{n}.") for name in names) for n in range(stated))
    return range(c.n_layers, c.n_layers + there)


def placed(name: str, c: Config) -> str:
    """``name`` with such blocks behind the others, where they are written (BadInput: they are a DSpark draft)."""
    block = _FURTHER.match(name)
    if block is None or c.further != "only":
        return name
    inner = name[block.end() :]
    if inner.startswith(_DSPARK):
        raise BadInput(
            f"{c.folder}: tensor {name!r} is of a DSpark draft, which --mtp does not write",
            "Use --dspark; without both the model itself is converted.",
        )
    return f"layers.{c.n_layers + int(block[1])}.{_NEXTN.get(inner, inner)}"


def counts(m: Metadata, a: str, c: Config) -> None:
    """All blocks, and which of them predict further tokens."""
    if c.further == "only":
        m.u32(f"{a}.block_count", c.n_layers + len(further(c)))
        m.u32(f"{a}.nextn_predict_layers", len(further(c)))


def template(m: Metadata, _a: str, c: Config) -> None:
    """The chat template of models without one, which is another in the release of the 31st of July."""
    called = (c.checkpoint.name or c.checkpoint.folder.resolve().name) if c.checkpoint is not None else ""
    template_where_none(m, "deepseek-v4-0731" if "0731" in called else "deepseek-v4")


def side_by_side(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Projections of an embedding and of what a block gives, each row of one before that of the other."""
    n_rows, n_cols = rows[0].shape
    return [Reshaped(take(join(rows), interleaved(2 * n_rows, 1)), (n_rows, 2 * n_cols))]


NEXTN_RULES = (
    Rule(
        ("blk.{bid}.nextn.eh_proj.weight",),
        tuple(f"{_LAYER}.nextn.{part}_proj.weight" for part in "eh"),
        side_by_side,
        first=True,
    ),
    *(rename(f"{_LAYER}.hc_head_{part}", f"output_hc_{part}.weight") for part in ("fn", "base", "scale")),
)
