"""The recorded decisions of llama-quantize in ``data/mixes``, as objects."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamconv.errors import UsageError
from streamconv.quant.filetypes import COPY, parse_file_type, parse_tensor_type
from streamconv.quant.mix import assign_types
from streamconv.quant.mix_facts import Choice, MixOptions, ModelFacts, TensorFacts


@dataclass(frozen=True)
class Case:
    filetype: str
    imatrix: bool
    options: dict[str, Any]
    #: tensor types in file order, None where the reference refuses or dies
    types: list[str] | None


@dataclass(frozen=True)
class Model:
    name: str
    facts: ModelFacts
    tensors: list[TensorFacts]
    imatrix_names: set[str]
    cases: list[Case]

    def choices(self, case: Case) -> list[Choice]:
        names = {n for n in self.imatrix_names if case.options.get("imatrix_drop", "\0") not in n}
        return assign_types(
            self.as_q8_0() if "source" in case.options else self.tensors,
            self.facts,
            COPY if case.options.get("copy") else parse_file_type(case.filetype),
            mix_options(case.options),
            names if case.imatrix else None,
        )

    def as_q8_0(self) -> list[TensorFacts]:
        types = {c.name: c.type.name for c in assign_types(self.tensors, self.facts, parse_file_type("Q8_0"))}
        return [replace(t, source_type=types[t.name]) for t in self.tensors]

    def disagreements(self, cases: Collection[Case]) -> Iterator[str]:
        """One line per case that is decided otherwise than recorded."""
        for case in cases:
            label = f"{case.filetype}{' imatrix' if case.imatrix else ''} {case.options or ''}"
            try:
                choices = self.choices(case)
            except UsageError as e:
                if case.types is not None:
                    yield f"{label}: refused, {e.message}"
                continue
            if case.types is None:
                yield f"{label}: accepted"
                continue
            wrong = [(c, t) for c, t in zip(choices, case.types, strict=True) if c.type.name != t]
            if wrong:
                c, t = wrong[0]
                yield f"{label}: {len(wrong)} differ, {c.name} is {c.type.name} ({c.reason}), should be {t}"


def mix_options(options: dict[str, Any]) -> MixOptions:
    def kind(key: str) -> Any:
        return parse_tensor_type(options[key]) if key in options else None

    return MixOptions(
        pure=options.get("pure", False),
        leave_output_tensor=options.get("leave_output", False),
        output_tensor_type=kind("output_type"),
        token_embedding_type=kind("token_type"),
        tensor_types=tuple((p, parse_tensor_type(t)) for p, t in options.get("tensor_types", [])),
        prune_layers=tuple(options.get("prune", [])),
        allow_requantize=options.get("allow_requantize", False),
    )


def recorded_models(data: Path) -> dict[str, Model]:
    stored = json.loads((data / "mixes" / "mixes.json").read_text())
    return {m["name"]: _model(m, stored["letters"]) for m in stored["models"]}


def _model(m: dict[str, Any], letters: dict[str, str]) -> Model:
    tensors = [TensorFacts(n, tuple(s), t) for n, s, t in m["outside"]]
    for group in m["inside"]:
        for block in range(*group["blocks"]):
            tensors += [TensorFacts(f"blk.{block}.{n}", tuple(s), t) for n, s, t in group["tensors"]]
    facts = ModelFacts(m["architecture"], m["n_layer"], m["n_head"], m["n_head_kv"], m["n_expert"])
    covered = {t.name for t in tensors if len(t.shape) > 1} - set(m["without_imatrix"])
    cases = [
        Case(filetype, bool(imatrix), options, None if types is None else [letters[c] for c in types])
        for filetype, imatrix, options, types in m["cases"]
    ]
    return Model(m["name"], facts, tensors, covered, cases)
