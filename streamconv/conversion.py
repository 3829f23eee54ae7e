"""Puts the stages together: source → model → types → layout → plan, and runs it.

This is the only module that knows all stages; none of them knows another except through the row-source protocol.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import models, sources
from .engine import budget as budgets
from .engine import files
from .engine import job as jobs
from .engine import plan as plans
from .engine import run as runs
from .errors import StreamconvError, UsageError
from .metadata import Metadata
from .quant import converter_types, filetypes, imatrix, mix
from .quant.base import has_codec
from .quant.encode import EncodedRows
from .rows import Floats, Quality, RowSource
from .sources.checkpoint import Checkpoint
from .targets import gguf


@dataclass(frozen=True)
class Options:
    """Everything a conversion can be told; the command line's flags by the same names.

    Attributes
    ----------
    type : file type, or ``auto``
    ram_bytes, threads : budget; None = chosen from the machine. They never change the output.
    force : replace an output or an unfinished job of another plan
    stop_after_s : stop at a chunk boundary after so many seconds
    verify : finished chunks read back before a resumed run trusts them: all, recent, none
    imatrix : importance matrix files; include/exclude filter their entries
    tensor_types : ``REGEX=TYPE``
    split_max_bytes, split_max_tensors : limits of a shard, 0 = one file
    pre : BPE pre-tokenizer name, overriding detection
    mmproj : write the vision projector instead of the text model
    allow_nonfinite : convert NaN and Inf instead of refusing them
    measure : decode what was encoded and add up the error
    compat : reproduce defects of ggml
    io : how inputs are read, ``mmap`` or ``pread``
    chunk_bytes : most output bytes of a chunk
    """

    type: str = "auto"
    ram_bytes: int | None = None
    threads: int | None = None
    force: bool = False
    stop_after_s: float | None = None
    verify: str = "all"
    imatrix: tuple[Path, ...] = ()
    include_weights: tuple[str, ...] = ()
    exclude_weights: tuple[str, ...] = ()
    pure: bool = False
    leave_output_tensor: bool = False
    output_tensor_type: str | None = None
    token_embedding_type: str | None = None
    tensor_types: tuple[str, ...] = ()
    prune_layers: tuple[int, ...] = ()
    override_kv: tuple[str, ...] = ()
    allow_requantize: bool = False
    split_max_bytes: int = 0
    split_max_tensors: int = 0
    pre: str | None = None
    vocab_only: bool = False
    mmproj: bool = False
    model_name: str | None = None
    allow_nonfinite: bool = False
    measure: bool = False
    compat: bool = False
    io: sources.IoMode = "mmap"
    chunk_bytes: int = plans.CHUNK_BYTES


@dataclass(frozen=True)
class Prepared:
    """A planned conversion.

    Attributes
    ----------
    plan : what the engine runs
    choices : type and reason of every output tensor, in file order
    items : the same tensors as rows of bytes
    left_out : tensors of the source that the output does not have, and why
    """

    source: Path
    plan: plans.Plan
    choices: Sequence[mix.Choice]
    items: Sequence[EncodedRows]
    arch: str
    file_type: filetypes.FileType
    left_out: Mapping[str, str]
    warnings: list[str] = field(default_factory=list)

    @property
    def n_params(self) -> int:
        """Weights of the output."""
        return sum(i.n_rows * i.n_cols for i in self.items)

    @property
    def data_bytes(self) -> int:
        """Bytes of all encoded tensors."""
        return sum(i.n_rows * i.row_bytes for i in self.items)


@dataclass
class _Typed:
    """Tensors with their types chosen, before they have a place."""

    arch: str
    file_type: filetypes.FileType
    metadata: Metadata
    choices: Sequence[mix.Choice]
    tensors: Mapping[str, RowSource]
    weights: imatrix.Imatrix | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def prepare(source: str | os.PathLike[str], output: str | os.PathLike[str], options: Options) -> Prepared:
    """Plan a conversion: reads headers, configuration and tokenizer, writes nothing.

    Raises
    ------
    UsageError, BadInput, InputMissing, NoPermission : what is wrong, before anything is written
    """
    source, output = Path(source), Path(output)
    if output.suffix != ".gguf":
        raise UsageError(
            f"{output}: the ending {output.suffix!r} is no known target", "Name the output something.gguf."
        )
    checkpoint = sources.open_checkpoint(source, io=options.io, weights=not options.vocab_only)
    if checkpoint.metadata is not None:
        typed = _retyped(checkpoint, options)
    else:
        typed = _converted(checkpoint, options)
    _refuse_own_input(checkpoint, output)
    return _placed(checkpoint, typed, output, options)


def _converted(checkpoint: Checkpoint, options: Options) -> _Typed:
    """A Hugging Face checkpoint: the converter's types, or those of a quantization mix."""
    file_type = filetypes.parse_file_type(options.type)
    if file_type is filetypes.COPY or options.prune_layers or options.override_kv:
        raise UsageError("--copy, --prune-layers and --override-kv work on a GGUF file", "Convert to GGUF first.")
    if options.mmproj:
        model = models.build_projector(checkpoint, model_name=options.model_name)
    else:
        family = models.family_of(checkpoint)
        model = models.build(
            checkpoint, family, pre=options.pre, vocab_only=options.vocab_only, model_name=options.model_name
        )
    facts = [mix.TensorFacts(n, r.shape, r.dtype) for n, r in model.tensors.items()]
    weights = _imatrix(options)
    mixed = not _is_converter_type(file_type) or _has_type_options(options)
    if mixed and options.mmproj:
        raise UsageError("a projector file is F32, F16, BF16 or Q8_0", "Runtimes read no other type of projector.")
    choices = converter_types.converter_types(facts, _plain_type(file_type, facts), model.forced_types)
    if file_type is filetypes.AUTO:
        file_type = converter_types.auto_file_type(facts)
    if mixed:
        # What the mix keeps, it keeps as the converter would have written it.
        kept = {c.name: c.type.name for c in choices}
        choices = mix.assign_types(
            [mix.TensorFacts(f.name, f.shape, kept[f.name]) for f in facts],
            mix.ModelFacts(model.arch, model.n_layers, model.n_heads, model.n_kv_heads, model.n_experts),
            file_type,
            _mix_options(options),
            weights,
        )
    metadata = model.metadata
    if "general.file_type" in metadata and file_type.number is not None:
        metadata.u32("general.file_type", file_type.number)
    return _Typed(
        model.arch, file_type, metadata, choices, model.tensors, weights, model.left_out, list(model.warnings)
    )  # fmt: skip


