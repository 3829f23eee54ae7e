"""Checkpoints of torch: containers, names, folders, and views of storages."""

from __future__ import annotations

import json
import subprocess
import sys
from math import prod
from pathlib import Path

import numpy as np
import pytest
from container_files import write_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_files import WORDS, Code, archive, call, checkpoint, code, named, program, storage, stream, tensor

from streamconv.errors import BadInput, InputChanged, InputMissing
from streamconv.sources import Checkpoint, open_checkpoint
from streamconv.sources.mapped import MappedFile
from streamconv.sources.torch_globals import Storage, Tensor
from streamconv.sources.torch_rows import tensor_rows

IO = ["mmap", "pread"]
EXPECTED = ".expected.safetensors"
FILES = sorted(
    p.name.replace(EXPECTED, ".bin")
    for p in (Path(__file__).parent.parent / "data" / "torch").glob(f"*{EXPECTED}")
    if not p.name.startswith("sharded")
)


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def opened(tmp_path: Path, raw: bytes, io: str = "mmap") -> Checkpoint:
    return open_checkpoint(write(tmp_path / "weights.bin", raw), io)  # type: ignore[arg-type]


def vector(key: str = "0", n: int = 4) -> bytes:
    return tensor(storage("FloatStorage", key, n), (n,))


FOUR = np.arange(4, dtype="<f4").tobytes()


def assert_same(found: Checkpoint, wanted: Checkpoint) -> None:
    assert list(found.tensors) == list(wanted.tensors)
    for name, want in wanted.tensors.items():
        rows = found.tensors[name]
        n_rows = prod(want.shape[:-1])
        assert (rows.shape, rows.dtype) == (want.shape, want.dtype)
        a, b = rows.stored(0, n_rows), want.stored(0, n_rows)
        assert a is not None
        assert b is not None
        assert a.tobytes() == b.tobytes(), name
        values = want.read(0, n_rows)
        assert np.array_equal(rows.read(0, n_rows), values, equal_nan=True), name
        for row in range(n_rows):
            assert np.array_equal(rows.read(row, row + 1)[0], values[row], equal_nan=True), name
        rows.prefetch(0, n_rows)
        rows.release(0, n_rows)


@pytest.mark.parametrize("io", IO)
@pytest.mark.parametrize("name", FILES)
def test_files_of_torch_give_what_torch_gave(data: Path, name: str, io: str) -> None:
    wanted = open_checkpoint(data / "torch" / name.replace(".bin", EXPECTED))
    assert_same(open_checkpoint(data / "torch" / name, io), wanted)  # type: ignore[arg-type]


def test_there_are_files_of_torch() -> None:
    assert len(FILES) == 10


def test_an_index_of_torch_files_is_opened_by_its_name(data: Path) -> None:
    found = open_checkpoint(data / "torch" / "pytorch_model.bin.index.json")
    assert_same(found, open_checkpoint(data / "torch" / "sharded.expected.safetensors"))
    assert found.config == {}
    assert [file.name for file in found.inputs] == [f"pytorch_model-0000{k}-of-00002.bin" for k in (1, 2)]


def test_a_folder_of_torch_files_is_like_one_of_safetensors(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    first = {
        "b": ("BF16", r.integers(0, 1 << 15, (3, 4)).astype("<u2")),
        "a": ("F32", r.normal(size=(2, 2, 2)).astype("<f4")),
    }
    second = {"z": ("F16", r.normal(size=5).astype("<f2")), "c": ("I64", np.array(7, "<i8"))}
    for kind in ("torch", "safetensors"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "config.json").write_text('{"architectures": ["X"]}')
    for k, tensors in enumerate((first, second), start=1):
        write(tmp_path / "torch" / f"pytorch_model-0000{k}-of-00002.bin", checkpoint(tensors))
        write_safetensors(tmp_path / "safetensors" / f"model-0000{k}-of-00002.safetensors", tensors)
    found = open_checkpoint(tmp_path / "torch")
    assert_same(found, open_checkpoint(tmp_path / "safetensors"))
    assert found.config == {"architectures": ["X"]}
    assert found.side_names() == ["config.json"]

    (tmp_path / "torch" / "pytorch_model-00001-of-00002.bin").unlink()
    with pytest.raises(InputMissing, match=r"1 of 2 weight files not found: 'pytorch_model-00001"):
        open_checkpoint(tmp_path / "torch")


def test_safetensors_are_preferred_where_both_are_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write(tmp_path / "pytorch_model.bin", b"whatever")
    write_safetensors(tmp_path / "model.safetensors", {"w": ("F32", np.zeros(2, "<f4"))})
    assert list(open_checkpoint(tmp_path).tensors) == ["w"]


def test_an_index_must_agree_with_its_torch_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write(tmp_path / "a.bin", checkpoint({"x": ("F32", np.zeros(2, "<f4"))}))
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.bin", "y": "a.bin"}}))
    with pytest.raises(BadInput, match=r"pytorch_model\.bin\.index\.json promises 'y', missing in 'a\.bin'"):
        open_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {"x": "../a.bin"}}))
    with pytest.raises(BadInput, match="leads outside the folder"):
        open_checkpoint(index)
    with pytest.raises(BadInput, match="not a known kind"):
        open_checkpoint(write(tmp_path / "flax_model.msgpack.index.json", b"{}"))


