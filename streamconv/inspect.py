"""What is in a checkpoint, as data and as text.

``describe`` reads headers and small side files only. Names and texts from the file are opaque: the data carry them as they
are, the text escapes what a terminal would act on and shortens what would flood it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any

from . import dequant
from .errors import BadInput
from .file_names import OF_TOKENIZERS, SBS, TEMPLATES, TORCH, container_of, fits
from .metadata import Metadata, Value
from .sources.checkpoint import Checkpoint
from .sources.hf_config import flattened
from .sources.naming import shown
from .sources.stored import FileRows
from .units import size

#: longest array that is listed whole
_WHOLE_ARRAY = 16
_FIRST_ELEMENTS = 8
#: config keys worth a line; those of the text model's section stand in for absent ones
_CONFIG_KEYS = (
    "architectures",
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "tie_word_embeddings",
    "torch_dtype",
    "dtype",
)
#: of the configuration in a file of gemma.cpp
_SBS_KEYS = ("display_name", "model", "wrapping", "weight", "num_layers", "model_dim", "vocab_size", "max_seq_len")
_SPECIAL = ("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask")


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything about a checkpoint that JSON can hold.

    Returns
    -------
    dict with ``path``, ``format``, ``files``, ``totals`` (``tensors``, ``parameters``, ``bytes``, ``types``), ``tensors`` (a
    list of ``name``, ``shape``, ``dtype``, ``bytes``, ``file`` and, for weights that are quantized, ``encoding``),
    ``metadata`` (GGUF) or ``config``, ``tokenizer``, ``warnings``. Long arrays of the metadata are given by ``elem``, ``count``
    and their ``first`` elements. Quantized weights are listed as what they decode to, with the bytes they are stored in; where
    that cannot be told, all tensors are listed as stored, and a warning says why. Of a file of gemma.cpp there are also ``blobs``
    and, where it has one, ``toc``; its tensors have a ``scale``, and ``config`` is its own.
    """
    if _format(checkpoint) == SBS.name:
        return _sbs(checkpoint)
    warnings = list(checkpoint.warnings)
    try:
        found = dequant.decoded(checkpoint)
        warnings = list(found.warnings)
    except BadInput as e:
        found = checkpoint
        warnings.append(e.message)
    tensors = [_tensor(name, rows) for name, rows in found.tensors.items()]
    facts: dict[str, Any] = {
        "path": str(checkpoint.path),
        "format": _format(checkpoint),
        "files": [{"name": file.name, "bytes": file.size} for file in checkpoint.inputs],
        "totals": _totals(tensors),
        "tensors": tensors,
    }
    if checkpoint.metadata is None:
        facts["config"] = dict(checkpoint.config)
        facts["tokenizer"] = _folder_tokenizer(checkpoint, warnings)
    else:
        facts["metadata"] = {key: _metadata_value(value) for key, value in checkpoint.metadata.items()}
        facts["tokenizer"] = _gguf_tokenizer(checkpoint.metadata)
    return {**facts, "warnings": warnings}


def render(facts: dict[str, Any]) -> str:
    """The result of ``describe`` for people: totals, keys, tokenizer, and an aligned table of tensors."""
    return "\n".join(lines(facts))


def _sbs(checkpoint: Checkpoint) -> dict[str, Any]:
    """``describe`` for a file of gemma.cpp."""
    from .models.gemma_cpp.facts import facts

    warnings = list(checkpoint.warnings)
    told = facts(checkpoint, warnings)
    files = [{"name": file.name, "bytes": file.size} for file in checkpoint.inputs]
    head = {"path": str(checkpoint.path), "format": SBS.name, "files": files, "totals": _totals(told["tensors"])}
    return {**head, **told, "warnings": warnings}


def _format(checkpoint: Checkpoint) -> str:
    if checkpoint.metadata is not None:
        return "gguf"
    if checkpoint.path.is_dir() or checkpoint.path.suffix == ".json":
        return "checkpoint folder"
    return (container_of(checkpoint.path.name) or TORCH).name


def _tensor(name: str, rows: Any) -> dict[str, Any]:
    facts = {"name": name, "shape": list(rows.shape), "dtype": rows.dtype}
    if isinstance(rows, dequant.DecodedRows):
        return {**facts, "bytes": rows.n_bytes, "file": rows.file_name, "encoding": rows.encoding}
    is_stored = isinstance(rows, FileRows)
    return {
        **facts,
        "bytes": rows.n_bytes if is_stored else None,
        "file": rows.file.path.name if is_stored else None,
    }


def _totals(tensors: list[dict[str, Any]]) -> dict[str, Any]:
    types: dict[str, dict[str, int]] = {}
    for tensor in tensors:
        of_type = types.setdefault(tensor["dtype"], {"tensors": 0, "parameters": 0, "bytes": 0})
        of_type["tensors"] += 1
        of_type["parameters"] += prod(tensor["shape"])
        of_type["bytes"] += tensor["bytes"] or 0
    whole = {key: sum(of_type[key] for of_type in types.values()) for key in ("tensors", "parameters", "bytes")}
    return {**whole, "types": types}


def _metadata_value(value: Value) -> Any:
    if value.type == "ARRAY":
        count = len(value.value)
        if count > _WHOLE_ARRAY:
            return {"elem": value.elem, "count": count, "first": list(value.value[:_FIRST_ELEMENTS])}
        return list(value.value)
    return value.value


