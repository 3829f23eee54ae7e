"""From typed tensors to a plan: every output's files are laid out, and the same rows of all of them become one item."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..engine.record import record_path
from ..errors import UsageError
from ..quant.base import has_codec
from ..quant.encode import EncodedRows, Encoding
from ..quant.types import TensorType
from ..rows import Floats, Rows
from ..sources.checkpoint import Checkpoint
from ..sources.stored import FileRows
from ..targets import gguf
from ..targets.layout import TensorInfo
from .folder import prepare_folder
from .opening import open_source
from .options import Options
from .overlap import refuse_overlap
from .planning import LayOut, make_plan
from .prepared import Output, OutputTensor, Prepared
from .reports import check_report
from .requantizing import notes
from .supply import Supply
from .types import TypedModel, idle_rules, typed_models
from .unfinished import check_name, recorded_plan

_PLACEHOLDER = "{type}"


def prepare(source: str | os.PathLike[str], output: str | os.PathLike[str], options: Options) -> Prepared:
    """Plan a conversion: reads headers, configuration and tokenizer, writes nothing.

    Raises
    ------
    UsageError, BadInput, InputMissing, NoPermission : what is wrong, before anything is written
    """
    if not os.fspath(source):
        raise UsageError("a name of a file is empty")
    output = check_name(output)
    # merged-v0.3 and Llama-3.1-8B-merged are folders: a digit behind the dot is of a name, not of a kind of file
    if output.suffix not in ("", ".gguf") and not output.suffix[1:2].isdigit() and not output.is_dir():
        raise UsageError(
            f"{output}: the ending {output.suffix!r} is no known target",
            "Name the output something.gguf, or give a folder for safetensors.",
        )
    if len(options.types) > 1 and (output.suffix != ".gguf" or _PLACEHOLDER not in output.name):
        raise UsageError(
            f"{len(options.types)} types need as many names, {output} is one", "Name them 'model-{type}.gguf'."
        )

    def planned(supply: Supply) -> tuple[Checkpoint, Prepared]:
        is_folder = output.suffix != ".gguf"
        checkpoint = open_source(source, options, supply, as_saved=is_folder)
        return checkpoint, (prepare_folder if is_folder else _prepare_gguf)(checkpoint, output, options)

    return supplied(output, options, planned)


def supplied(output: Path, options: Options, plan: Callable[[Supply], tuple[Checkpoint, Prepared]]) -> Prepared:
    """What ``plan`` prepares for ``output``, with whatever brings its inputs.

    Parameters
    ----------
    plan : given where models of the hub come from; returns what was opened and what was planned

    Raises
    ------
    UsageError : the output is among the inputs
    """
    supply = Supply(
        output.parent, evict=options.evict, offline=options.offline, refresh=options.refresh,
        pins={} if options.force else _pins(output),
    )  # fmt: skip
    try:
        checkpoint, prepared = plan(supply)
        p = prepared.plan
        writes = [
            *(f.path for f in p.files),
            *map(record_path, p.outputs),
            *([options.report] if options.report else []),
        ]
        folders = [p.job_dir, *([p.folder] if p.folder else [])]
        read = [*(f.path for f in checkpoint.inputs), *options.imatrix, *options.reads]
        refuse_overlap(writes, folders, supply.roots, read, copied=p.folder is not None)
        if options.report:
            check_report(options.report, p, options.force)
    except BaseException:
        supply.close()
        raise
    if not supply.models:
        return prepared
    description = {**prepared.plan.description, "revisions": supply.revisions}
    return replace(prepared, plan=replace(prepared.plan, description=description), supply=supply)


def _pins(output: Path) -> dict[str, str]:
    """The commits that an unfinished job for ``output`` was planned with, by reference."""
    revisions = recorded_plan(output).get("revisions")
    if not isinstance(revisions, dict):
        return {}  # none of them is from the hub, or the file is damaged: what is remembered decides
    return {str(name): str(commit) for name, commit in revisions.items()}


def _shards_of_input(checkpoint: Checkpoint, model: TypedModel) -> list[list[int]]:
    """Numbers of the tensors that lie in the same file of the input, file after file."""
    shards: dict[Path, list[int]] = {f.path: [] for f in checkpoint.inputs}
    for number, choice in enumerate(model.choices):
        rows = model.tensors[choice.name]
        assert isinstance(rows, FileRows)  # a GGUF file's are
        shards[rows.file.path].append(number)
    return [shard for shard in shards.values() if shard] or [[]]


class _Items:
    """The rows that are read, each with an encoding for every output that has them."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._items: dict[int, EncodedRows] = {}
        self._weights: dict[str, Floats | None] = {}

    def add(self, name: str, rows: Rows, type_: TensorType, weights: Floats | None) -> tuple[EncodedRows, int]:
        """The item of ``rows`` and the number of its new part."""
        if type_.name != rows.dtype and not has_codec(type_.name):
            raise UsageError(f"{name}: this version cannot make {type_.name}", "Choose another type.")
        o = self._options
        encoding = Encoding(
            rows, type_, weights=weights, allow_nonfinite=o.allow_nonfinite, measure=o.measure, compat=o.compat
        )
        old = self._items.get(id(rows))
        parts = [*(old.parts if old else ()), encoding]
        item = EncodedRows(name, rows, parts, o.allow_nonfinite)
        self._items[id(rows)] = item
        return item, len(parts) - 1

    def of(self, rows: Rows) -> EncodedRows:
        """The finished item of ``rows``."""
        return self._items[id(rows)]

    def weights(self, model: TypedModel, source: str, rows: Rows, type_: TensorType) -> Floats | None:
        """Importance weights of a tensor, None where it has none or its type does not use them."""
        if model.weights is None or type_.block_size == 1:
            return None
        if source not in self._weights:
            n_experts = rows.shape[0] if len(rows.shape) > 2 else 1
            self._weights[source] = model.weights.weights(source, rows.shape[-1], n_experts)
        return self._weights[source]


