"""An importance matrix that fits a model in part, or not at all, and types that runtimes fix, on both ways to a file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from streamconv import conversion, models
from streamconv.conversion import Options
from streamconv.errors import BadInput
from streamconv.metadata import Metadata
from streamconv.sources import open_checkpoint

TYPE = "Q4_0"
FIXED = {"mm.input_projection.weight": "F16", "v.patch_embd.weight": "F32", "v.position_embd.weight": "F32"}


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    return data / "checkpoints" / "qwen3-tied" / "hf"


def planned(source: Path, tmp_path: Path, **options: object) -> tuple[dict[str, str], str]:
    """Type of every tensor, and the notes."""
    pre = {} if source.suffix == ".gguf" else {"pre": "qwen2"}
    prepared = conversion.prepare(source, tmp_path / "x.gguf", Options(**{"type": TYPE, **pre, **options}))  # type: ignore[arg-type]
    return {t.name: t.encoding.type.name for t in prepared.outputs[0].tensors}, "\n".join(prepared.warnings)


def matrices(model: Path, tmp_path: Path) -> dict[str, int]:
    """Columns of the tensors that are quantized and that llama-imatrix measures."""
    prepared = conversion.prepare(model, tmp_path / "x.gguf", Options(type=TYPE, pre="qwen2"))
    tensors = prepared.outputs[0].tensors
    return {t.name: t.item.n_cols for t in tensors if t.encoding.type.block_size > 1 and t.name.startswith("blk")}


def written(path: Path, entries: dict[str, int]) -> tuple[Path]:
    raw = [
        struct.pack("<i", len(n)) + n.encode() + struct.pack("<ii", 1, cols) + np.ones(cols, "<f4").tobytes()
        for n, cols in entries.items()
    ]
    path.write_bytes(struct.pack("<i", len(entries)) + b"".join(raw))
    return (path,)


def test_a_matrix_that_names_every_tensor_is_not_worth_a_word(model: Path, tmp_path: Path) -> None:
    whole = matrices(model, tmp_path)
    _, notes = planned(model, tmp_path, imatrix=written(tmp_path / "i.dat", whole))
    assert "importance" not in notes
    _, notes = planned(model, tmp_path, imatrix=written(tmp_path / "i.dat", {**whole, "output.weight": 64}))
    assert "importance" not in notes


def test_tensors_without_an_entry_are_counted(model: Path, tmp_path: Path) -> None:
    whole = matrices(model, tmp_path)
    part = {n: cols for n, cols in whole.items() if "ffn_up" not in n}
    lacking = len(whole) - len(part)
    _, notes = planned(model, tmp_path, imatrix=written(tmp_path / "i.dat", part))
    assert f"{lacking} of {len(whole)} quantized matrices have no entry in the importance matrix, such as blk." in notes


def test_entries_that_are_left_out_on_purpose_are_not_counted_as_lacking(model: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "i.dat", matrices(model, tmp_path))
    _, notes = planned(model, tmp_path, imatrix=path, exclude_weights=("ffn_up",))
    assert "importance" not in notes
    _, notes = planned(model, tmp_path, imatrix=path, exclude_weights=("blk",))
    assert "the importance matrix has no effect" in notes
    _, notes = planned(model, tmp_path, imatrix=path, type="F16")
    assert "the importance matrix has no effect" in notes


def test_entries_of_another_models_tensors_are_counted(model: Path, tmp_path: Path) -> None:
    whole = matrices(model, tmp_path)
    _, notes = planned(model, tmp_path, imatrix=written(tmp_path / "i.dat", {**whole, "blk.77.attn_q.weight": 8}))
    assert f"1 of {len(whole) + 1} entries match no tensor of this model, such as blk.77.attn_q.weight" in notes


@pytest.mark.parametrize("type_", [TYPE, "F16", "Q8_0"])
def test_a_matrix_that_fits_nothing_is_refused(model: Path, tmp_path: Path, type_: str) -> None:
    path = written(tmp_path / "i.dat", {"model.layers.0.mlp.up_proj.weight": 8, "transformer.h.0.attn": 8})
    with pytest.raises(
        BadInput, match=r"i\.dat: no entry of the importance matrix matches a tensor of this model"
    ) as e:
        planned(model, tmp_path, imatrix=path, type=type_)
    assert "'model.layers.0.mlp.up_proj.weight'" in e.value.message


@pytest.fixture
def projector(tmp_path: Path) -> Path:
    """A projector file of Gemma 3, and a matrix of its tower."""
    writer = GGUFWriter(tmp_path / "mmproj.gguf", "clip")
    writer.add_string("clip.projector_type", "gemma3")
    for name, shape, kind in (
        ("mm.input_projection.weight", (32, 32), np.float16), ("v.patch_embd.weight", (8, 3, 4, 4), np.float32),
        ("v.position_embd.weight", (32, 32), np.float32), ("v.blk.0.attn_q.weight", (32, 32), np.float16),
    ):  # fmt: skip
        writer.add_tensor(name, np.ones(shape, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "mmproj.gguf"


@pytest.mark.parametrize("type_", ["Q8_0", "F16", "F32", "BF16", "Q4_0"])
def test_what_runtimes_fix_of_a_projector_stays_so_from_file_to_file(
    projector: Path, tmp_path: Path, type_: str
) -> None:
    types, _ = planned(projector, tmp_path, type=type_)
    assert types.pop("v.blk.0.attn_q.weight") == type_
    assert types == FIXED
    _, notes = planned(projector, tmp_path, type=type_, tensor_types=("input_projection=Q8_0",))
    assert "--tensor-type input_projection=Q8_0: other options decide the types of the tensors that it matches" in notes


def test_a_projector_that_is_copied_keeps_its_types(projector: Path, tmp_path: Path) -> None:
    types, _ = planned(projector, tmp_path, type="auto", copy=True)
    assert types == {name: rows.dtype for name, rows in open_checkpoint(projector).tensors.items()}
    assert types == {**FIXED, "v.blk.0.attn_q.weight": "F16"}


def test_types_are_fixed_in_projectors_only_and_in_each_its_own() -> None:
    projector, model = Metadata(), Metadata()
    for metadata, architecture in ((projector, "clip"), (model, "llama")):
        metadata.string("general.architecture", architecture)
        metadata.string("clip.projector_type", "gemma3")
    assert models.fixed_type(projector, "mm.input_projection.weight") == "F16"
    assert models.fixed_type(projector, "v.blk.0.attn_q.weight") is None
    assert models.fixed_type(model, "mm.input_projection.weight") is None
    projector.string("clip.projector_type", "pixtral")
    assert models.fixed_type(projector, "mm.input_projection.weight") is None