def _is_converter_type(file_type: filetypes.FileType) -> bool:
    return file_type is filetypes.AUTO or file_type.name in converter_types.CONVERTER_TYPES


def _plain_type(file_type: filetypes.FileType, facts: Sequence[mix.TensorFacts]) -> filetypes.FileType:
    """The type of tensors that no mix changes: the one asked for, else the checkpoint's own 16-bit type, else F32."""
    if _is_converter_type(file_type):
        return file_type
    has_half = any(len(f.shape) > 1 and f.source_type in ("BF16", "F16") for f in facts)
    return filetypes.AUTO if has_half else filetypes.FILE_TYPES["F32"]


def _retyped(checkpoint: Checkpoint, options: Options) -> _Typed:
    """A GGUF file: every tensor again, in other types."""
    from .quant import requantize

    assert checkpoint.metadata is not None
    file_type = filetypes.parse_file_type(options.type)
    if file_type is filetypes.AUTO:
        raise UsageError("--type is needed to requantize a GGUF file", "For example --type Q4_K_M.")
    weights = _imatrix(options)
    facts = [mix.TensorFacts(n, r.shape, r.dtype) for n, r in checkpoint.tensors.items()]
    model = mix.ModelFacts.from_metadata(checkpoint.metadata)
    choices = mix.assign_types(facts, model, file_type, _mix_options(options), weights)
    metadata = requantize.quantize_metadata(
        checkpoint.metadata,
        file_type,
        source_types=[checkpoint.tensors[name].dtype for name in mix.traversal_order(list(checkpoint.tensors))],
        overrides=[requantize.parse_override(text) for text in options.override_kv],
        imatrix=weights,
        imatrix_file=options.imatrix[0].name if options.imatrix else "",
        block_count=model.n_layer - len(options.prune_layers) if options.prune_layers else None,
    )
    tensors = {c.name: checkpoint.tensors[c.source] for c in choices}
    return _Typed(model.architecture, file_type, metadata, choices, tensors, weights, {}, list(checkpoint.warnings))


def _has_type_options(options: Options) -> bool:
    return bool(
        options.tensor_types
        or options.output_tensor_type
        or options.token_embedding_type
        or options.leave_output_tensor
        or options.pure
    )


