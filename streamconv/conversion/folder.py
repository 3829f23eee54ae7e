"""Plans a Hugging Face folder: the checkpoint's own tensors and files, decoded and in the precision asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import dequant
from ..errors import BadInput, UsageError
from ..quant.encode import FLOATS, EncodedRows, Encoding
from ..quant.types import TYPES, TensorType
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from ..targets import safetensors
from ..targets.layout import FileLayout, TensorInfo
from .options import Options
from .planning import make_plan
from .prepared import Output, OutputTensor, Prepared

_TYPES = ("auto", "F32", "F16", "BF16")


def prepare_folder(
    checkpoint: Checkpoint, output: Path, options: Options, kind: safetensors.FolderKind = safetensors.MODEL
) -> Prepared:
    """Plan ``output`` as a folder of safetensors.

    Parameters
    ----------
    kind : a model, or an adapter

    Raises
    ------
    UsageError : a type that the container has not, an option of GGUF, or a GGUF source
    BadInput : a tensor that cannot be written there
    """
    _refuse(checkpoint, output, options)
    (wanted,) = options.types
    chosen = {name: _type(checkpoint, name, rows, wanted) for name, rows in checkpoint.tensors.items()}
    infos = [TensorInfo(name, checkpoint.tensors[name].shape, type_) for name, (type_, _) in chosen.items()]
    side = {n: data for n in checkpoint.side_names() if (data := checkpoint.side_bytes(n)) is not None}
    if checkpoint.config:  # single files merged into one have none, and an empty one would claim to be a model's
        side[kind.config] = _config(checkpoint, kind.config, wanted)
    tensors = []
    for name, (type_, reason) in chosen.items():
        rows = checkpoint.tensors[name]
        encoding = Encoding(rows, type_, allow_nonfinite=options.allow_nonfinite, measure=options.measure)
        tensors.append(OutputTensor(name, EncodedRows(name, rows, [encoding], options.allow_nonfinite), 0, reason))
    named = checkpoint.config.get("architectures")
    arch = str(
        named[0] if isinstance(named, list) and named else checkpoint.config.get("peft_type", "unknown architecture")
    )

    def lay_out(job: str) -> Sequence[FileLayout]:
        return safetensors.layout(output, infos, side, kind=kind, max_bytes=options.max_shard_bytes, job_key=job)

    plan, files = make_plan(
        checkpoint, output, [(tensors, lay_out)], options, {"type": wanted, "architecture": arch}, folder=output
    )
    outputs = [Output(output, wanted, tensors, files[0])]
    return Prepared(checkpoint.path, plan, arch, outputs, {}, list(checkpoint.warnings))


def _refuse(checkpoint: Checkpoint, output: Path, options: Options) -> None:
    if checkpoint.metadata is not None:
        raise UsageError(
            f"{checkpoint.path} is GGUF, whose tensors cannot go back to a safetensors folder",
            f"Name it {output}.gguf.",
        )
    for name in options.types:
        if name not in _TYPES:
            raise UsageError(
                f"a safetensors folder cannot hold {name}", f"Use --type {', '.join(_TYPES)}, or name it {output}.gguf."
            )
    gguf_only = {
        "--imatrix": options.imatrix, "--tensor-type": options.tensor_types, "--pure": options.pure,
        "--output-tensor-type": options.output_tensor_type, "--token-embedding-type": options.token_embedding_type,
        "--leave-output-tensor": options.leave_output_tensor, "--prune-layers": options.prune_layers,
        "--override-kv": options.override_kv, "--split-max-size": options.split_max_bytes,
        "--split-max-tensors": options.split_max_tensors, "--keep-split": options.keep_split,
        "--mmproj": options.mmproj, "--vocab-only": options.vocab_only, "--pre": options.pre,
        "--model-name": options.model_name,
    }  # fmt: skip
    for flag, value in gguf_only.items():
        if value:
            raise UsageError(f"{flag} has no meaning for a safetensors folder", f"Name the output {output}.gguf.")


def _type(checkpoint: Checkpoint, name: str, rows: Rows, wanted: str) -> tuple[TensorType, str]:
    """The type of a tensor and why: floats become what was asked for, everything else is copied."""
    is_float = rows.dtype in FLOATS or rows.dtype.startswith("F8_")
    if wanted != "auto" and is_float:
        return TYPES[wanted], f"asked for: {wanted}"
    # Some encodings do not say what they were made from; their rows are float32 then.
    if rows.dtype == "F32" and dequant.decoder_of(rows) is not None:
        return TYPES[_own_type(checkpoint)], "decoded, in the type of the model"
    try:
        found = safetensors.stored_type(rows.dtype)
    except KeyError:
        raise BadInput(f"{checkpoint.path}: tensor {name!r} of type {rows.dtype} cannot be written") from None
    if rows.stored(0, 0) is None and found.name not in FLOATS:
        raise BadInput(
            f"{checkpoint.path}: tensor {name!r} of type {rows.dtype} can only be copied, and it has no bytes"
        )
    return found, "as it is"


def _own_type(checkpoint: Checkpoint) -> str:
    """The type config.json names for the weights; F32 where it names none."""
    names = {torch: name for name, torch in safetensors.TORCH_NAMES.items() if name in _TYPES}
    text = checkpoint.config.get("text_config")
    for section in (checkpoint.config, text if isinstance(text, Mapping) else {}):
        for key in ("dtype", "torch_dtype"):
            if (torch := str(section.get(key))) in names:
                return names[torch]
    return "F32"


def _config(checkpoint: Checkpoint, name: str, wanted: str) -> bytes:
    """The configuration, byte for byte where nothing about it changes."""
    config: dict[str, Any] = dict(checkpoint.config)
    if wanted != "auto" and name == safetensors.MODEL.config:
        key = "dtype" if "dtype" in config else "torch_dtype"
        config[key] = safetensors.TORCH_NAMES[wanted]
        for part, inner in config.items():
            if isinstance(inner, Mapping) and ("dtype" in inner or "torch_dtype" in inner):
                key = "dtype" if "dtype" in inner else "torch_dtype"
                config[part] = {**inner, key: safetensors.TORCH_NAMES[wanted]}
    stored = checkpoint.side_bytes(name)
    if stored is not None and checkpoint.json(name) == config:
        return stored
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