@pytest.mark.parametrize("with_config", [False, True])
def test_the_layout_of_meta_is_named(tmp_path: Path, with_config: bool) -> None:
    write(tmp_path / "consolidated.00.pth", checkpoint({"tok_embeddings.weight": ("F32", np.zeros(2, "<f4"))}))
    if with_config:
        (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputMissing, match="Fetch the Hugging Face form"):
        open_checkpoint(tmp_path)
    with pytest.raises(
        BadInput, match=r"consolidated.00.pth has the name of a file of slices of tensors in Meta's own layout"
    ):
        open_checkpoint(tmp_path / "consolidated.00.pth")


@pytest.mark.parametrize("ending", [".bin", ".pt", ".pth", ".ckpt"])
def test_single_files_take_the_configuration_beside_them(tmp_path: Path, ending: str) -> None:
    (tmp_path / "config.json").write_text('{"a": 1}')
    found = open_checkpoint(write(tmp_path / f"x{ending}", checkpoint({"w": ("F32", np.zeros(2, "<f4"))})))
    assert (list(found.tensors), found.config) == (["w"], {"a": 1})


@pytest.mark.parametrize("dtype", WORDS)
def test_each_class_of_storage_in_both_containers(tmp_path: Path, dtype: str) -> None:
    word, kind = WORDS[dtype]
    raw = np.random.default_rng(1).integers(0, 2, 6 * np.dtype(word).itemsize).astype("u1").tobytes()
    pickle = program({"w": tensor(storage(kind, "k", 6), (2, 3))})
    for made in (archive(pickle, {"k": raw}), stream(pickle, [("k", 6, raw)])):
        rows = opened(tmp_path, made).tensors["w"]
        assert (rows.dtype, rows.shape) == (dtype, (2, 3))
        stored = rows.stored(0, 2)
        assert stored is not None
        assert stored.tobytes() == raw


def test_contiguous_tensors_are_not_copied(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, archive(program({"w": vector()}), {"0": FOUR}))
    stored = checkpoint.tensors["w"].stored(0, 1)
    assert stored is not None
    assert not stored.flags.owndata
    assert not stored.flags.writeable


def test_a_view_in_an_old_file_begins_inside_its_storage(tmp_path: Path) -> None:
    view = storage("FloatStorage", "root", 10, ("view", 4, 5))
    raw = np.arange(10, dtype="<f4").tobytes()
    made = opened(tmp_path, stream(program({"w": tensor(view, (2, 2), offset=1)}), [("root", 10, raw)]))
    assert made.tensors["w"].read(0, 2).tolist() == [[5, 6], [7, 8]]
    with pytest.raises(BadInput, match="out of bounds"):
        opened(tmp_path, stream(program({"w": tensor(view, (3, 2))}), [("root", 10, raw)]))


def test_the_digest_tells_the_pickle_and_every_number(tmp_path: Path) -> None:
    made = {
        opened(tmp_path, raw).inputs[0].digest
        for raw in (
            archive(program({"w": vector()}), {"0": FOUR}),
            archive(program({"v": vector()}), {"0": FOUR}),
            archive(program({"w": vector()}), {"0": FOUR[::-1]}),
            stream(program({"w": vector()}), [("0", 4, FOUR)]),
            stream(program({"v": vector()}), [("0", 4, FOUR)]),
        )
    }
    assert len(made) == 5


def test_a_change_while_reading_is_noticed(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, archive(program({"w": vector()}), {"0": FOUR}))
    checkpoint.verify_unchanged()
    write(tmp_path / "weights.bin", archive(program({"w": vector()}), {"0": FOUR + FOUR}))
    with pytest.raises(InputChanged):
        checkpoint.verify_unchanged()


# ---- names