def _gguf_tokenizer(metadata: Metadata) -> dict[str, Any]:
    tokens: Sequence[str] = metadata.get("tokenizer.ggml.tokens", [])
    template = metadata.get("tokenizer.chat_template")
    special = {}
    for name in _SPECIAL:
        token = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if type(token) is int:
            special[name] = {"id": token, "text": tokens[token] if 0 <= token < len(tokens) else None}
    return {
        "model": metadata.get("tokenizer.ggml.model"),
        "pre": metadata.get("tokenizer.ggml.pre"),
        "tokens": len(tokens),
        "merges": len(metadata.get("tokenizer.ggml.merges", [])),
        "special": special,
        "chat_template": isinstance(template, str),
    }


def _folder_tokenizer(checkpoint: Checkpoint, warnings: list[str]) -> dict[str, Any]:
    found: dict[str, bytes] = {}
    settings: dict[str, Any] = {}
    for name in (*(n for n in checkpoint.side_names() if fits(n, OF_TOKENIZERS)), "generation_config.json"):
        try:
            data = checkpoint.side_bytes(name)
            if data is not None:
                found[name] = data
            if name == "tokenizer_config.json":
                settings = checkpoint.json(name) or {}
        except BadInput as e:
            warnings.append(e.message)
    return {
        "files": [{"name": name, "bytes": len(data)} for name, data in found.items()],
        "class": settings.get("tokenizer_class"),
        "chat_template": settings.get("chat_template") is not None or any(fits(name, TEMPLATES) for name in found),
    }


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """The lines of ``render``."""
    totals = facts["totals"]
    yield f"{_plain(facts['path'])}: {facts['format']}, {len(facts['files'])} file(s)"
    yield f"{totals['tensors']} tensors, {totals['parameters']:,} parameters, {_size(totals['bytes'])}"
    for dtype, of_type in totals["types"].items():
        yield f"  {dtype}: {of_type['tensors']} tensors, {of_type['parameters']:,} parameters, {_size(of_type['bytes'])}"
    yield from _section("config", _config_pairs(facts.get("config", {})))
    yield from _section("metadata", facts.get("metadata", {}).items())
    yield from _section("tokenizer", facts["tokenizer"].items())
    for warning in facts["warnings"]:
        yield f"warning: {warning}"
    if facts["tensors"]:
        yield ""
        yield from _table(facts)
    elif "blobs" in facts:
        blobs = [[_plain(b["key"]), str(b["offset"]), _size(b["bytes"])] for b in facts["blobs"]]
        yield ""
        yield from _aligned([["blob", "offset", "size"], *blobs])


def _section(title: str, pairs: Iterable[tuple[str, Any]]) -> Iterator[str]:
    told = [(key, value) for key, value in pairs if value is not None and value not in ([], {}, "")]
    if told:
        yield f"{title}:"
    for key, value in told:
        yield f"  {_plain(key)}: {_value(value)}"


def _config_pairs(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    merged = {**flattened(config), **config}
    for key in _SBS_KEYS if "display_name" in merged else _CONFIG_KEYS:
        if key in merged:
            yield key, merged[key]
    if "quantization_config" in merged:
        yield "quantization_config", merged["quantization_config"]


def _table(facts: dict[str, Any]) -> Iterator[str]:
    several = len(facts["files"]) > 1
    encoded = any("encoding" in tensor for tensor in facts["tensors"])
    rows = [["tensor", "type", "shape", "size", *(["encoding"] if encoded else []), *(["file"] if several else [])]]
    for tensor in facts["tensors"]:
        shape = " x ".join(map(str, tensor["shape"])) or "scalar"
        row = [_plain(tensor["name"]), tensor["dtype"], shape, _size(tensor["bytes"])]
        row += [tensor.get("encoding", "")] if encoded else []
        rows.append([*row, *([_plain(tensor["file"]) if tensor["file"] else ""] if several else [])])
    yield from _aligned(rows)


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    """A table whose head is the first row; sizes are aligned on the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(w) if head == "size" else cell.ljust(w)
            for cell, w, head in zip(row, widths, rows[0], strict=True)
        ]
        yield "  ".join(cells).rstrip()


def _value(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, str):
        return _plain(value, 100)
    if isinstance(value, dict) and "first" in value and "count" in value:
        return f"{value['count']} x {value['elem']}: {_value(value['first'])[:-1]}, …]"
    if isinstance(value, dict) and set(value) == {"name", "bytes"}:
        return f"{_plain(value['name'])} ({_size(value['bytes'])})"
    if isinstance(value, dict) and set(value) == {"id", "text"}:
        return f"{value['id']} {shown(value['text'] or '', 40)}"
    if isinstance(value, dict):
        return ", ".join(f"{_plain(str(key))} {_value(part)}" for key, part in value.items())
    if isinstance(value, list):
        return f"[{', '.join(shown(part, 40) if isinstance(part, str) else _value(part) for part in value)}]"
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _plain(text: str, limit: int = 80) -> str:
    """``text`` as it is when it is harmless and short, else quoted, escaped and cut."""
    return text if text and len(text) <= limit and text.isprintable() and text == text.strip() else shown(text, limit)


def _size(n_bytes: int | None) -> str:
    return "?" if n_bytes is None else size(n_bytes)