def _mix_options(options: Options) -> mix.MixOptions:
    def tensor_type(text: str | None) -> Any:
        return filetypes.parse_tensor_type(text) if text else None

    return mix.MixOptions(
        pure=options.pure,
        leave_output_tensor=options.leave_output_tensor,
        output_tensor_type=tensor_type(options.output_tensor_type),
        token_embedding_type=tensor_type(options.token_embedding_type),
        tensor_types=tuple(mix.parse_tensor_rule(text) for text in options.tensor_types),
        prune_layers=options.prune_layers,
        allow_requantize=options.allow_requantize,
    )


def _imatrix(options: Options) -> imatrix.Imatrix | None:
    if not options.imatrix:
        return None
    return imatrix.load_imatrix(options.imatrix, options.include_weights, options.exclude_weights)


def _refuse_own_input(checkpoint: Checkpoint, output: Path) -> None:
    if output.exists():
        for f in checkpoint.inputs:
            if os.path.samefile(f.path, output):
                raise UsageError(f"{output} is the input itself", "Choose another output name.")


def _placed(checkpoint: Checkpoint, typed: _Typed, output: Path, options: Options) -> Prepared:
    """Lay the output out and make the plan."""
    items = []
    for choice in typed.choices:
        if choice.type.name != typed.tensors[choice.name].dtype and not has_codec(choice.type.name):
            raise UsageError(f"{choice.name}: this version cannot make {choice.type.name}", "Choose another type.")
        rows = typed.tensors[choice.name]
        items.append(
            EncodedRows(
                choice.name,
                rows,
                choice.type,
                weights=_weights(typed, choice, rows),
                allow_nonfinite=options.allow_nonfinite,
                measure=options.measure,
                compat=options.compat,
            )  # fmt: skip
        )
    infos = [gguf.TensorInfo(i.name, i.rows.shape, i.type) for i in items]
    limits = {"max_bytes": options.split_max_bytes, "max_tensors": options.split_max_tensors}
    facts = {
        "inputs": [[f.name, f.size, f.digest] for f in checkpoint.inputs],
        "output": gguf.facts(typed.metadata, infos),
        "weights": typed.weights.digest if typed.weights else None,
        "compat": options.compat,
        "chunk_bytes": options.chunk_bytes,
        "limits": limits,
    }
    fingerprint = plans.fingerprint(facts)
    files = gguf.layout(
        output, typed.metadata, infos, **limits, job_key=lambda m: m.string("streamconv.job", fingerprint.hex())
    )
    placements = [
        plans.Placement(items[number], index, offset) for index, f in enumerate(files) for number, offset in f.tensors
    ]
    plan = plans.Plan(
        output=output,
        files=[plans.OutputFile(f.path, f.header, f.size) for f in files],
        placements=placements,
        fingerprint=fingerprint,
        inputs=[{"name": f.name, "size": f.size, "mtime_ns": f.mtime_ns} for f in checkpoint.inputs],
        verify_inputs=checkpoint.verify_unchanged,
        description={
            "source": str(checkpoint.path),
            "type": typed.file_type.name,
            "architecture": typed.arch,
            "input size": sum(f.size for f in checkpoint.inputs),
            "output size": sum(f.size for f in files),
        },
        chunk_bytes=options.chunk_bytes,
    )
    return Prepared(
        checkpoint.path, plan, typed.choices, items, typed.arch, typed.file_type, typed.left_out, typed.warnings
    )  # fmt: skip


def _weights(typed: _Typed, choice: mix.Choice, rows: RowSource) -> Floats | None:
    """Importance weights of a tensor, None where it has none or its type does not use them."""
    if typed.weights is None or choice.type.block_size == 1:
        return None
    n_experts = rows.shape[0] if len(rows.shape) > 2 else 1
    return typed.weights.weights(choice.source, rows.shape[-1], n_experts)


def budget_of(prepared: Prepared, options: Options) -> budgets.Budget:
    """The shares of the memory budget for ``prepared``."""
    return budgets.share(
        budgets.default_ram() if options.ram_bytes is None else options.ram_bytes,
        budgets.default_threads() if options.threads is None else options.threads,
        max((i.n_cols for i in prepared.items), default=1),
        max((i.row_bytes for i in prepared.items), default=1),
    )


