"""GGUF: a file, its shards, or several of different types; of a checkpoint, its projector, or another GGUF file again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ... import dequant, models
from ...errors import UsageError
from ...file_names import PROJECTOR
from ...flags import Flag
from ...metadata import Metadata
from ...quant import filetypes, imatrix, mix
from ...quant.converter_types import CONVERTER_TYPES, prescribed
from ...quant.encode import FLOATS
from ...quant.mix_facts import Choice, MixOptions, ModelFacts, TensorFacts, parse_tensor_rule, traversal_order
from ...quant.types import TYPES, TensorType
from ...rows import Rows, walk
from ...sources.checkpoint import Checkpoint
from ...sources.placeholders import refuse_no_weights
from ...sources.small_files import head_of
from ...sources.stored import FileRows
from ...targets import gguf
from ...targets.layout import FileLayout, TensorInfo
from ..applying import with_adapters
from ..calibrated import Weights
from ..fusing import fused
from ..judging import judged_file, judged_model
from ..options import Options
from ..provenance import job_of_gguf
from ..target import Chosen, Draft, Target
from ..type_rules import rules_of

#: block types that checkpoints have too, and the numbers of files that keep such blocks and have floats besides
_KEPT = {"MXFP4": 38, "NVFP4": 39}
#: the reason for a type that 8-bit floats get for themselves
_FLOAT8 = "--fp8-as-q8: stored as 8-bit floats"
#: types of the factors of an adapter; the first where none is asked for
_OF_ADAPTERS = ("F32", "F16", "BF16", "Q8_0")
#: options that have an effect on adapters
_FOR_ADAPTERS = ("base", "model_name", "metadata")
#: options that the reason for a type names
_DECIDERS = ("output_tensor_type", "token_embedding_type", "leave_output_tensor", "pure")


@dataclass(frozen=True)
class _Head:
    """Key/values of an output, and the numbers of the tensors of each shard where it is cut like its input."""

    metadata: Metadata
    shards: Sequence[Sequence[int]] | None = None


def choose(checkpoint: Checkpoint, options: Options) -> list[Draft]:
    """The model in ``checkpoint`` once for every type of ``options.types``; a GGUF file keeps names and metadata.

    Raises
    ------
    UsageError, BadInput, InputMissing : options, checkpoint or family do not fit
    """
    told = options.given()
    options = replace(options, tensor_types=rules_of(options))
    if options.keep_split and (options.split_max_bytes or options.split_max_tensors):
        raise UsageError("--keep-split and --split-max-… both decide where the output is split", "Use one of them.")
    found = None
    if options.imatrix:
        for path in options.imatrix:
            refuse_no_weights(path, head_of(path))
        found = imatrix.load_imatrix(options.imatrix, options.include_weights, options.exclude_weights)
    if checkpoint.base is not None:
        return _adapters(checkpoint, checkpoint.base, options)
    file_types = [filetypes.parse_file_type(name) for name in options.types]
    weights = Weights(found)
    if checkpoint.metadata is not None:
        drafts = [_retyped(checkpoint, options, file_type, weights) for file_type in file_types]
    else:
        drafts = _drafts(models.named(checkpoint), options, file_types, weights)
    more = [*_idle(drafts, options, told), *weights.told(pruned=bool(options.prune_layers))]
    return [replace(drafts[0], warnings=[*drafts[0].warnings, *more]), *drafts[1:]]


def _drafts(
    checkpoint: Checkpoint, options: Options, file_types: Sequence[filetypes.FileType], weights: Weights
) -> list[Draft]:
    """The text model of a Hugging Face checkpoint, its projector, or both."""
    overrides = models.read_overrides(options.metadata, told := list[str]())
    text = None if options.mmproj else models.dspark_of(checkpoint) if options.dspark else models.family_of(checkpoint)
    if options.dspark and options.mmproj:
        raise UsageError("--dspark has no effect on a projector", "Leave it out.")
    projector = models.projector_of(checkpoint) if options.mmproj or options.mmproj_type else None
    drafts, built = list[Draft](), list[models.Model]()
    for family in filter(None, (text, projector)):
        is_main = family is (text or projector)
        if is_main and options.dense_modules and models.dense_features not in family.keys:
            raise UsageError(
                "--sentence-transformers-dense-modules has no effect: no runtime looks for such modules in architecture"
                f" {family.arch!r}",
                "Leave it out.",
            )
        if family is projector and options.vocab_only:
            raise UsageError("--vocab-only has no effect on a projector, which has no vocabulary", "Leave it out.")
        model = _built(checkpoint, family, options, overrides, is_main)
        model = fused(model, options) if is_main else model
        built.append(replace(model, warnings=[*told, *model.warnings, *judged_model(checkpoint, family, model)]))
        if family is text:
            drafts += [_converted(built[-1], options, kind, _mix_options(options), weights) for kind in file_types]
        else:
            types = [filetypes.parse_file_type(options.mmproj_type)] if options.mmproj_type else file_types
            drafts += [_projector(built[-1], options, file_type) for file_type in types]
    if options.fp8_as_q8 and not any(dequant.is_float8(rows) for model in built for rows in model.tensors.values()):
        raise UsageError("--fp8-as-q8 has no effect: the model has no 8-bit floats with scales", "Leave it out.")
    return drafts


def _adapters(checkpoint: Checkpoint, base: Checkpoint, options: Options) -> list[Draft]:
    """A LoRA adapter, to be loaded beside its base."""
    from ..adapter_model import adapter_model

    idle = [flag.name for flag in options.given() if flag.special and flag.field not in _FOR_ADAPTERS]
    if idle:
        raise UsageError(f"{', '.join(idle)}: no effect on {checkpoint.path}, which is a LoRA adapter", "Leave it out.")
    overrides = models.read_overrides(options.metadata, told := list[str]())
    model = adapter_model(checkpoint, base, options.model_name, overrides)
    model = replace(model, warnings=[*told, *model.warnings])
    drafts = []
    for name in options.types:
        file_type = filetypes.parse_file_type("F32" if name == "auto" else name)
        if file_type.name not in _OF_ADAPTERS:
            raise UsageError(f"an adapter is written in {', '.join(_OF_ADAPTERS)}", "Use --type with one of these.")
        drafts.append(_converted(model, options, file_type, MixOptions(), Weights(None)))
    return drafts


def _built(
    checkpoint: Checkpoint, family: models.Family, options: Options, overrides: Mapping[str, Any], is_main: bool
) -> models.Model:
    further, target = options.further, None
    if not is_main:  # the model beside it is what these are for
        checkpoint, further = replace(checkpoint, target=None), "kept"
    if checkpoint.target is not None:
        target = models.family_of(models.named(checkpoint.target))
    model = models.build(
        checkpoint, family, pre=options.pre, vocab_only=options.vocab_only, model_name=options.model_name,
        overrides=overrides, further=further, target=target,
    )  # fmt: skip
    return with_adapters(model, checkpoint) if is_main and checkpoint.adapters else model


def lay_out(path: Path, draft: Draft, options: Options, job: str) -> Sequence[FileLayout]:
    """The file of an output, or its shards."""
    infos = [TensorInfo(t.name, t.rows.shape, t.type) for t in draft.tensors]
    is_whole = draft.part == PROJECTOR  # runtimes load it from one file
    limits = {} if is_whole else {"max_bytes": options.split_max_bytes, "max_tensors": options.split_max_tensors}
    return gguf.layout(
        path, draft.head.metadata, infos, **limits, empty_first=options.no_tensor_first_split and not is_whole,
        shards=draft.head.shards, job_key=job,
    )  # fmt: skip


def _idle(drafts: Sequence[Draft], options: Options, told: Sequence[Flag]) -> list[str]:
    """For the plan: what does nothing here, such as rules that no tensor's name matches, which are mistyped most of the time.

    Parameters
    ----------
    options : with the rules of a file among the others
    told : options as they were given
    """
    tensors = [tensor for draft in drafts for tensor in draft.tensors]
    idle = []
    for text in options.tensor_types:
        pattern, wanted = parse_tensor_rule(text)
        # the rule itself, or a type that takes over where the wanted one does not fit
        told_so = (f"--tensor-type {pattern}={wanted.name}", f"{wanted.name}: columns ")
        reasons = [tensor.reason for tensor in tensors if re.search(pattern, tensor.name)]
        if not reasons:
            idle.append(f"--tensor-type {text}: no tensor's name matches, so it has no effect")
        elif not any(reason.startswith(told_so) for reason in reasons):
            idle.append(
                f"--tensor-type {text}: other options decide the types of the tensors that it matches, so it has no effect"
            )
    for flag in (flag for flag in told if flag.field in _DECIDERS):
        fitted = flag.field == "pure"  # where its type fits no tensor, reasons tell of the one that takes over
        if not any(t.reason.startswith(flag.name) or (fitted and ": columns " in t.reason) for t in tensors):
            idle.append(f"{flag.name} matches no tensor whose type is open, so it has no effect")
    if options.fp8_as_q8 and not any(t.reason == _FLOAT8 for t in tensors):
        idle.append(f"--fp8-as-q8 has no effect on files of type {options.type}")
    if options.copy and options.type != "auto":
        idle.append(f"--type {options.type} has no effect, as --copy keeps the type of every tensor")
    if options.mmproj and options.pre:
        idle.append(f"--pre {options.pre} has no effect, as a projector has no tokenizer")
    if options.mmproj and (options.split_max_bytes or options.split_max_tensors):
        idle.append("--split-max-… has no effect, as runtimes load a projector from one file")
    return idle


def _chosen(choices: Sequence[Choice], tensors: Mapping[str, Rows], weights: Weights) -> list[Chosen]:
    return [
        Chosen(c.name, tensors[c.name], c.type, c.reason, weights.of(c.source, tensors[c.name], c.type))
        for c in choices
    ]


def _projector(model: models.Model, options: Options, file_type: filetypes.FileType) -> Draft:
    """The projector of a checkpoint; what decides the types of a text model that is made with it has no say in its own."""
    wanted = MixOptions() if options.mmproj_type else _mix_options(options)
    if mix.decides(file_type, wanted):
        raise UsageError(
            "a projector file is written in F32, F16, BF16 or Q8_0",
            "For another type, write F16 and quantize that file.",
        )
    return replace(_converted(model, options, file_type, wanted, Weights(None)), part=PROJECTOR)


def _converted(
    model: models.Model, options: Options, file_type: filetypes.FileType, wanted: MixOptions, weights: Weights
) -> Draft:
    """A Hugging Face checkpoint: the converter's types, or those of a quantization mix."""
    kept_blocks = _KEPT if file_type is filetypes.AUTO else {}
    facts = [
        TensorFacts(n, r.shape, next((kind for kind in kept_blocks if r.native(kind, 0, 0) is not None), r.dtype))
        for n, r in model.tensors.items()
    ]
    asked = ModelFacts.from_metadata(model.metadata)
    file_type, choices = mix.checkpoint_types(facts, asked, file_type, wanted, model.forced_types, weights.found)
    if options.fp8_as_q8:
        choices = _float8_as_q8(choices, model, file_type)
    metadata = Metadata(dict(model.metadata.values))
    if "general.file_type" in metadata and file_type.number is not None:
        is_plain = file_type.name in ("F32", "F16", "BF16")
        blocks = next((c.type.name for c in choices if is_plain and c.type.name in _KEPT), "")
        of_family = 0 if mix.decides(file_type, wanted) else metadata.get("general.file_type")
        metadata.u32("general.file_type", of_family or _KEPT.get(blocks, file_type.number))
    tensors = [tensor for chosen in _chosen(choices, model.tensors, weights) for tensor in (chosen, *_scale_of(chosen))]
    return Draft(file_type.name, model.arch, tensors, _Head(metadata), model.left_out, model.warnings)