@pytest.mark.parametrize(
    ("nested", "names", "warns"),
    [
        ({"a": {"b": vector()}, "c": vector()}, ["a.b", "c"], False),
        ({"state_dict": {"model.x": vector(), "lm_head": vector()}, "epoch": 3}, ["lm_head", "model.x"], False),
        ({"model_state_dict": {"x": vector()}, "loss": 0.5}, ["x"], False),
        ({"module.model.x": vector(), "module.lm_head": vector()}, ["lm_head", "model.x"], False),
        ({"state_dict": {"module._orig_mod.x": vector()}}, ["x"], False),
        ({"model": {"model.x": vector(), "lm_head.w": vector()}}, ["lm_head.w", "model.x"], False),
        ({"model": {"layers.0": vector()}}, ["model.layers.0"], False),
        ({"model.layers.0": vector(), "model.norm": vector()}, ["model.layers.0", "model.norm"], False),
        ({"module.x": vector(), "y": vector()}, ["module.x", "y"], False),
        ({"state_dict": vector()}, ["state_dict"], False),
        ({"state_dict": {"x": vector()}, "optimizer": {"state": {0: {"m": vector()}}}}, ["x"], True),
        ({"state_dict": {"x": vector()}, "optimizer": {"lr": 1e-3}}, ["x"], False),
        ({"list": [vector(), {"x": vector()}], "pair": (vector(), 1)}, ["list.0", "list.1.x", "pair.0"], False),
        (call("collections", "OrderedDict", [["x", vector()]]), ["x"], False),
    ],
)
def test_names_are_joined_and_wrappers_taken_off(tmp_path: Path, nested: object, names: list[str], warns: bool) -> None:
    found = opened(tmp_path, archive(program(nested), {"0": FOUR}))
    assert list(found.tensors) == names
    assert bool(found.warnings) == warns
    if warns:
        assert "left out what is not weights: 'optimizer'" in found.warnings[0]


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        ({}, "holds no tensors"),
        ({"epoch": 3}, "holds no tensors"),
        ({"optimizer": {"m": vector()}}, "holds no tensors"),
        (vector(), "one tensor without a name"),
        (3, "holds no tensors"),
        ({"a": {"b": vector()}, "a.b": vector()}, "two tensors have the name 'a.b'"),
        ({1: vector(), "1": vector()}, "the dictionary key '1' twice"),
    ],
)
def test_what_gives_no_names_is_refused(tmp_path: Path, nested: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        opened(tmp_path, archive(program(nested), {"0": FOUR}))


def test_a_tensor_may_have_two_names_but_a_container_only_one_place(tmp_path: Path) -> None:
    tied = {"a": type(code(0))(vector() + b"q\x07"), "b": type(code(0))(b"h\x07")}
    assert list(opened(tmp_path, archive(program(tied), {"0": FOUR})).tensors) == ["a", "b"]
    shared = {"a": type(code(0))(code({"x": vector()}) + b"q\x07"), "b": type(code(0))(b"h\x07")}
    with pytest.raises(BadInput, match="'b' is a container that is also somewhere else"):
        opened(tmp_path, archive(program(shared), {"0": FOUR}))
    harmless = {"w": vector(), "a": type(code(0))(code((1, 2)) + b"q\x07"), "b": type(code(0))(b"h\x07")}
    assert list(opened(tmp_path, archive(program(harmless), {"0": FOUR})).tensors) == ["w"]


# ---- views


@st.composite
def views(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    size = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    return size, tuple(draw(st.integers(0, 20)) for _ in size), draw(st.integers(0, 9))


@pytest.mark.parametrize("io", IO)
@pytest.mark.parametrize("dtype", ["F32", "BF16", "U8", "C64"])
@settings(max_examples=40, deadline=None)
@given(view=views(), rows=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)))
def test_any_view_reads_as_numpy_does(
    tmp_path_factory: pytest.TempPathFactory,
    io: str,
    dtype: str,
    view: tuple[tuple[int, ...], tuple[int, ...], int],
    rows: tuple[int, int],
) -> None:
    size, stride, offset = view
    path = tmp_path_factory.getbasetemp() / "storage.raw"
    if not path.exists():
        path.write_bytes(np.random.default_rng(2).bytes(8 * 512 + 3))
    words = np.frombuffer(path.read_bytes(), {"F32": "<u4", "BF16": "<u2", "U8": "u1", "C64": "<u8"}[dtype], 512, 3)
    described = Tensor(Storage("0", dtype, 512, 0, 512), dtype, offset, size, stride, 0)
    found = tensor_rows(MappedFile(path, io), "w", described, (3, 512 * words.itemsize))  # type: ignore[arg-type]
    want = np.lib.stride_tricks.as_strided(words[offset:], size, [s * words.itemsize for s in stride])
    matrix = np.ascontiguousarray(want).reshape(-1, size[-1])
    start, stop = sorted(r % (len(matrix) + 1) for r in rows)
    stored = found.stored(start, stop)
    assert stored is not None
    assert stored.tobytes() == matrix[start:stop].tobytes()
    assert stored.shape == (stop - start, size[-1] * words.itemsize)
    if dtype == "BF16":
        out = np.zeros((stop - start, 2 * size[-1]), np.float32)[:, ::2]
        found.read(start, stop, out)
        assert (out.view(np.uint32) == matrix[start:stop].astype(np.uint32) << 16).all()
    if dtype == "C64":
        with pytest.raises(BadInput, match="no float form"):
            found.read(start, stop)


