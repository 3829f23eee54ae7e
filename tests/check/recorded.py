"""Recorded conversions as GGUF files: the header with names, sizes and types as they were, the data a hole."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gguf_edit import text_bytes, value_bytes

from streamconv.metadata import Metadata, Value
from streamconv.quant.types import TYPES, TensorType
from streamconv.rows import matrix_shape

STORED = Path(__file__).resolve().parents[1] / "data" / "check" / "verdicts.json"
_ALIGNMENT = 32


@dataclass(frozen=True)
class Info:
    """A tensor that is to be: shape (slowest dimension first) and type."""

    shape: tuple[int, ...]
    type: TensorType

    @property
    def n_bytes(self) -> int:
        n_rows, n_cols = matrix_shape(self.shape)
        return n_rows * self.type.row_bytes(n_cols)


@dataclass(frozen=True)
class Recorded:
    """One conversion, and what the loader said to it and to the same without one thing.

    Attributes
    ----------
    keys : key -> type and value, of long arrays the length and the first items
    infos : [name, ne (fastest first), type name, ...]
    verdicts : whole, and tensors and keys by the name of what was left out: loads, refused or crash
    """

    keys: Mapping[str, Any]
    infos: list[list[Any]]
    verdicts: Mapping[str, Any]

    @cached_property
    def metadata(self) -> Metadata:
        """The keys; long arrays have their length, their items are made up."""
        return Metadata({key: _value(spec) for key, spec in self.keys.items()})

    @cached_property
    def tensors(self) -> dict[str, Info]:
        return {name: Info(tuple(reversed(ne)), TYPES[kind]) for name, ne, kind, *_ in self.infos}

    @property
    def arch(self) -> str:
        return str(self.metadata.get("general.architecture"))

    def verdicts_without(self) -> Iterator[tuple[str, str, bool]]:
        """(tensor left out, key left out, whether the loader takes the rest); first the whole model."""
        yield "", "", self.verdicts["whole"] == "loads"
        for name, said in self.verdicts.get("tensors", {}).items():
            yield name, "", said == "loads"
        for name, said in self.verdicts.get("keys", {}).items():
            yield "", name, said == "loads"

    def write(self, path: Path, tensor: str = "", key: str = "") -> Path:
        """The file, without this tensor and this key."""
        infos = {name: info for name, info in self.tensors.items() if name != tensor}
        keys = [raw for name, raw in self._key_bytes.items() if name != key]
        head, at = struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(keys)) + b"".join(keys), 0
        for name, info in infos.items():
            ne = info.shape[::-1]
            head += text_bytes(name) + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, info.type.id, at)
            at += -(-info.n_bytes // _ALIGNMENT) * _ALIGNMENT
        with path.open("wb") as file:
            file.write(head)
            file.truncate(-(-len(head) // _ALIGNMENT) * _ALIGNMENT + at)
        return path

    @cached_property
    def _key_bytes(self) -> dict[str, bytes]:
        return {key: text_bytes(key) + value_bytes(value) for key, value in self.metadata.items()}


def stored() -> dict[str, Recorded]:
    """The few cases that a fresh clone has."""
    cases = json.loads(STORED.read_text(encoding="utf-8"))
    return {name: Recorded(case["kv"], case["tensors"], case["verdicts"]) for name, case in cases.items()}


def all_cases(reference: Path) -> dict[str, Recorded]:
    """Every recorded conversion to one text model, with the verdicts there are."""
    verdicts = json.loads((reference / "golden" / "loader" / "verdicts.json").read_text())
    found = {}
    for path in sorted((reference / "golden" / "zoo").glob("*.json")):
        case = json.loads(path.read_text())
        output = case.get("outputs", {}).get("f16", {})
        if "kv" in output:
            found[path.stem] = Recorded(output["kv"], output["tensors"], _said(case, verdicts.get(path.stem)))
    return found


def _said(case: Mapping[str, Any], verdicts: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The verdicts of a case. What the record says of its own output comes first: some were mended after the verdict."""
    loads = case.get("loads") or ""
    if loads.startswith("LOADED"):
        return {"whole": "loads"} if verdicts is None or verdicts["whole"] != "loads" else verdicts
    if verdicts is None:
        alone = (
            loads and "requires ctx_other" not in loads
        )  # a draft runs beside another model only; its file may be good
        return {"whole": "refused" if alone else ""}
    return verdicts


def _value(spec: Mapping[str, Any]) -> Value:
    if spec["type"] != "ARRAY":
        return Value(spec["type"], spec["value"])
    if "values" in spec:
        return Value("ARRAY", spec["values"], spec["elem"])
    if spec["elem"] == "STRING":
        return Value("ARRAY", [f"t{i}" for i in range(spec["n"])], "STRING")
    first = spec["first"]
    return Value("ARRAY", (first + [first[-1]] * spec["n"])[: spec["n"]], spec["elem"])