def _prepare_gguf(checkpoint: Checkpoint, output: Path, options: Options) -> Prepared:
    models = typed_models(checkpoint, options)
    paths = [output.with_name(output.name.replace(_PLACEHOLDER, m.file_type.name)) for m in models]
    if len(set(paths)) < len(paths):
        raise UsageError(
            f"--type {options.type} names one type twice: two outputs would be {paths[0]}",
            "auto is one of the others here.",
        )
    items = _Items(options)
    parts = [
        [
            items.add(c.name, m.tensors[c.name], c.type, items.weights(m, c.source, m.tensors[c.name], c.type))[1]
            for c in m.choices
        ]
        for m in models
    ]
    tensors = [
        [
            OutputTensor(c.name, items.of(m.tensors[c.name]), part, c.reason)
            for c, part in zip(m.choices, own_parts, strict=True)
        ]
        for m, own_parts in zip(models, parts, strict=True)
    ]
    layouts = [_gguf_layout(checkpoint, m, path, options) for m, path in zip(models, paths, strict=True)]
    plan, files = make_plan(checkpoint, output, list(zip(tensors, layouts, strict=True)), options, {
        "type": ",".join(m.file_type.name for m in models), "architecture": models[0].arch,
    }, names=paths)  # fmt: skip
    outputs = [
        Output(path, m.file_type.name, own_tensors, own_files)
        for path, m, own_tensors, own_files in zip(paths, models, tensors, files, strict=True)
    ]
    warnings = list(dict.fromkeys(text for m in models for text in m.warnings))
    warnings += [*idle_rules(models, options), *notes(outputs)]
    return Prepared(checkpoint.path, plan, models[0].arch, outputs, models[0].left_out, warnings)


def _gguf_layout(checkpoint: Checkpoint, model: TypedModel, path: Path, options: Options) -> LayOut:
    """How the files of one output are laid out."""
    infos = [TensorInfo(c.name, model.tensors[c.name].shape, c.type) for c in model.choices]
    limits = {"max_bytes": options.split_max_bytes, "max_tensors": options.split_max_tensors}
    shards = _shards_of_input(checkpoint, model) if options.keep_split else None
    return lambda job: gguf.layout(path, model.metadata, infos, **limits, shards=shards, job_key=job)
