"""Every encoding, bit for bit, in any slices."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_files import nf4, write_safetensors

import streamconv
from streamconv import dequant
from streamconv.errors import BadInput
from streamconv.quant.encode import EncodedRows, Encoding
from streamconv.quant.types import TYPES
from streamconv.rows import matrix_shape
from streamconv.sources import open_checkpoint

DATA = Path(__file__).resolve().parent.parent / "data" / "dequant"
CASES = {case["name"]: case for case in json.loads((DATA / "cases.json").read_text())}


def opened(case: dict[str, Any], io: str = "mmap") -> Any:
    stored = open_checkpoint(DATA / "encodings.safetensors", io)  # type: ignore[arg-type]
    return dequant.decoded(stored, case["quantization_config"], lenient=True).tensors[case["name"]]


def in_slices(rows: Any, step: int) -> np.ndarray:
    n = matrix_shape(rows.shape)[0]
    parts = [rows.read(a, min(a + step, n)) for a in range(0, n, step)]
    return np.concatenate(parts).reshape(rows.shape)


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_library_that_wrote_them(name: str) -> None:
    case = CASES[name]
    for io in ("mmap", "pread"):
        rows = opened(case, io)
        assert list(rows.shape) == case["shape"]
        assert rows.dtype == case["dtype"]
        assert rows.encoding
        x = in_slices(rows, max(1, matrix_shape(rows.shape)[0])) + np.float32(0)  # the sign of zero is free
        assert hashlib.sha256(x.tobytes()).hexdigest() == case["sha256"]


@given(name=st.sampled_from(sorted(CASES)), data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_slice_is_that_part_of_the_whole(name: str, data: st.DataObject) -> None:
    rows = opened(CASES[name])
    n, n_cols = matrix_shape(rows.shape)
    whole = rows.read(0, n)
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    out = np.full((stop - start, n_cols + 3), np.nan, np.float32)[:, :n_cols]
    assert rows.read(start, stop, out) is out
    assert np.array_equal(out, whole[start:stop], equal_nan=True)
    rows.prefetch(start, stop)
    rows.release(start, stop)
    assert np.array_equal(rows.read(start, stop), whole[start:stop], equal_nan=True)
    assert rows.stored(start, stop) is None


@pytest.mark.parametrize("block", [32, 64, 4096])
@pytest.mark.parametrize("shape", [(1,), (7,), (5, 63), (33, 130), (2, 3, 35)])
def test_blocks_run_across_rows_and_end_anywhere(tmp_path: Path, shape: tuple[int, ...], block: int) -> None:
    parts, values = nf4("w.weight", shape, np.random.default_rng(1), block)
    rows = streamconv.open(write_safetensors(tmp_path / "x.safetensors", parts))["w.weight"]
    for step in (1, 2, 1000):
        assert np.array_equal(in_slices(rows, step), values)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_packed_codes_may_be_labelled_as_any_type(tmp_path: Path, dtype: str) -> None:
    parts, values = nf4("w.weight", (16, 64), np.random.default_rng(2))
    packed = parts["w.weight"][1].reshape(-1)
    parts["w.weight"] = dtype, packed.view({"F16": "<f2", "BF16": "<u2", "F32": "<f4"}[dtype]).reshape(-1, 1)
    rows = streamconv.open(write_safetensors(tmp_path / "x.safetensors", parts))["w.weight"]
    assert np.array_equal(in_slices(rows, 5), values)


def test_a_matrix_stored_by_columns_is_read_in_slabs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamconv.dequant import stream_rows

    n_rows, n_cols, groups = 160, 64, 2
    rng = np.random.default_rng(3)
    q = rng.integers(0, 16, (n_cols, n_rows))
    z = rng.integers(1, 16, (groups, n_rows))
    scales = rng.uniform(0.1, 1, (groups, n_rows)).astype(np.float16)

    def packed(codes: np.ndarray, axis: int) -> np.ndarray:
        c = np.moveaxis(codes, axis, -1).astype(np.uint32)
        c = c.reshape(*c.shape[:-1], -1, 8) << (4 * np.arange(8, dtype=np.uint32))
        return np.moveaxis(np.bitwise_or.reduce(c, axis=-1), -1, axis).astype("<u4").copy()

    path = write_safetensors(tmp_path / "x.safetensors", {
        "w.qweight": ("I32", packed(q, 0)), "w.qzeros": ("I32", packed(z - 1, 1)), "w.scales": ("F16", scales),
    })  # fmt: skip
    rows = streamconv.open(path, {"quant_method": "gptq", "bits": 4, "group_size": 32})["w.weight"]
    group = np.arange(n_cols) // 32
    want = ((q - z[group]).astype(np.float32) * scales[group].astype(np.float32)).T
    monkeypatch.setattr(stream_rows, "SLAB_BYTES", 1)
    for step in (1, 7, 33, 160):  # slabs of 32 rows, slices across them
        assert np.array_equal(in_slices(rows, step), want)


def test_mxfp4_becomes_gguf_blocks_without_loss() -> None:
    rows = opened(CASES["mxfp4.model.layers.0.mlp.experts.down_proj"])
    item = EncodedRows("x", rows, [Encoding(rows, TYPES["MXFP4"])])
    assert item.parts[0].copies
    n = item.n_rows
    out = np.empty((n, item.row_bytes[0]), np.uint8)
    item.fill(0, n, [out], np.empty(4 * item.n_cols, np.float32))
    blocks = out.reshape(-1, 17)
    e2m1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    scale = np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 127)
    x = np.concatenate([e2m1[blocks[:, 1:] & 15], e2m1[blocks[:, 1:] >> 4]], axis=1) * scale
    assert np.array_equal(x.reshape(n, -1), rows.read(0, n))
    assert rows.native("Q4_K", 0, 1) is None
    assert not Encoding(rows, TYPES["Q8_0"]).copies


def test_experts_are_saved_the_way_round_transformers_has_them() -> None:
    rows = opened(CASES["mxfp4.model.layers.0.mlp.experts.down_proj"])
    turned = rows.as_saved()
    want = in_slices(rows, 1000).swapaxes(1, 2)
    assert turned.shape == want.shape
    for step in (1, 5, 32, 100):
        assert np.array_equal(in_slices(turned, step), want)


def test_older_packing_of_three_bits_is_told_from_the_newer(tmp_path: Path) -> None:
    """100 codes of 3 bits fill 10 words in both layouts; only in the newer one are the top bits of words in use."""
    rng = np.random.default_rng(4)
    q = rng.integers(0, 8, (24, 100)).astype(np.uint64)
    scale = rng.uniform(0.1, 1, (24, 1)).astype(np.float32)
    want = (q.astype(np.float32) - 4) * scale
    older = np.bitwise_or.reduce(q.reshape(24, 10, 10) << (3 * np.arange(10, dtype=np.uint64)), axis=2)
    bits = (q[:, :, None] >> np.arange(3, dtype=np.uint64) & np.uint64(1)).astype(np.uint8).reshape(24, 300)
    newer = np.packbits(np.pad(bits, ((0, 0), (0, 20))), axis=1, bitorder="little").view("<u4")
    for words in (older.astype("<u4"), newer):
        path = write_safetensors(tmp_path / "x.safetensors", {
            "w.weight_packed": ("I32", words), "w.weight_scale": ("F32", scale),
            "w.weight_shape": ("I64", np.array([24, 100])),
        })  # fmt: skip
        config = {
            "quant_method": "compressed-tensors",
            "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 3}}},
        }
        assert np.array_equal(in_slices(streamconv.open(path, config)["w.weight"], 7), want)


def test_all_of_the_reference_is_decoded_bit_for_bit(reference: Path) -> None:
    root = reference / "golden" / "sources"
    wrong = []
    for path in sorted(root.glob("*.cases.json")):
        stem = path.name.removesuffix(".cases.json")
        if not (root / f"{stem}.safetensors").exists():
            continue  # GGUF files are another test's
        want = open_checkpoint(root / f"{stem}.expected.safetensors").tensors
        found = json.loads(path.read_text())
        for case in found["cases"] if isinstance(found, dict) else found:
            config = case.get("quantization_config")
            if stem == "compressed_tensors":
                group = {"targets": ["Linear"], "weights": case["weights"]}
                config = {"quant_method": "compressed-tensors", "format": case["format"], "config_groups": {"g": group}}
            if stem == "hqq":
                facts = ("nbits", "axis", "group_size", "shape", "compute_dtype")
                config = {"quant_method": "hqq", **{key: case[key] for key in facts if key in case}}
            tensors = streamconv.open(root / f"{stem}.safetensors", config)
            for name in want:
                of_case = name == case["name"] or name.startswith(f"{case['name']}.")
                if of_case and not name.endswith((".bf16", ".fp16", ".f32")):
                    n = matrix_shape(want[name].shape)[0]
                    if not np.array_equal(in_slices(tensors[name], 7), want[name].read(0, n).reshape(want[name].shape)):
                        wrong.append(f"{stem} {name}")
    assert not wrong


@pytest.mark.parametrize("type_", ["TQ1_0", "TQ2_0"])
def test_ternary_weights_become_ternary_blocks_without_loss(tmp_path: Path, type_: str) -> None:
    rng = np.random.default_rng(5)
    q = rng.integers(-1, 2, (8, 512))
    codes = (q + 1).astype(np.uint8).reshape(4, 2, 512)
    path = write_safetensors(tmp_path / "x.safetensors", {
        "w.weight": ("U8", codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6),
        "w.weight_scale": ("F32", np.array([4.0], "<f4")),
    })  # fmt: skip
    rows = streamconv.open(path, {"quant_method": "bitnet"})["w.weight"]
    item = EncodedRows("x", rows, [Encoding(rows, TYPES[type_])])
    out = np.empty((8, item.row_bytes[0]), np.uint8)
    item.fill(0, 8, [out], np.empty(8 * 512, np.float32))
    assert np.array_equal(streamconv.dequantize(out, type_, 512), q / np.float32(4))


def test_a_code_that_is_no_ternary_weight_is_refused(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {
        "w.weight": ("U8", np.full((1, 4), 0b00001100, np.uint8)), "w.weight_scale": ("F32", np.ones(1, np.float32)),
    })  # fmt: skip
    rows = streamconv.open(path, {"quant_method": "bitnet"})["w.weight"]
    with pytest.raises(BadInput, match=r"w\.weight.*not one of the three"):
        rows.read(0, 4)


def sparse(**change: Any) -> dict[str, tuple[str, np.ndarray]]:
    parts = {
        "w.bitmask": ("U8", np.array([[0b0011], [0b1010]], np.uint8)), "w.compressed": ("F32", np.ones((2, 2), np.float32)),
        "w.shape": ("I64", np.array([[2], [4]], "<i8")),
    }  # fmt: skip
    return {
        name: part for name, part in {**parts, **{f"w.{key}": part for key, part in change.items()}}.items() if part
    }


def test_a_mask_that_keeps_more_than_half_is_refused(tmp_path: Path) -> None:
    mask = "U8", np.array([[0b0011], [0b1011]], np.uint8)
    rows = streamconv.open(write_safetensors(tmp_path / "x.safetensors", sparse(bitmask=mask)))["w.weight"]
    assert rows.read(0, 1).tolist() == [[1, 1, 0, 0]]
    with pytest.raises(BadInput, match=r"w\.bitmask.*row 1 does not keep half"):
        rows.read(0, 2)


@pytest.mark.parametrize(("change", "named"), [
    ({"shape": None}, "w.shape"), ({"row_offsets": ("I64", np.ones(2, "<i8"))}, "sparse-bitmask"),
    ({"compressed": ("F32", np.ones((2, 3), np.float32))}, "w.compressed"), ({"compressed": None}, "w.bitmask"),
    ({"compressed": ("I8", np.ones((2, 2), np.int8))}, "w.weight_scale"),
])  # fmt: skip
def test_parts_of_a_sparse_matrix_that_do_not_fit_are_named(tmp_path: Path, change: Any, named: str) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", sparse(**change))
    with pytest.raises(BadInput, match=named):
        dequant.decoded(open_checkpoint(path), {"quant_method": "compressed-tensors"})


def gptq(
    module: str, bits: int, shift: int, rng: np.random.Generator
) -> tuple[dict[str, tuple[str, np.ndarray]], np.ndarray]:
    """A matrix of 32 outputs and 64 inputs in groups of 32, its zero points stored less ``shift``; and its values."""
    q, z = rng.integers(0, 1 << bits, (64, 32)), rng.integers(shift, 1 << bits, (2, 32))
    scales, per = rng.uniform(0.1, 1, (2, 32)).astype(np.float16), 32 // bits

    def words(x: np.ndarray) -> np.ndarray:
        return np.bitwise_or.reduce(
            x.astype(np.uint32).reshape(-1, per, x.shape[1]) << (bits * np.arange(per, dtype=np.uint32))[:, None],
            axis=1,
        )

    parts = {
        f"{module}.qweight": ("I32", words(q)), f"{module}.qzeros": ("I32", words((z - shift).T).T.copy()),
        f"{module}.scales": ("F16", scales),
    }  # fmt: skip
    group = np.arange(64) // 32
    return parts, ((q - z[group]).astype(np.float32) * scales[group].astype(np.float32)).T


@pytest.mark.parametrize(("packing", "shift"), [
    ("auto_round:auto_gptq", 1), ("auto_gptq", 1), ("auto_round:gptq:exllamav2", 1), ("auto_round", 0), ("auto_round:gptqmodel", 0),
    ("auto_round:exllamav2", 0),
])  # fmt: skip
def test_modules_of_autoround_have_the_bits_that_are_said_of_them(tmp_path: Path, packing: str, shift: int) -> None:
    rng, parts, want = np.random.default_rng(7), {}, {}
    for module, bits in (("h.0.a", 4), ("h.1.a", 8), ("h.0.b", 2), ("h.1.b", 2)):
        made, want[f"{module}.weight"] = gptq(module, bits, shift, rng)
        parts |= made
    extra = {"h.1.a": {"bits": 8}, r".*\.b$": {"bits": 2, "act_bits": 16}, "head": {"bits": 16}}
    config = {
        "quant_method": "auto-round",
        "packing_format": packing,
        "bits": 4,
        "group_size": 32,
        "extra_config": extra,
    }
    path = write_safetensors(tmp_path / "x.safetensors", parts)
    found = dequant.decoded(open_checkpoint(path), config).tensors
    assert set(found) == set(want)
    for name, values in want.items():
        assert np.array_equal(in_slices(found[name], 7), values), name


def test_modules_of_autoround_in_the_layout_of_awq_have_four_bits(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {"w.qweight": ("I32", np.ones((64, 4), "<i4"))})
    config = {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "extra_config": {"w": {"bits": 2}}}
    with pytest.raises(BadInput, match=r"AWQ weights of '2' bits .'w'."):
        dequant.decoded(open_checkpoint(path), config)


def test_a_section_without_a_method_is_told_by_its_keys(tmp_path: Path) -> None:
    parts, want = gptq("w", 4, 1, np.random.default_rng(8))
    path = write_safetensors(tmp_path / "x.safetensors", parts)
    found = dequant.decoded(
        open_checkpoint(path), {"bits": 4, "group_size": 32, "desc_act": False, "damp_percent": 0.1}
    )
    assert np.array_equal(in_slices(found.tensors["w.weight"], 32), want)