def _float8_as_q8(choices: Sequence[Choice], model: models.Model, file_type: filetypes.FileType) -> list[Choice]:
    """``choices`` with Q8_0 for matrices of 8-bit floats that would become larger; F16 where its blocks do not fit."""
    stored = {name: rows.shape for name, rows in model.tensors.items() if dequant.is_float8(rows)}
    wanted = {name: TYPES["F16" if shape[-1] % TYPES["Q8_0"].block_size else "Q8_0"] for name, shape in stored.items()}
    open_ = {
        c.name
        for c in choices
        if len(stored.get(c.name, ())) > 1 and c.name not in model.forced_types and not c.name.endswith("_norm.weight")
        if c.type.name in FLOATS and not c.reason.startswith("--") and file_type.name in CONVERTER_TYPES
        if c.type is not wanted[c.name]
    }
    return [replace(c, type=wanted[c.name], reason=_FLOAT8) if c.name in open_ else c for c in choices]


def _scale_of(chosen: Chosen) -> Iterator[Chosen]:
    """The tensor that the blocks of ``chosen`` are multiplied by, where they are copied without it."""
    beside = dequant.scale_beside(chosen.rows, chosen.type.name) if chosen.type.name in _KEPT else None
    if beside is not None:
        name = f"{chosen.name.removesuffix('.weight')}.scale"
        yield Chosen(name, beside, TYPES["F32"], f"scale of the {chosen.name} blocks")