def execute(prepared: Prepared, options: Options, reporter: runs.Reporter) -> runs.Outcome | None:
    """Run the plan to the end; None when its output is there already.

    Raises
    ------
    Every error of the tree; what is finished is kept for the next run.
    """
    plan = prepared.plan
    stop = runs.StopRequest(options.stop_after_s)
    budget = budget_of(prepared, options)
    if jobs.is_finished(plan) and not options.force:
        jobs.leftover(plan)
        return None
    if not options.force:
        jobs.refuse_foreign_output(plan)
    jobs.preflight(plan)
    _warm_up(prepared, reporter)
    job = jobs.Job.open(plan, force=options.force, verify=options.verify)
    try:
        if jobs.is_finished(plan) and not options.force:  # another process published it while we waited for the lock
            job.discard()
            return None
        return runs.run(job, budget, reporter, stop)
    finally:
        job.close()


def _warm_up(prepared: Prepared, reporter: runs.Reporter) -> None:
    """Compile the kernels of this job once, in this thread, and say so when it takes a while."""
    from .quant import cache

    kinds = {(i.type.name, i.has_weights): i for i in prepared.items}
    new = sorted({i.type.name for i in kinds.values() if i.needs_kernel and not cache.is_compiled(i.type.module)})
    if new:
        reporter.message(f"compiling kernels for {', '.join(new)} (once per machine)")
    for item in kinds.values():
        try:
            item.warm_up()
        except OSError as e:  # the cache folder is full or went away: compile in memory
            reporter.message(f"note: compiled kernels cannot be kept ({e})")
            cache.give_up()
            item.warm_up()
    if new:
        with suppress(StreamconvError):  # a cache that cannot be sealed is only compiled again next time
            path, text = cache.seal()
            files.write_atomically(path, text)


def describe(prepared: Prepared, options: Options) -> dict[str, Any]:
    """The plan for people and pipelines, JSON-able."""
    plan, budget = prepared.plan, budget_of(prepared, options)
    tensors = [
        {
            "name": i.name, "shape": list(i.rows.shape), "source_type": i.rows.dtype, "type": i.type.name,
            "bytes": i.n_rows * i.row_bytes, "reason": c.reason,
        }
        for i, c in zip(prepared.items, prepared.choices, strict=True)
    ]  # fmt: skip
    return {
        "source": str(prepared.source),
        "files": [str(f.path) for f in plan.files],
        "architecture": prepared.arch,
        "type": prepared.file_type.name,
        "fingerprint": plan.fingerprint.hex(),
        "parameters": prepared.n_params,
        "bits_per_weight": 8 * prepared.data_bytes / prepared.n_params if prepared.n_params else 0.0,
        "input_bytes": sum(i["size"] for i in plan.inputs),
        "output_bytes": plan.total_bytes,
        "disk_bytes": plan.total_bytes + 8192 + 128 * len(plan.chunks()),
        "ram_bytes": budget.ram_bytes,
        "threads": budget.threads,
        "chunks": len(plan.chunks()),
        "tensors": tensors,
        "left_out": dict(prepared.left_out),
        "warnings": list(prepared.warnings),
    }


def write_report(prepared: Prepared, outcome: runs.Outcome | None, path: Path) -> None:
    """Type, hash and error (null where unmeasured) of every tensor as JSON lines, read back from the finished output."""
    unknown = Quality(sum_squared_error=math.nan)
    lines = []
    for p in prepared.plan.placements:
        item = p.item
        assert isinstance(item, EncodedRows)
        n_bytes, n = item.n_rows * item.row_bytes, item.n_rows * item.n_cols
        digest = hashlib.sha256()
        with open(prepared.plan.files[p.file].path, "rb") as f:
            f.seek(p.offset)
            for at in range(0, n_bytes, 1 << 22):
                digest.update(f.read(min(1 << 22, n_bytes - at)))
        q = outcome.quality.get(item.name, Quality()) if outcome else unknown
        measured = math.isfinite(q.sum_squared_error)
        record = {
            "name": item.name, "type": item.type.name, "shape": list(item.rows.shape), "bytes": n_bytes,
            "sha256": digest.hexdigest(), "nonfinite": q.nonfinite if outcome else None,
            "rmse": math.sqrt(q.sum_squared_error / n) if measured and n else None,
            "max_error": q.max_error if measured else None,
        }  # fmt: skip
        lines.append(json.dumps(record) + "\n")
    files.write_atomically(path, "".join(lines))


def open_rows(source: str | os.PathLike[str]) -> Mapping[str, RowSource]:
    """All tensors of ``source`` by name; each has ``shape``, ``dtype`` and ``read(start, stop)`` -> float32."""
    return sources.open_checkpoint(source).tensors


__all__ = ["Options", "Prepared", "budget_of", "describe", "execute", "open_rows", "prepare", "write_report"]
