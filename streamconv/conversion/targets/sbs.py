"""A weight file of gemma.cpp: Gemma 2, Gemma 3 and PaliGemma 1 and 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import BadInput, UsageError
from ...flags import Flag
from ...kit import Reshaped, WithLargest
from ...models.gemma_cpp.from_gguf import as_checkpoint
from ...models.gemma_cpp.from_hf import described
from ...models.gemma_cpp.model_config import ModelConfig
from ...models.gemma_cpp.rows import file_tensors
from ...models.gemma_cpp.toc import TocEntry
from ...quant.base import Codec
from ...quant.sbs.container import NO_TOKENIZER, TOC
from ...quant.sbs.tensor import codec_of, tensor_type
from ...quant.sbs.types import SBS_TYPES
from ...quant.types import TYPES, TensorType
from ...rows import Rows
from ...sources.checkpoint import Checkpoint
from ...sources.sentencepiece import read_pieces
from ...targets import sbs
from ...targets.layout import FileLayout
from ..options import Options
from ..provenance import job_of_sbs
from ..sbs.kinds import Decided, decided, idle_rules, notes, weight_type
from ..sbs.toc_rows import TocRows
from ..target import Chosen, Draft, Target

_LAYOUT = Flag(
    "--sbs-layout", "fused matrices as gemma.cpp's exporter has them, or (default) such as are used as they are stored",
    field="sbs_layout", choices=("exporter", "split"), default="split", group="gemma.cpp",
)  # fmt: skip
_MODEL = Flag(
    "--sbs-model", "which of gemma.cpp's models it is loaded as, such as gemma2-2b-it (default: by its sizes)", "MODEL",
    "sbs_model", group="gemma.cpp",
)  # fmt: skip
_LENGTH = Flag(
    "--max-seq-len", "tokens of a context (default: as gemma.cpp has it for the model)", "N", "max_seq_len", "positive",
    group="gemma.cpp",
)  # fmt: skip
#: the type that gemma.cpp is made for
_USUAL = "SFP"
_INTEGERS = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL")


@dataclass(frozen=True)
class _Head:
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


def choose(checkpoint: Checkpoint, options: Options) -> list[Draft]:
    """The model in ``checkpoint`` once for every type of ``options.types``.

    Raises
    ------
    UsageError, BadInput : gemma.cpp does not run such a model, or an option does not fit it
    """
    _refuse_source(checkpoint)
    if checkpoint.metadata is not None:
        checkpoint = as_checkpoint(checkpoint)
    layout = str(options.value(_LAYOUT))
    found = described(checkpoint, options.value(_MODEL), options.value(_LENGTH))
    tensors, left_out = file_tensors(found.config, layout, found.modules)
    integer = next((key for key, (_, rows) in tensors.items() if rows.dtype in _INTEGERS), None)
    if integer is not None:
        raise BadInput(f"{checkpoint.path}: the tensor behind {integer!r} holds whole numbers, no weights")
    tokenizer, said = _tokenizer(checkpoint)
    entries = [entry for entry, _ in tensors.values()]
    warnings = [*checkpoint.warnings, *found.notes, *said, *idle_rules(entries, options.tensor_types)]
    looked = {key: WithLargest(rows, key) for key, (_, rows) in tensors.items()}
    drafts = []
    for name in options.types:
        kinds = decided(entries, _USUAL if name == "auto" else name, options.tensor_types)
        rows = {each.entry.key: tensors[each.entry.key][1] for each in kinds}
        draft = _draft(name, found.config, tokenizer, kinds, rows, looked)
        drafts.append(replace(draft, left_out=left_out, warnings=[*warnings, *notes(kinds)]))
    return drafts


def _refuse_source(checkpoint: Checkpoint) -> None:
    if checkpoint.base is not None:
        raise UsageError(
            f"{checkpoint.path} is a LoRA adapter, gemma.cpp loads whole models only",
            "Convert the model that it was trained on, with --lora for the adapter.",
        )
    if checkpoint.adapters:
        raise UsageError(
            f"{checkpoint.adapters[0][0].path} is a GGUF adapter, which changes GGUF files only",
            "Give it as PEFT saves it.",
        )


def _tokenizer(checkpoint: Checkpoint) -> tuple[bytes, list[str]]:
    """The tokenizer of a file, and what to tell of it."""
    name = "tokenizer.model"
    data = checkpoint.side_bytes(name)
    if data is None:
        return NO_TOKENIZER, [
            f"{checkpoint.folder} has no {name}, which is all that gemma.cpp reads texts with: the output has no tokenizer"
        ]
    read_pieces(data, checkpoint.called(name))
    return data, []


def _draft(
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
    head = _Head(config.pack(), tokenizer, fixed, at, blobs, pieces)
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


def lay_out(path: Path, draft: Draft, options: Options, job: str) -> Sequence[FileLayout]:
    """The file of an output."""
    head = draft.head
    return [
        sbs.layout(path, head.config, head.tokenizer, head.toc, head.toc_bytes, head.blobs, head.pieces, job)
    ]  # fmt: skip


TARGET = Target(
    name="sbs",
    title="a weight file of gemma.cpp",
    choose=choose,
    lay_out=lay_out,
    job_of=job_of_sbs,
    options=("tensor_types", "lora"),
    flags=(_LAYOUT, _MODEL, _LENGTH),
    types=("auto", *SBS_TYPES),
    as_saved=True,
)
