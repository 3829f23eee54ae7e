"""Choose the type of every tensor of a file: the rules of ``llama-quantize``, with a reason for each choice.

Everything is decided from names, shapes and options, before a weight is read; what the reference finds out half-way, or
dies of, is refused here. Whether values are finite is not checked.

The rules are data in ``mix_rules.py``; ``mix_chooser.py`` applies them to one tensor after the other.

Source: llama.cpp ``llama-quant.cpp`` (ggml 0.25.3).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..errors import UsageError
from . import mix_rules as rules
from .filetypes import AUTO, FileType
from .mix_chooser import Chooser
from .mix_facts import (
    FLOATS,
    Choice,
    MixOptions,
    ModelFacts,
    TensorFacts,
    parse_tensor_rule,
    parse_tensor_rules,
)
from .mix_order import pruned_names, traversal_order

__all__ = [
    "Choice",
    "MixOptions",
    "ModelFacts",
    "TensorFacts",
    "assign_types",
    "parse_tensor_rule",
    "parse_tensor_rules",
    "pruned_names",
    "traversal_order",
]

IMATRIX_HINT = (
    "make one with `llama-imatrix -m MODEL.gguf -f calibration.txt -o imatrix.gguf`, "
    "then run this again with `--imatrix imatrix.gguf`"
)


def assign_types(
    tensors: Sequence[TensorFacts],
    model: ModelFacts,
    filetype: FileType,
    options: MixOptions = MixOptions(),  # noqa: B008 - immutable
    imatrix_names: Collection[str] | None = None,
) -> list[Choice]:
    """The type of every tensor, in the order the output holds them.

    Parameters
    ----------
    tensors : all tensors of the input
    imatrix_names : input names with importance weights; None when there is no importance matrix at all

    Raises
    ------
    UsageError : importance weights are missing, a quantized tensor would be quantized again without
        ``allow_requantize``, or a type that was asked for does not fit the columns
    BadInput : a tensor's type or block number makes no sense
    """
    if filetype is AUTO:
        raise UsageError("the type auto follows from a checkpoint's own types; name a file type here")
    by_name = {t.name: t for t in tensors}
    sources = traversal_order(by_name)
    renamed, _ = pruned_names(sources, options.prune_layers)
    kept = [TensorFacts(name, by_name[source].shape, by_name[source].source_type) for source, name in renamed.items()]
    chooser = Chooser(model, filetype, options, kept, imatrix_names is not None)
    choices = [Choice(t.name, *chooser.choose(t), source) for source, t in zip(renamed, kept, strict=True)]
    stored = {t.name: t.source_type for t in kept}
    changed = [c for c in choices if c.type.name != stored[c.name]]
    if not options.allow_requantize:
        _refuse_requantizing(changed, stored)
    _refuse_without_imatrix(changed, filetype, imatrix_names)
    return choices


def _and_more(choices: Sequence[Choice]) -> str:
    return f"{choices[0].source} (and {len(choices) - 1} more)" if len(choices) > 1 else choices[0].source


def _refuse_requantizing(changed: Sequence[Choice], stored: dict[str, str]) -> None:
    found = [c for c in changed if stored[c.name] not in FLOATS]
    if found:
        raise UsageError(
            f"{_and_more(found)} is already quantized ({stored[found[0].name]}) and would be quantized again "
            f"to {found[0].type.name}, which loses more than quantizing the original",
            "start from an F32, F16 or BF16 model, or accept the loss with --allow-requantize",
        )


def _refuse_without_imatrix(changed: Sequence[Choice], filetype: FileType, names: Collection[str] | None) -> None:
    bare = [c for c in changed if names is None or c.source not in names]
    needed = rules.NEEDS_IMATRIX | ({"Q2_K"} if filetype.name == "Q2_K_S" else set())
    found = [c for c in bare if c.type.name in needed and c.name not in rules.UNCALIBRATED]
    if found and names is None:
        raise UsageError(
            f"{filetype.name} needs an importance matrix: {_and_more(found)} becomes {found[0].type.name}",
            IMATRIX_HINT,
        )
    if found:
        raise UsageError(
            f"the importance matrix has no entry for {_and_more(found)}, which {found[0].type.name} needs",
            IMATRIX_HINT,
        )
    # These names are exempt from the demand above, but their quantizer has no way to work without weights either.
    found = [c for c in bare if c.type.name in rules.CANNOT_DO_WITHOUT]
    if found:
        flag = "--output-tensor-type" if found[0].name == "output.weight" else "--token-embedding-type"
        raise UsageError(
            f"{found[0].source} cannot be {found[0].type.name} ({found[0].reason}): "
            "there are no importance weights for it",
            f"give it another type, for example {flag} Q4_K",
        )
