"""A weight file of gemma.cpp: Gemma 2, Gemma 3 and PaliGemma 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import BadInput, UsageError
from ...flags import Flag
from ...kit import WithLargest
from ...models.gemma_cpp.from_gguf import as_checkpoint
from ...models.gemma_cpp.from_hf import described
from ...models.gemma_cpp.rows import file_tensors
from ...quant.sbs.container import NO_TOKENIZER
from ...quant.sbs.types import SBS_TYPES
from ...sources.checkpoint import Checkpoint
from ...sources.sentencepiece import read_pieces
from ...targets import sbs
from ...targets.layout import FileLayout
from ..options import Options
from ..provenance import job_of_sbs
from ..sbs.drafting import drafted
from ..sbs.kinds import decided, idle_rules, notes
from ..target import Draft, Target

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
    for name in (_USUAL if name == "auto" else name for name in options.types):
        kinds = decided(entries, name, options.tensor_types)
        rows = {each.entry.key: tensors[each.entry.key][1] for each in kinds}
        draft = drafted(name, found.config, tokenizer, kinds, rows, looked)
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
