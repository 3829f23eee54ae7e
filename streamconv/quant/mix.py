"""Choose the type of every tensor of a file: the rules of ``llama-quantize``, with a reason for each choice.

Everything is decided from names, shapes and options, before a weight is read; what the reference finds out half-way, or
dies of, is refused here. Whether values are finite is not checked. The rules are data in ``mix_rules.py``.

Source: llama.cpp ``llama-quant.cpp``, ``llama_tensor_get_type`` among others (ggml 0.25.3).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import BadInput, UsageError
from . import mix_rules as rules
from .converter_types import CONVERTER_TYPES, auto_file_type, converter_types, half_type
from .filetypes import AUTO, COPY, FILE_TYPES, FileType
from .mix_facts import (
    FLOATS,
    Choice,
    MixOptions,
    ModelFacts,
    TensorFacts,
    block_number,
    compiled,
    pruned_names,
    traversal_order,
)
from .mix_rules import Kind, Place, When
from .types import TYPES, TensorType

IMATRIX_HINT = (
    "make one with `llama-imatrix -m MODEL.gguf -f calibration.txt -o imatrix.gguf`, "
    "then run this again with `--imatrix imatrix.gguf`"
)


def decides(filetype: FileType, options: MixOptions) -> bool:
    """Whether a mix has a say in the types of a checkpoint's tensors; else they are the converter's."""
    return options.decide or not (filetype is AUTO or filetype.name in CONVERTER_TYPES)


def checkpoint_types(
    tensors: Sequence[TensorFacts],
    model: ModelFacts,
    filetype: FileType,
    options: MixOptions,
    forced: Mapping[str, str],
    imatrix_names: Collection[str] | None = None,
) -> tuple[FileType, list[Choice]]:
    """The type of every tensor of a checkpoint: the converter's, or what a mix makes of it; and the file type, never ``auto``.

    Parameters
    ----------
    tensors : output names and shapes; ``source_type`` as for ``converter_types``
    forced : see there
    options, imatrix_names : see ``assign_types``

    Raises
    ------
    UsageError, BadInput : see ``assign_types``
    """
    mixed = decides(filetype, options)
    if filetype is AUTO:
        filetype = auto_file_type(tensors)
    if not mixed:
        return filetype, converter_types(tensors, filetype, forced)
    # What the mix keeps, it keeps as the converter would have written it, never quantized: it would refuse to do that again.
    plain = filetype if filetype.name in FLOATS else FILE_TYPES[half_type(tensors) or "F32"]
    # matrices of 8-bit floats are not stored in the type that a family has for them: none of theirs is quantized again
    forced = {name: kind for name, kind in forced.items() if kind != "Q8_0"}
    kept = {c.name: c.type for c in converter_types(tensors, plain, forced)}
    return filetype, assign_types(tensors, model, filetype, options, imatrix_names, kept)


def assign_types(
    tensors: Sequence[TensorFacts],
    model: ModelFacts,
    filetype: FileType,
    options: MixOptions = MixOptions(),  # noqa: B008 - immutable
    imatrix_names: Collection[str] | None = None,
    kept: Mapping[str, TensorType] | None = None,
) -> list[Choice]:
    """The type of every tensor, in the order the output holds them.

    Parameters
    ----------
    tensors : all tensors of the input
    imatrix_names : input names with importance weights; None when there is no importance matrix at all
    kept : input name -> type in which a tensor stays that no rule changes; None: that of its values

    Raises
    ------
    UsageError : importance weights are missing, a quantized tensor would be quantized again without
        ``allow_requantize``, or a type that was asked for does not fit the columns
    BadInput : a tensor's type or block number makes no sense
    """
    if filetype is AUTO:
        raise UsageError("the type auto follows from a checkpoint's own types; name a file type here")
    by_name = {t.name: t for t in tensors}
    renamed, _ = pruned_names(traversal_order(by_name), options.prune_layers)
    left = {source: replace(by_name[source], name=name) for source, name in renamed.items()}
    stored = {source: _stored(t) if kept is None else kept[source] for source, t in left.items()}
    chooser = Chooser(model, filetype, options, [*left.values()], imatrix_names is not None)
    choices = [Choice(t.name, *chooser.choose(t, stored[source]), source) for source, t in left.items()]
    changed = [c for c in choices if c.type is not stored[c.source]]
    if not options.allow_requantize:
        _refuse_requantizing(changed, stored)
    _refuse_without_imatrix(changed, filetype, imatrix_names)
    return choices


def _stored(t: TensorFacts) -> TensorType:
    found = TYPES.get(t.source_type)
    if found is None:
        raise BadInput(f"{t.name} has type {t.source_type}, which a GGUF file cannot hold")
    return found


def _and_more(choices: Sequence[Choice]) -> str:
    return f"{choices[0].source} (and {len(choices) - 1} more)" if len(choices) > 1 else choices[0].source


def _refuse_requantizing(changed: Sequence[Choice], stored: Mapping[str, TensorType]) -> None:
    found = [c for c in changed if stored[c.source].name not in FLOATS]
    if found:
        raise UsageError(
            f"{_and_more(found)} is already quantized ({stored[found[0].source].name}) and would be quantized again "
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


def fitted(wanted: TensorType, n_cols: int) -> TensorType | None:
    """``wanted``, or what takes over when ``n_cols`` columns are not whole blocks of it; None: nothing does."""
    if n_cols % wanted.block_size == 0:
        return wanted
    if wanted.name not in rules.FALLBACK and wanted.block_size != 32:
        return None
    found = TYPES[rules.FALLBACK.get(wanted.name, wanted.name)]
    return TYPES["F16"] if n_cols % found.block_size else found


@dataclass
class Chooser:
    """Walks the tensors in order; the mixes depend on how many of a kind have gone by."""

    model: ModelFacts
    filetype: FileType
    options: MixOptions
    tensors: Sequence[TensorFacts]
    imatrix: bool
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        kinds = [rules.kind_of(t.name) for t in self.tensors]
        self.n_values = sum(kind in rules.V_LIKE for kind in kinds)
        self.tied = Kind.OUTPUT not in kinds
        self.patterns = [(p, compiled(p), t) for p, t in self.options.tensor_types]

    def choose(self, t: TensorFacts, stored: TensorType) -> tuple[TensorType, str]:
        """Type and reason of the next tensor, which is ``stored`` where no rule changes it."""
        if kept := self._kept(t, stored):
            return stored, kept
        kind = rules.kind_of(t.name)
        final = self._final(t, kind)
        if final:
            return final
        for text, pattern, wanted in self.patterns:
            if pattern.search(t.name):
                return self._fitted(t, wanted, f"--tensor-type {text}={wanted.name}")
        default = self._default()
        if self.options.pure:
            return self._fitted(t, default, f"--pure {self.filetype.name}")
        name, reason = self._mixed(t, kind, default.name)
        return self._fitted(t, TYPES[name], reason)

    def _default(self) -> TensorType:
        assert self.filetype.default is not None  # COPY and auto never get here
        return self.filetype.default

    def _kept(self, t: TensorFacts, stored: TensorType) -> str:
        """Why the tensor stays as it is; empty when it may be quantized."""
        if self.filetype is COPY:
            return "copied"
        if self.options.leave_output_tensor and t.name == "output.weight":
            return "--leave-output-tensor"
        if not stored.module:
            return f"{stored.name} is never quantized"
        return rules.never_quantized(t.name, t.shape, self.model.architecture)

    def _final(self, t: TensorFacts, kind: Kind) -> tuple[TensorType, str] | None:
        """A type that neither patterns, mix nor shape may change, or None."""
        token, output, default = (
            self.options.token_embedding_type,
            self.options.output_tensor_type,
            self._default(),
        )
        if kind is Kind.TOKEN and token:
            matched = any(pattern.search(t.name) for _, pattern, _ in self.patterns)
            if t.name == "token_embd.weight" or not matched:
                return self._exact(t, token, f"--token-embedding-type {token.name}")
        if kind is Kind.OUTPUT and output:
            return self._exact(t, output, f"--output-tensor-type {output.name}")
        if default.name in FLOATS:
            return default, f"default of {self.filetype.name}"
        return None

    def _exact(self, t: TensorFacts, wanted: TensorType, reason: str) -> tuple[TensorType, str]:
        if t.n_cols % wanted.block_size:
            raise UsageError(
                f"{reason}: {t.name} has {t.n_cols} columns, {wanted.name} needs a multiple of {wanted.block_size}",
                "choose Q8_0 or F16 for it" if t.n_cols % 32 == 0 else "choose F16 for it",
            )
        return wanted, reason

    def _fitted(self, t: TensorFacts, wanted: TensorType, reason: str) -> tuple[TensorType, str]:
        """``wanted``, or what takes over when the columns are not whole blocks of it."""
        found = fitted(wanted, t.n_cols)
        if found is wanted:
            return wanted, reason
        if found is None:
            raise UsageError(
                f"{t.name} has {t.n_cols} columns, {wanted.name} needs a multiple of {wanted.block_size} "
                f"and has no substitute",
                f"choose another --type, or give it a type of its own: --tensor-type {re.escape(t.name)}=F16",
            )
        words = f"{wanted.name}: columns {t.n_cols} not a multiple of {wanted.block_size} -> {found.name}"
        return found, words

    def _mixed(self, t: TensorFacts, kind: Kind, default: str) -> tuple[str, str]:
        """Type name and reason by the mix of the file type."""
        ftype, arch = self.filetype.name, self.model.architecture
        plain = f"default of {ftype}"
        if arch == "glm5-next" and re.search(r"attn_q_[ab]|nextn\.eh_proj", t.name):
            return "Q8_0", f"always Q8_0 in {arch}"
        if kind is Kind.OUTPUT or (kind is Kind.TOKEN and self.tied):
            return self._output(t, kind, default)
        if ftype == "MXFP4_MOE":
            experts = len(t.shape) > 2 and t.shape[-3] > 1
            if experts and (arch != "bailingmoe3" or kind in rules.FFN):
                return "MXFP4", "experts"
            return "Q8_0", "not an expert"
        if kind is Kind.TOKEN:
            name = rules.TOKEN_TYPES.get(ftype)
            return (name, f"token_embd in {ftype}") if name else (default, plain)
        place = self._place(t, kind)
        table = self._table()
        found = next(
            ((name, when) for name, when in table.get(kind, {}).get(ftype, ()) if when.holds(place)),
            (default, None),
        )
        name, when = found if ftype in rules.VERY_LOW else self._more_for_few_heads(kind, *found)
        return (name, f"{kind.value}: {when.words}") if when else (default, plain)

    def _table(self) -> rules.Table:
        if self.filetype.name in rules.VERY_LOW:
            return rules.VERY_LOW_MIX
        if self.model.architecture == "falcon":
            return rules.FALCON_MIX
        return rules.EIGHT_EXPERT_MIX if self.model.n_expert == 8 else rules.MIX

    def _output(self, t: TensorFacts, kind: Kind, default: str) -> tuple[str, str]:
        """The output matrix, or the embedding where it serves as one."""
        ftype, wanted = self.filetype.name, self.options.output_tensor_type
        words = kind.value if kind is Kind.OUTPUT else "token_embd, also the output matrix"
        if wanted:
            return wanted.name, f"{words}: --output-tensor-type {wanted.name}"
        if ftype == "MXFP4_MOE" or self.model.architecture == "falcon":
            return "Q8_0", f"{words} of {self.model.architecture if ftype != 'MXFP4_MOE' else ftype}"
        if t.n_cols % TYPES[default].block_size:
            return "Q8_0", f"{words}: columns {t.n_cols} not a multiple of {TYPES[default].block_size}"
        if ftype in rules.OUTPUT_Q5_K:
            return "Q5_K", words
        return ("Q8_0", f"default of {ftype}") if default == "Q8_0" else ("Q6_K", words)

    def _more_for_few_heads(self, kind: Kind, name: str, when: When | None) -> tuple[str, When | None]:
        """Value and key matrices are small where many share them, so more bits cost little."""
        model = self.model
        if kind in rules.V_LIKE and name in ("Q3_K", "Q4_K"):
            size = (model.architecture, model.n_layer)
            shared = model.architecture != "llama" or model.n_head != model.n_head_kv
            if size in rules.SIZE_70B and shared:
                name, when = "Q5_K", When("70B model", lambda p: True)
        if model.n_expert == 8 and (kind in rules.V_LIKE or kind is Kind.K):
            name, when = "Q8_0", rules.EXPERTS_8
        return name, when

    def _place(self, t: TensorFacts, kind: Kind) -> Place:
        """Where ``t`` stands among its like; counts it."""
        model = self.model
        group = "values" if kind in rules.V_LIKE else kind.value
        index = layer = self.seen[group]
        self.seen[group] += 1
        if kind in rules.FFN and model.n_expert > 1 and self.filetype.name not in rules.VERY_LOW:
            layer = block_number(t.name)
            if not 0 <= layer < model.n_layer:
                raise BadInput(
                    f"{t.name}: the model has {model.n_layer} layers, but the name does not begin with one of them"
                )
        return Place(
            index=index,
            layer=layer,
            count=self.n_values if kind in rules.V_LIKE else model.n_layer,
            heads_per_kv=model.n_head // model.n_head_kv if model.n_head_kv else 0,
            experts=model.n_expert,
            imatrix=self.imatrix,
        )
