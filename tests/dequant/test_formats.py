"""Formats are found by themselves, in any order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_files import write_safetensors

import streamconv
from streamconv import dequant
from streamconv.dequant import formats
from streamconv.errors import BadInput
from streamconv.sources import open_checkpoint

DATA = Path(__file__).resolve().parent.parent / "data" / "dequant"
CASES = json.loads((DATA / "cases.json").read_text())


def test_every_module_of_the_folder_is_a_format() -> None:
    modules = [p.stem for p in Path(formats.__path__[0]).glob("[!_]*.py")]
    assert sorted(form.find.__module__.rpartition(".")[2] for form in formats.FORMATS) == sorted(modules)


def test_the_order_of_formats_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[tuple[list[str], str]]:
        stored = open_checkpoint(DATA / "encodings.safetensors")
        decoded = [dequant.decoded(stored, case["quantization_config"], lenient=True).tensors for case in CASES]
        return [(sorted(d), repr(d[case["name"]])) for d, case in zip(decoded, CASES, strict=True)]

    forward = found()
    monkeypatch.setattr(formats, "FORMATS", formats.FORMATS[::-1])
    assert found() == forward


def test_a_method_no_format_names_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {"w.weight": ("F32", np.ones((2, 2), np.float32))})
    with pytest.raises(BadInput, match="stored as 'nothing', which cannot be decoded") as caught:
        streamconv.open(path, {"quant_method": "nothing"})
    for form in formats.FORMATS:
        assert all(method in caught.value.hint for method in form.methods)


@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("w.absmax", ""), ("w.qzeros", ""), ("w.weight_scale_inv", ""),
        ("w.weight_scale", "fp8"), ("w.weight_zero_point", "compressed-tensors"), ("w.weight_scale_2", "modelopt"),
    ],
)  # fmt: skip
def test_a_part_of_nothing_is_refused(tmp_path: Path, part: str, method: str) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {part: ("F32", np.ones(2, np.float32))})
    with pytest.raises(BadInput, match="is part of"):
        dequant.decoded(open_checkpoint(path), {"quant_method": method} if method else None)


@pytest.mark.parametrize(("part", "method"), [
    ("w.scales", "mlx"), ("w.biases", "mlx"), ("w.weight_scale_inv", ""), ("w.weight.absmax", ""), ("w.qzeros", ""),
])  # fmt: skip
@pytest.mark.parametrize(("dtype", "words", "is_plain"), [
    ("F16", np.ones((2, 4), np.float16), True), ("U8", np.ones((2, 4), np.uint8), False), ("", None, False),
])  # fmt: skip
def test_a_part_that_is_left_beside_a_plain_weight_is_told_from_a_lost_weight(
    tmp_path: Path, part: str, method: str, dtype: str, words: Any, is_plain: bool
) -> None:
    tensors = {part: ("F32", np.ones((2, 1), np.float32)), **({"w.weight": (dtype, words)} if dtype else {})}
    path = write_safetensors(tmp_path / "x.safetensors", tensors)
    with pytest.raises(BadInput) as raised:
        dequant.decoded(open_checkpoint(path), {"quant_method": method} if method else None)
    assert ("'w.weight' is plain F16" in raised.value.hint) == is_plain


def test_an_ending_that_plain_models_have_too_is_nothing_to_refuse(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {"w.weight_scale": ("F32", np.ones(2, np.float32))})
    plain = open_checkpoint(path)
    assert dequant.decoded(plain) is plain


def test_scales_of_mxfp4_without_blocks_are_told(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {"w_scales": ("U8", np.ones((2, 4), np.uint8))})
    with pytest.raises(BadInput, match="'w_scales' has no matching _blocks tensor"):
        dequant.decoded(open_checkpoint(path), {"quant_method": "mxfp4"})
