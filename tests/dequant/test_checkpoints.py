"""Whole checkpoints: what becomes of parts, config.json and side files, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_files import CONFIG, STATE, Tensors, blob, llama, nf4, write_safetensors

import streamconv
from streamconv import conversion, dequant
from streamconv.errors import BadInput, StreamconvError
from streamconv.inspect import describe, render
from streamconv.rows import matrix_shape
from streamconv.sources import open_checkpoint

TOKENIZER = Path(__file__).resolve().parent.parent / "data" / "tokenizers" / "gemma1"
UP = "model.layers.0.mlp.up_proj.weight"


def whole(rows: Any) -> np.ndarray:
    return np.asarray(rows.read(0, matrix_shape(rows.shape)[0])).reshape(rows.shape)


def test_parts_lie_in_any_file_and_are_gone_when_decoded(tmp_path: Path) -> None:
    folder, values = llama(tmp_path / "hf", shards=5)
    tensors = streamconv.open(folder)
    assert set(tensors) == set(values)
    for name, rows in tensors.items():
        assert rows.dtype == "BF16"
        assert np.array_equal(whole(rows), values[name]), name


def test_any_rows_of_a_double_quantized_weight_are_those_of_the_whole(tmp_path: Path) -> None:
    parts, values = nf4("w.weight", (400, 96), np.random.default_rng(3))  # 600 scales: three blocks of them
    rows = streamconv.open(write_safetensors(tmp_path / "x.safetensors", parts))["w.weight"]
    for start, stop in [(0, 400), (1, 2), (170, 171), (171, 342), (200, 400), (399, 400)]:
        assert np.array_equal(rows.read(start, stop), values[start:stop]), (start, stop)


def test_the_skip_list_decides_nothing(tmp_path: Path) -> None:
    folder, values = llama(tmp_path / "hf")
    assert "up_proj" in CONFIG["quantization_config"]["llm_int8_skip_modules"]  # type: ignore[index]
    assert np.array_equal(whole(streamconv.open(folder)[UP]), values[UP])


def test_a_plain_checkpoint_is_handed_on_as_it_is(tiny_model: Path) -> None:
    checkpoint = open_checkpoint(tiny_model)
    assert dequant.decoded(checkpoint) is checkpoint


def test_a_folder_of_bf16_is_clean(tmp_path: Path) -> None:
    folder, values = llama(tmp_path / "hf")
    (folder / "quantize_config.json").write_text("{}")
    streamconv.convert(folder, tmp_path / "out", type="BF16")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {k: v for k, v in CONFIG.items() if k != "quantization_config"}
    assert not (tmp_path / "out" / "quantize_config.json").exists()
    made = open_checkpoint(tmp_path / "out")
    assert {name: rows.dtype for name, rows in made.tensors.items()} == dict.fromkeys(values, "BF16")
    for name, rows in made.tensors.items():
        assert np.array_equal(whole(rows), values[name]), name


@pytest.mark.parametrize(("named", "type_"), [("float16", "F16"), ("float8", "F32"), (["float16"], "F32")])
def test_a_weight_without_a_type_takes_that_of_the_model(tmp_path: Path, named: object, type_: str) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", {
        "w.weight": ("I8", np.ones((2, 4), np.int8)), "w.SCB": ("F32", np.ones(2, np.float32)),
    })  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": named}))
    streamconv.convert(folder, tmp_path / "auto")
    streamconv.convert(folder, tmp_path / "wide", type="F32")
    types = [open_checkpoint(tmp_path / name).tensors["w.weight"].dtype for name in ("auto", "wide")]
    assert types == [type_, "F32"]


def add_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (folder / name).write_bytes((TOKENIZER / name).read_bytes())


def test_one_pass_to_gguf_gives_the_bytes_of_two(tmp_path: Path) -> None:
    folder, _ = llama(tmp_path / "hf")
    add_tokenizer(folder)
    streamconv.convert(folder, tmp_path / "clean", type="BF16")
    for source, out in ((folder, "one"), (tmp_path / "clean", "two")):
        streamconv.convert(source, tmp_path / f"{out}.gguf", type="Q8_0", model_name="x")
    one, two = (open_checkpoint(tmp_path / f"{out}.gguf") for out in ("one", "two"))
    assert set(one.tensors) == set(two.tensors)
    for name in one.tensors:
        a, b = one.tensors[name], two.tensors[name]
        n = matrix_shape(a.shape)[0]
        assert a.dtype == b.dtype
        assert np.array_equal(np.asarray(a.stored(0, n)), np.asarray(b.stored(0, n))), name


def test_quantizing_again_is_told_and_measured(tmp_path: Path) -> None:
    folder, _ = llama(tmp_path / "hf")
    add_tokenizer(folder)
    options = conversion.Options(type="Q8_0", measure=True)
    prepared = conversion.prepare(folder, tmp_path / "x.gguf", options)
    (note,) = [text for text in prepared.warnings if "quantizing them again" in text]
    assert note.startswith("7 tensors are stored as bnb-nf4 (double-quantized, block 64)")
    from streamconv.progress import Silent

    outcome = conversion.execute(prepared, options, Silent())
    assert outcome is not None
    (line,) = conversion.measured(prepared, outcome)
    assert "added an RMSE of" in line
    plain = conversion.Options(type="BF16")
    assert not conversion.prepare(folder, tmp_path / "y.gguf", plain).warnings


def test_inspect_shows_what_weights_are_stored_as(tmp_path: Path) -> None:
    folder, _ = llama(tmp_path / "hf")
    facts = describe(open_checkpoint(folder))
    (up,) = [t for t in facts["tensors"] if t["name"] == UP]
    assert up["encoding"] == "bnb-nf4 (double-quantized, block 64)"
    assert up["shape"] == [96, 64]
    assert up["bytes"] == 96 * 64 // 2 + 96 + 4 + 1024
    assert "encoding" not in facts["tensors"][0]
    assert "bnb-nf4 (double-quantized, block 64)" in render(facts)


def test_inspect_lists_what_cannot_be_decoded_as_it_lies(tmp_path: Path) -> None:
    folder, _ = llama(tmp_path / "hf", lambda tensors: tensors.pop(f"{UP}.absmax"))
    facts = describe(open_checkpoint(folder))
    assert f"{UP}{STATE}" in {t["name"] for t in facts["tensors"]}
    assert any("absmax" in text for text in facts["warnings"])


PARTS = ("", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", STATE)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named_with_its_file(tmp_path: Path, part: str) -> None:
    folder, _ = llama(tmp_path / "hf", lambda tensors: tensors.pop(UP + part))
    with pytest.raises(BadInput) as caught:
        streamconv.convert(folder, tmp_path / "out", type="BF16")
    assert UP in str(caught.value)
    assert (part or UP).strip(".").split(".")[0] in str(caught.value)
    assert ".safetensors" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_one_broken_tensor_leaves_the_others_readable(tmp_path: Path) -> None:
    folder, values = llama(tmp_path / "hf", lambda tensors: tensors.pop(f"{UP}.absmax"))
    tensors = streamconv.open(folder)
    assert UP in tensors
    with pytest.raises(BadInput, match="absmax"):
        tensors[UP]
    down = UP.replace("up", "down")
    assert np.array_equal(whole(tensors[down]), values[down])


def changed(key: str, value: Any) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        state = json.loads(tensors[UP + STATE][1].tobytes())
        tensors[UP + STATE] = blob({**state, key: value})

    return change


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("blocksize", 0), ("blocksize", 65), ("blocksize", True), ("shape", [-1, 64]), ("shape", [96, 65]), ("shape", None),
        ("shape", [96, 64.0]), ("shape", [10**30, 64]), ("shape", [1] * 100), ("dtype", "float99"), ("quant_type", "fp4"),
        ("nested_blocksize", 0), ("nested_blocksize", 10**30), ("nested_blocksize", None), ("nested_offset", "x"),
        ("nested_offset", 1e400), ("nested_offset", 10**400), ("nested_dtype", "float16"),
    ],
)  # fmt: skip
def test_a_state_that_makes_no_sense_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    folder, _ = llama(tmp_path / "hf", changed(key, value))
    with pytest.raises(BadInput) as caught:
        dequant.decoded(open_checkpoint(folder))
    assert UP in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype", "nested_offset")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("states")


@given(
    state=st.binary(max_size=64) | st.dictionaries(st.sampled_from(FIELDS), JSON).map(lambda d: json.dumps(d).encode())
)
@settings(max_examples=150, deadline=None)
def test_hostile_states_give_our_errors_only(scratch: Path, state: bytes) -> None:
    path = scratch / "x.safetensors"
    parts, _ = nf4("w.weight", (4, 16), np.random.default_rng(0))
    proper = json.loads(parts[f"w.weight{STATE}"][1].tobytes())
    try:
        mixed = json.dumps({**proper, **json.loads(state)}).encode()
    except (ValueError, TypeError):
        mixed = state
    for text in (state, mixed):
        parts[f"w.weight{STATE}"] = blob(text)
        write_safetensors(path, parts)
        try:
            rows = streamconv.open(path)["w.weight"]
            rows.read(0, matrix_shape(rows.shape)[0])
        except StreamconvError:
            pass
        path.unlink()  # the next one is another file to those that map this one


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"quant_method": "aqlm"}, "aqlm"), ({"quant_method": 3}, "quant_method"), ("x", "not an object"),
        ({"quant_method": "compressed-tensors", "format": "marlin-24"}, "marlin-24"),
        ({"quant_method": "auto-round", "packing_format": "auto_round:marlin"}, "marlin"),
    ],
)  # fmt: skip
def test_an_encoding_we_do_not_know_is_refused_by_its_name(tmp_path: Path, config: Any, word: str) -> None:
    folder, _ = llama(tmp_path / "hf")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": config}))
    with pytest.raises(BadInput, match=word):
        streamconv.convert(folder, tmp_path / "out", type="BF16")
    assert describe(open_checkpoint(folder))["warnings"]


def test_packed_weights_without_their_parts_are_never_taken_for_numbers(tmp_path: Path) -> None:
    def strip(tensors: Tensors) -> None:
        for part in PARTS[1:]:
            del tensors[UP + part]

    folder, _ = llama(tmp_path / "hf", strip)
    with pytest.raises(BadInput, match="quant_state"):
        streamconv.convert(folder, tmp_path / "out", type="BF16")


def test_the_reference_set_of_damaged_files_is_refused_as_it_should_be(reference: Path, tmp_path: Path) -> None:
    root = reference / "golden" / "bad-inputs"
    wrong = []
    for case in json.loads((root / "manifest.json").read_text()):
        if not case["id"].startswith(("bnb_", "int8_", "gptq_", "fp8_", "ct_", "mxfp4_")):
            continue
        try:
            streamconv.convert(root / case["path"], tmp_path / case["id"], type="F32")
            message = "accepted"
        except StreamconvError as e:
            message = str(e).lower()
        words = [word.lower() for word in case["expect"]["message_mentions_any_of"]]
        if not any(word in message for word in words) and "also_acceptable" not in case["expect"]:
            wrong.append((case["id"], message))
    assert not wrong


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([2**58] * 100_000, "not a list of sizes"),
        ([2**30, 2**30], "overflows 64 bits"),
        ([64, 0], "not a list of sizes"),
    ],
)
def test_a_shape_in_config_json_that_no_matrix_has_is_refused(tmp_path: Path, shape: list[int], message: str) -> None:
    parts = {"m.W_q": ("U8", np.zeros((8, 16), np.uint8))}
    config = {"quant_method": "hqq", "nbits": 4, "axis": 0, "group_size": 64, "shape": shape}
    with pytest.raises(BadInput, match=message):
        streamconv.open(write_safetensors(tmp_path / "x.safetensors", parts), config)["m.weight"]


def test_a_long_section_of_config_json_is_not_copied_for_every_module(tmp_path: Path) -> None:
    words, scales = np.zeros((4, 32), np.int32), np.ones((1, 32), np.float32)
    parts: dict[str, tuple[str, np.ndarray]] = {}
    for k in range(200):
        parts |= {
            f"m{k}.qweight": ("I32", words),
            f"m{k}.qzeros": ("I32", words[:1, :4]),
            f"m{k}.scales": ("F32", scales),
        }
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, **dict.fromkeys(map(str, range(1_000_000)), 0)}
    began = time.process_time()
    assert len(streamconv.open(write_safetensors(tmp_path / "x.safetensors", parts), config)) == 200
    assert time.process_time() - began < 1.5
