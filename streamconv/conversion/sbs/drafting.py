"""An output as it is drafted: the pieces of every tensor, the entries of the table of contents, and what the file begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...kit import Reshaped, WithLargest
from ...models.gemma_cpp.model_config import ModelConfig
from ...models.gemma_cpp.toc import TocEntry
from ...quant.base import Codec
from ...quant.sbs.container import TOC
from ...quant.sbs.tensor import codec_of, tensor_type
from ...quant.types import TYPES, TensorType
from ...rows import Rows
from ...targets import sbs
from ..target import Chosen, Draft
from .kinds import Decided, weight_type
from .toc_rows import TocRows


@dataclass(frozen=True)
class Head:
    """What an output holds beside its tensors.

    Attributes
    ----------
    toc : the first entries of the table of contents
    toc_bytes : length of all
    blobs : key of every tensor -> bytes
    pieces : where the tensors and the other entries lie
    """

    config: bytes
    tokenizer: bytes
    toc: bytes
    toc_bytes: int
    blobs: Mapping[str, int]
    pieces: Sequence[sbs.Piece]


def drafted(
    name: str, config: ModelConfig, tokenizer: bytes, kinds: Sequence[Decided], rows: Mapping[str, Rows],
    looked: Mapping[str, WithLargest],
) -> Draft:  # fmt: skip
    """What an output of type ``name`` holds: every tensor followed by its entry where that has a scale."""
    scaled = [each for each in kinds if each.type.scaled]
    ordered = [*(each for each in kinds if not each.type.scaled), *scaled]
    fixed = b"".join(_entry(each).pack() for each in ordered[: len(ordered) - len(scaled)])
    chosen, pieces, at = list[Chosen](), list[sbs.Piece](), len(fixed)
    for each in kinds:
        key, largest = each.entry.key, looked[each.entry.key] if each.type.scaled else None
        for tensor, offset in _pieces(each, largest or rows[key], largest):
            pieces.append(sbs.Piece(len(chosen), key, offset))
            chosen.append(tensor)
        if largest is not None:
            entry = TocRows(_entry(each), each.type.name, largest)
            pieces.append(sbs.Piece(len(chosen), TOC, at))
            chosen.append(Chosen(f"{key} (entry)", entry, TYPES["I8"], "", is_listed=False))
            at += entry.shape[1]
    config = replace(config, weight=weight_type([each.type for each in ordered]).id)
    blobs = {each.entry.key: each.type.n_bytes(each.entry.shape[0] * each.entry.shape[1]) for each in kinds}
    head = Head(config.pack(), tokenizer, fixed, at, blobs, pieces)
    return Draft(name, config.display_name, chosen, head)


def _entry(each: Decided) -> TocEntry:
    """The entry of a tensor in the table of contents, with a scale of 1."""
    rows, cols = each.entry.shape
    n_bytes = each.type.n_bytes(rows * cols)
    return TocEntry(
        each.entry.key,
        each.type.id,
        each.type.element_bytes,
        n_bytes // each.type.element_bytes,
        rows,
        cols,
        stride=cols,
    )


def _pieces(each: Decided, rows: Rows, largest: WithLargest | None) -> list[tuple[Chosen, int]]:
    """The tensors that the blob of one is made as, each with its offset: rows of whole groups, and what is behind the last."""
    kind, key, (n_rows, n_cols) = each.type, each.entry.key, each.entry.shape
    whole, rest = divmod(n_rows * n_cols, kind.group)
    parts = [rows]
    if n_cols % kind.group:
        size = whole * kind.group
        body = [Reshaped(rows, (whole, kind.group), 0)] if whole else []
        parts = [*body, *([Reshaped(rows, (1, rest), size)] if rest else [])]
    found, at = list[tuple[Chosen, int]](), 0
    for part in parts:
        type_ = tensor_type(kind, part.shape[-1])

        def codec(type_: TensorType = type_) -> Codec:
            return codec_of(kind, type_, None if largest is None else lambda: largest.largest)

        own = codec if kind.module != "floats" else None
        name = key if part is parts[0] else f"{key} (the last {rest} values)"
        found.append((Chosen(name, part, type_, each.reason, codec=own), at))
        at += whole * kind.n_bytes(kind.group)
    return found