def _retyped(checkpoint: Checkpoint, options: Options, file_type: filetypes.FileType, weights: Weights) -> Draft:
    """A GGUF file: every tensor again, in other types."""
    from ...quant import requantize

    assert checkpoint.metadata is not None
    if file_type is filetypes.AUTO:
        raise UsageError("--type is needed to requantize a GGUF file", "For example --type Q4_K_M.")
    facts = [TensorFacts(n, r.shape, r.dtype) for n, r in checkpoint.tensors.items()]
    model = ModelFacts.from_metadata(checkpoint.metadata)
    choices = mix.assign_types(facts, model, file_type, _mix_options(options), weights.found)
    choices = [_fixed(c, checkpoint.tensors[c.source], checkpoint.metadata, file_type) for c in choices]
    metadata = requantize.quantize_metadata(
        checkpoint.metadata,
        file_type,
        source_types=[checkpoint.tensors[name].dtype for name in traversal_order(list(checkpoint.tensors))],
        overrides=[requantize.parse_override(text) for text in options.override_kv],
        imatrix=weights.found,
        imatrix_file=options.imatrix[0].name if options.imatrix else "",
        pruned=options.prune_layers,
    )
    rows = {c.name: checkpoint.tensors[c.source] for c in choices}
    told = judged_file(checkpoint, metadata, rows, overridden=bool(options.override_kv))
    tensors = _chosen(choices, rows, weights)
    head = _Head(metadata, _shards_of_input(checkpoint, tensors) if options.keep_split else None)
    return Draft(file_type.name, model.architecture, tensors, head, {}, [*checkpoint.warnings, *told])


