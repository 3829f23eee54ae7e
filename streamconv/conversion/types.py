"""A type for every tensor: what the model is made of, once for each file type asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .. import models
from ..errors import UsageError
from ..metadata import Metadata
from ..quant import converter_types, filetypes, imatrix, mix
from ..quant.types import TensorType
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from .judging import judged_file, judged_model
from .options import Options


@dataclass(frozen=True)
class TypedModel:
    """Tensors with their types chosen, before they have a place.

    Attributes
    ----------
    metadata : key/values of this output
    choices : type, reason and source name of every tensor, in file order
    tensors : output name -> rows; the same object in every output that has the tensor
    weights : importance matrix
    left_out : tensors of the source that are not part of the model, and why
    """

    arch: str
    file_type: filetypes.FileType
    metadata: Metadata
    choices: Sequence[mix.Choice]
    tensors: Mapping[str, Rows]
    weights: imatrix.Imatrix | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


#: the number of files that keep the blocks of a checkpoint and have floats besides
_MXFP4_MOE = 38


def typed_models(checkpoint: Checkpoint, options: Options) -> list[TypedModel]:
    """The model behind ``checkpoint`` once for every type of ``options.types``; a GGUF file keeps names and metadata."""
    weights = None
    if options.imatrix:
        weights = imatrix.load_imatrix(options.imatrix, options.include_weights, options.exclude_weights)
    file_types = [filetypes.parse_file_type(name) for name in options.types]
    if checkpoint.metadata is not None:
        return [_retyped(checkpoint, options, file_type, weights) for file_type in file_types]
    if filetypes.COPY in file_types or options.prune_layers or options.override_kv or options.keep_split:
        raise UsageError(
            "--copy, --prune-layers, --override-kv and --keep-split work on a GGUF file", "Convert to GGUF first."
        )
    family = models.projector_of(checkpoint) if options.mmproj else models.family_of(checkpoint)
    model = models.build(
        checkpoint, family, pre=options.pre, vocab_only=options.vocab_only, model_name=options.model_name
    )
    model = replace(model, warnings=[*model.warnings, *judged_model(checkpoint, family, model)])
    return [_converted(model, options, file_type, weights) for file_type in file_types]


def idle_rules(typed: Sequence[TypedModel], options: Options) -> list[str]:
    """For the plan: rules of ``--tensor-type`` that no tensor's name matches, which are mistyped most of the time."""
    names = {choice.name for model in typed for choice in model.choices}
    rules = [(text, re.compile(mix.parse_tensor_rule(text)[0])) for text in options.tensor_types]
    return [
        f"--tensor-type {text}: no tensor's name matches, so it does nothing"
        for text, pattern in rules
        if not any(map(pattern.search, names))
    ]


def _converted(
    model: models.Model, options: Options, file_type: filetypes.FileType, weights: imatrix.Imatrix | None
) -> TypedModel:
    """A Hugging Face checkpoint: the converter's types, or those of a quantization mix."""
    facts = [mix.TensorFacts(n, r.shape, r.dtype) for n, r in model.tensors.items()]
    mixed = not _is_converter_type(file_type) or _has_type_options(options)
    if mixed and options.mmproj:
        raise UsageError("a projector file is F32, F16, BF16 or Q8_0", "Runtimes read no other type of projector.")
    choices = converter_types.converter_types(facts, _plain_type(file_type, facts, mixed), model.forced_types)
    if file_type is filetypes.AUTO:
        file_type = converter_types.auto_file_type(facts)
    if mixed:
        # What the mix keeps, it keeps as the converter would have written it.
        kept = {c.name: c.type.name for c in choices}
        choices = mix.assign_types(
            [mix.TensorFacts(f.name, f.shape, kept[f.name]) for f in facts],
            mix.ModelFacts.from_metadata(model.metadata),
            file_type,
            _mix_options(options),
            weights,
        )
    metadata = Metadata(dict(model.metadata.values))
    if "general.file_type" in metadata and file_type.number is not None:
        keeps = file_type.name in ("F32", "F16", "BF16") and any(c.type.name == "MXFP4" for c in choices)
        metadata.u32("general.file_type", _MXFP4_MOE if keeps else file_type.number)
    return TypedModel(
        model.arch, file_type, metadata, choices, model.tensors, weights, model.left_out, list(model.warnings)
    )


def _is_converter_type(file_type: filetypes.FileType) -> bool:
    return file_type is filetypes.AUTO or file_type.name in converter_types.CONVERTER_TYPES


def _plain_type(file_type: filetypes.FileType, facts: Sequence[mix.TensorFacts], mixed: bool) -> filetypes.FileType:
    """The type of tensors that no mix changes: the one asked for, else the checkpoint's own 16-bit type, else F32.

    What a mix starts from is never quantized: it would refuse to quantize it again.
    """
    if _is_converter_type(file_type) and not (mixed and file_type.default and file_type.default.block_size > 1):
        return file_type
    has_half = any(len(f.shape) > 1 and f.source_type in ("BF16", "F16") for f in facts)
    return filetypes.AUTO if has_half else filetypes.FILE_TYPES["F32"]


def _retyped(
    checkpoint: Checkpoint, options: Options, file_type: filetypes.FileType, weights: imatrix.Imatrix | None
) -> TypedModel:
    """A GGUF file: every tensor again, in other types."""
    from ..quant import requantize

    assert checkpoint.metadata is not None
    if file_type is filetypes.AUTO:
        raise UsageError("--type is needed to requantize a GGUF file", "For example --type Q4_K_M.")
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
        block_count=model.n_layer - len(set(options.prune_layers)) if options.prune_layers else None,
    )
    tensors = {c.name: checkpoint.tensors[c.source] for c in choices}
    told = judged_file(checkpoint, metadata, tensors, overridden=bool(options.override_kv))
    return TypedModel(
        model.architecture, file_type, metadata, choices, tensors, weights, {}, [*checkpoint.warnings, *told]
    )


def _has_type_options(options: Options) -> bool:
    return bool(
        options.tensor_types
        or options.output_tensor_type
        or options.token_embedding_type
        or options.leave_output_tensor
        or options.pure
    )


def _mix_options(options: Options) -> mix.MixOptions:
    def tensor_type(text: str | None) -> TensorType | None:
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