def test_large_views_are_read_in_pieces_where_reading_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamconv.sources.torch_rows._PIECE_BYTES", 64)
    words = np.arange(40 * 24, dtype="<u2")
    file = MappedFile(write(tmp_path / "raw", words.tobytes()), "pread")
    for size, stride in (((24, 40), (1, 24)), ((20, 24), (48, 1)), ((5, 3, 8), (8, 320, 1))):
        described = Tensor(Storage("0", "I16", 960, 0, 960), "I16", 0, size, stride, 0)
        want = np.lib.stride_tricks.as_strided(words, size, [2 * s for s in stride]).reshape(-1, size[-1])
        found = tensor_rows(file, "w", described, (0, 1920)).read(1, len(want))
        assert np.array_equal(found, want[1:])


def test_rows_outside_a_view_are_our_mistake(tmp_path: Path) -> None:
    rows = opened(
        tmp_path, archive(program({"w": tensor(storage("FloatStorage", "0", 4), (2, 2), (1, 2))}), {"0": FOUR})
    )
    with pytest.raises(IndexError):
        rows.tensors["w"].read(0, 3)
    with pytest.raises(ValueError, match="out has shape"):
        rows.tensors["w"].read(0, 2, np.empty((2, 3), np.float32))


def test_torch_is_not_imported(data: Path) -> None:
    script = (
        "import sys; from streamconv.sources import open_checkpoint;"
        f"open_checkpoint({str(data / 'torch' / 'zip_all_dtypes.bin')!r});"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


ATTRIBUTES = {"_is_hf_initialized": True, "note": ("a", [1.5, None])}


@pytest.mark.parametrize("state", [{}, ATTRIBUTES, None, (None, {"slot": 1}), (ATTRIBUTES, {})])
@pytest.mark.parametrize("kind", [("torch", "Tensor"), ("torch.nn.parameter", "Parameter")])
def test_a_tensor_with_attributes_is_the_tensor_that_it_is(
    tmp_path: Path, state: object, kind: tuple[str, str]
) -> None:
    arguments = (storage("FloatStorage", "0", 4), 1, (3,), (1,), False, call("collections", "OrderedDict"))
    wrapped = call(
        "torch._tensor",
        "_rebuild_from_type_v2",
        named("torch._utils", "_rebuild_tensor_v2"),
        named(*kind),
        arguments,
        state,
    )
    parameter = call(
        "torch._utils", "_rebuild_parameter_with_state", wrapped, True, call("collections", "OrderedDict"), state
    )
    inside = (tensor(storage("FloatStorage", "0", 4), (2, 2)), True, call("collections", "OrderedDict"))
    of_parameter = call(
        "torch._tensor",
        "_rebuild_from_type_v2",
        named("torch._utils", "_rebuild_parameter"),
        named(*kind),
        inside,
        state,
    )
    found = opened(tmp_path, archive(program({"a": wrapped, "b": parameter, "c": of_parameter}), {"0": FOUR}))
    assert {name: rows.shape for name, rows in found.tensors.items()} == {"a": (3,), "b": (3,), "c": (2, 2)}
    for name in "ab":
        assert found.tensors[name].read(0, 1).tolist() == [[1, 2, 3]]


def test_plain_things_beside_the_weights_are_no_danger(tmp_path: Path) -> None:
    beside = {
        "sparse_tensor_module_names": call("__builtin__", "set", []), "names": call("builtins", "set", ["a", "b"]),
        "new": Code(b"\x8f(" + code("a") + code(1) + b"\x90"), "count": call("collections", "Counter", {"a": 1}),
        "raw": call("builtins", "bytearray", b"xy"), "old": call("__builtin__", "bytearray", "xy", "latin-1"),
        "none": call("__builtin__", "bytearray"), "z": call("builtins", "complex", 0.5, 1.0),
        "on": call("torch", "device", "cuda", 0),
        "param_shapes": [{"w": call("torch", "Size", (4,))}], "ds_version": "0.18.0", "optimizer": None, "global_steps": 10,
    }  # fmt: skip
    found = opened(tmp_path, archive(program({"module": {"w": vector(), "model.v": vector()}, **beside}), {"0": FOUR}))
    assert set(found.tensors) == {"w", "model.v"}