def _fixed(choice: Choice, rows: Rows, metadata: Metadata, file_type: filetypes.FileType) -> Choice:
    """``choice`` with the type that runtimes expect, whatever the file type, as it would be made from the checkpoint itself."""
    said = models.fixed_type(metadata, choice.name)
    fixed = prescribed(said, file_type) if said is not None else choice.type
    if fixed == choice.type or choice.reason == "copied" or rows.dtype not in FLOATS or len(rows.shape) < 2:
        return choice
    return replace(choice, type=fixed, reason="fixed by the model family")


def _shards_of_input(checkpoint: Checkpoint, tensors: Sequence[Chosen]) -> list[list[int]]:
    """Numbers of the tensors that lie in the same file of the input, file after file."""
    shards: dict[Path, list[int]] = {f.path: [] for f in checkpoint.inputs}
    for number, tensor in enumerate(tensors):
        stored = next(
            rows for rows in walk(tensor.rows) if isinstance(rows, FileRows)
        )  # what an adapter changes comes first
        shards[stored.file.path].append(number)
    return [shard for shard in shards.values() if shard] or [[]]


def _mix_options(options: Options) -> MixOptions:
    def tensor_type(text: str | None) -> TensorType | None:
        return filetypes.parse_tensor_type(text) if text else None

    return MixOptions(
        pure=options.pure,
        leave_output_tensor=options.leave_output_tensor,
        output_tensor_type=tensor_type(options.output_tensor_type),
        token_embedding_type=tensor_type(options.token_embedding_type),
        tensor_types=tuple(parse_tensor_rule(text) for text in options.tensor_types),
        prune_layers=options.prune_layers,
        allow_requantize=options.allow_requantize,
    )


TARGET = Target(
    name="gguf",
    title="a GGUF file",
    choose=choose,
    lay_out=lay_out,
    job_of=job_of_gguf,
    options=(
        "tensor_types", "tensor_type_file", "output_tensor_type", "token_embedding_type", "leave_output_tensor", "pure",
        "imatrix", "include_weights", "exclude_weights", "allow_requantize", "copy", "prune_layers", "override_kv", "compat",
        "pre", "model_name", "vocab_only", "mmproj", "mmproj_type", "mtp", "no_mtp", "dspark", "target_model", "base", "lora",
        "mistral_format", "fuse_qkv", "fuse_gate_up_exps", "fp8_as_q8", "metadata", "dense_modules", "split_max_bytes",
        "split_max_tensors", "no_tensor_first_split", "keep_split",
    ),
)  # fmt: skip
