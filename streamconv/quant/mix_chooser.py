"""The decision for one tensor after the other, in the order of the file.

Source: llama.cpp ``llama-quant.cpp`` ``llama_tensor_get_type`` (ggml 0.25.3).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import BadInput, UsageError
from . import mix_rules as rules
from .filetypes import COPY, FileType
from .mix_facts import FLOATS, MixOptions, ModelFacts, TensorFacts, compiled
from .mix_order import block_number
from .mix_rules import Kind, Place, When
from .types import TYPES, TensorType


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

    def choose(self, t: TensorFacts) -> tuple[TensorType, str]:
        """Type and reason of the next tensor."""
        stored = TYPES.get(t.source_type)
        if stored is None:
            raise BadInput(f"{t.name} has type {t.source_type}, which a GGUF file cannot hold")
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
        if t.n_cols % wanted.block_size == 0:
            return wanted, reason
        if wanted.name not in rules.FALLBACK and wanted.block_size != 32:
            raise UsageError(
                f"{t.name} has {t.n_cols} columns, {wanted.name} needs a multiple of {wanted.block_size} "
                f"and has no substitute",
                f"choose another --type, or give it a type of its own: --tensor-type {re.escape(t.name)}=F16",
            )
        found = TYPES[rules.FALLBACK.get(wanted.name, wanted.name)]
        if t.n_cols % found.block_size:
            found = TYPES["F16"]
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
