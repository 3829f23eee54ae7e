"""Torch checkpoints that are damaged or want to run code: all refused, with the file, the tensor and the byte."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from torch_files import PROTOCOL, Code, archive, call, code, named, program, storage, stream, tensor

from streamconv.errors import BadInput
from streamconv.sources import open_checkpoint
from streamconv.sources.torch_pickle import PickleBudget, Unpickler

ZEROS = {"0": bytes(64)}
FLOATS = storage("FloatStorage", "0", 16)


def refused(tmp_path: Path, raw: bytes, message: str) -> str:
    """``raw`` as a file is refused with ``message``, alike in both ways of reading; gives the whole message."""
    path = tmp_path / "weights.bin"
    path.write_bytes(raw)
    texts = set()
    for io in ("mmap", "pread"):
        with pytest.raises(BadInput, match=message) as caught:
            open_checkpoint(path, io)  # type: ignore[arg-type]
        texts.add(caught.value.message)
    (text,) = texts
    assert "weights.bin" in text
    assert "\n" not in text
    return text


# ---- code


class Payload:
    """Pickles to a call; harmless unless something makes it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("function", [eval, getattr, __import__, open, re.compile, struct.pack, Path])
def test_no_function_of_python_is_reached(tmp_path: Path, function: Any, protocol: int) -> None:
    victim = tmp_path / "made"
    raw = pickle.dumps({"w": Payload(function, f"open({str(victim)!r}, 'w')")}, protocol)
    for made in (archive(raw), stream(raw, [])):
        refused(tmp_path, made, r"refused: the pickle asks for the global '[a-z_A-Z0-9.]+', which is not allowed")
    assert not victim.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("__builtin__", "eval"), ("torch", "load"),
        ("torch", "hub.load"), ("torch.hub", "load"), ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "__builtins__"), ("torch.storage", "_load_from_bytes"), ("torch.serialization", "load"),
        ("collections", "OrderedDict.fromkeys"), ("collections", "defaultdict"), ("torch", "FloatStorage.__init__"),
        ("torch.nn.parameter", "Buffer"), ("torch._utils", "_rebuild_qtensor"), ("torch._tensor", "_rebuild_from_type"),
        ("builtins", "frozenset"), ("collections", "deque"), ("torch", "nn.Parameter"),
        ("_codecs", "decode"), ("codecs", "encode"), ("torch ", "Size"), ("torch", "size"), ("", ""), ("torch", ""),
        ("torch.FloatStorage", ""), ("numpy.core.multiarray", "_reconstruct"), ("torch", "ComplexDoubleStorage"),
        ("torch", "UntypedStorage"), ("torch", "complex128"), ("torch.torch", "Size"), ("streamconv", "convert"),
    ],
)  # fmt: skip
def test_only_exact_pairs_of_the_list_are_allowed(tmp_path: Path, module: str, name: str) -> None:
    message = f"global {f'{module}.{name}'!r}, which is not allowed"
    refused(tmp_path, archive(program({"w": call(module, name, "x")})), re.escape(message))
    by_stack = Code(code(module) + code(name) + b"\x93" + code(("x",)) + b"R")
    refused(tmp_path, archive(PROTOCOL + by_stack + b"."), re.escape(message))


TYPED = "torch._tensor", "_rebuild_from_type_v2"
TENSOR, MAKE = named("torch", "Tensor"), named("torch._utils", "_rebuild_tensor_v2")


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (b"(ios\nsystem\n", "opcode INST"),
        (Code(b"(" + named("torch", "Size") + code("x") + b"o"), "opcode OBJ"),
        (Code(named("collections", "OrderedDict") + b")\x81"), "opcode NEWOBJ"),
        (Code(named("collections", "OrderedDict") + b")}\x92"), "opcode NEWOBJ_EX"),
        (b"\x82\x01", "opcode EXT1"), (b"\x83\x01\x00", "opcode EXT2"), (b"\x84\x01\x00\x00\x00", "opcode EXT4"),
        (b"Pname\n", "opcode 0x50"), (b"\x97", "opcode 0x97"), (b"\x96" + bytes(8), "opcode 0x96"), (b"S'a'\n", "opcode 0x53"),
        (Code(named("torch", "FloatStorage") + b")R"), "calls something that is not a function"),
        (Code(named("torch", "float32") + b")R"), "calls something that is not a function"),
        (Code(code("text") + b")R"), "calls something that is not a function"),
        (Code(named("collections", "OrderedDict") + code([]) + b"R"), "calls something that is not a function"),
        (Code(named("torch", "float32") + code({"a": 1}) + b"b"), "sets attributes of something that is not a dictionary"),
        (Code(code([]) + code({"a": 1}) + b"b"), "sets attributes of something that is not a dictionary"),
        (call("_codecs", "encode", "aGk=", "base64"), "latin1 only"),
        (call("_codecs", "encode", "x", "rot13"), "latin1 only"),
        (call("_codecs", "encode", b"x", "latin1"), "latin1 only"),
        (call("_codecs", "encode", "\u20ac", "latin1"), "beyond latin1"),
        (call("torch", "Size", "text"), "torch.Size is built from"),
        (call("collections", "OrderedDict", "text"), "OrderedDict is built from"),
        (call("collections", "OrderedDict", [1]), "OrderedDict is built from"),
        (call("collections", "OrderedDict", [], []), "OrderedDict is built from"),
        (call("torch._utils", "_rebuild_parameter", {}, True, {}), "parameter has no tensor"),
        (call(*TYPED, named("collections", "OrderedDict"), TENSOR, (), {}),
         "other than a function for tensors"),
        (call(*TYPED, named("torch", "float32"), TENSOR, (), {}),
         "other than a function for tensors"),
        (call(*TYPED, MAKE, named("torch", "Size"), (), {}),
         "of an unknown class"),
        (call(*TYPED, MAKE, TENSOR, []),
         "a tensor with attributes is not made of"),
        (call(*TYPED, MAKE, TENSOR, (), {}),
         "a tensor has 0 arguments"),
        (call(*TYPED, named("torch._tensor", "_rebuild_from_type_v2"), TENSOR,
              (), {}), "other than a function for tensors"),
        (call("torch._utils", "_rebuild_parameter_with_state", {}, True, {}, {}), "parameter has no tensor"),
        (call("torch._utils", "_rebuild_parameter_with_state", {}, True, {}), "has 3 arguments"),
        (call("torch.nn.parameter", "Parameter", {}), "calls something that is not a function"),
        (call("builtins", "set", "text"), "a set is built from"), (call("builtins", "set", [], []), "a set is built from"),
        (call("collections", "Counter", []), "a Counter is built from"), (call("builtins", "bytearray", 5),
        "a bytearray is built from"),
        (call("builtins", "complex", []), "a complex number or a device"), (b"\x8f}\x90", "more from its stack"),
        (b"}(K\x01\x90", "appends to something that is not a list"), (b"\x91", "opcode 0x91"),
        (b"\x80\x06N", "protocol 6"), (b"\x80\x00N", "protocol 0"),
    ],
)  # fmt: skip
def test_opcodes_and_calls_beyond_need_are_refused(tmp_path: Path, opcodes: bytes, message: str) -> None:
    text = refused(tmp_path, archive(PROTOCOL + opcodes + b"."), message)
    assert re.search(r"record 'archive/data.pkl'.*\(byte \d+\)$", text)


def test_a_pickled_model_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(archive(program({"w": call("__main__", "Net")})))
    with pytest.raises(BadInput) as caught:
        open_checkpoint(path)
    assert "state_dict" in caught.value.hint


# ---- damaged pickles


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "it has no end"), (b"N", "it has no end"), (b".", "values left on its stack"), (b"NN.", "values left on its stack"),
        (b"(N.", "values left on its stack"), (b"0.", "pops more from its stack"), (b"t.", "pops more from its stack"),
        (b"R.", "pops more from its stack"), (b"Q.", "pops more from its stack"), (b"a.", "pops more from its stack"),
        (b"(u.", "pops more from its stack"), (b"N\x86.", "pops more from its stack"), (b"q\x00.", "pops more from"),
        (b"h\x05.", "memo 5"), (b"j\xff\xff\xff\xff.", "memo 4294967295"), (b"NNs.", "pops more from its stack"),
        (b"NNNs.", "something that is not a dictionary"), (b"}(Nu.", "something that is not a dictionary"),
        (b"}Na.", "something that is not a list"),
        (b"}NNs.", "key of type NoneType"), (b"}]Ns.", "key of type list"), (b"})Ns.", "key of type tuple"),
        (b"}\x8a\x09" + bytes(8) + b"\x01Ns.", "key of type int"), (b"X\xff\xff\xff\xffa.", "truncated"),
        (b"B\xff\xff\xff\x7fa.", "truncated"), (b"\x8d" + b"\xff" * 8 + b"a.", "truncated"),
        (b"\x8b\xff\xff\xff\xff.", "truncated"),
        (b"X\x02\x00\x00\x00\xff\xfe.", "not UTF-8"), (b"cos\nsys\xff\n.", "not UTF-8"), (b"cos", "truncated"),
        (b"c" + b"a" * 300 + b"\nb\n.", "no end of line"), (b"G\x00.", "truncated"), (b"\x95\x00", "truncated"),
        (b"K", "truncated"),
        (b"K\x01K\x02\x93.", "something that is not text"), (b"NQ.", "not a storage"), (b")Q.", "not a storage"),
    ],
)  # fmt: skip
def test_damaged_pickles_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    assert re.search(r"\(byte \d+\)$", refused(tmp_path, archive(PROTOCOL + raw), message))


@pytest.mark.parametrize(
    "body",
    [b"N" * 200_000, b"}" * 200_000, b"(" * 200_000, b")" + b"\x85" * 200_000, b"N" + b"\x94" * 200_000, b"ctorch\nSize\n" * 30_000,
     b"X" + struct.pack("<I", 3 << 20) + b"a" * (3 << 20)],
    ids=["steps", "dictionaries", "marks", "nested tuples", "memo", "globals", "text"],
)  # fmt: skip
def test_a_pickle_has_a_budget(body: bytes) -> None:
    with pytest.raises(BadInput, match=r"takes more steps|describes more objects"):
        Unpickler(memoryview(PROTOCOL + body), "x", 0, PickleBudget(150_000, 2 << 20)).load()


def test_the_pickles_of_a_file_share_its_budget() -> None:
    budget = PickleBudget(1000, 10_000)
    for _ in range(2):
        Unpickler(memoryview(PROTOCOL + b"N" + b"0N" * 200 + b"."), "x", 0, budget).load()
    with pytest.raises(BadInput, match="takes more steps"):
        Unpickler(memoryview(PROTOCOL + b"N" + b"0N" * 200 + b"."), "x", 0, budget).load()


def test_what_a_tuple_is_used_for_often_is_counted_first(tmp_path: Path) -> None:
    many = Code(code((1,) * 100_000) + b"q\x05")
    used = call("torch._utils", "_rebuild_tensor_v2", FLOATS, 0, Code(b"h\x05"), Code(b"h\x05"), False, {})
    refused(tmp_path, archive(program([many] + [used] * 9), ZEROS), "has 100000 dimensions, more than 64")


def test_numbers_of_the_memo_may_begin_anywhere_but_not_everywhere(tmp_path: Path) -> None:
    for first in (0, 1, 3):  # Python 2 counted from one
        body = b"".join(b"]q" + bytes([first + k]) + b"0" for k in range(3)) + b"h" + bytes([first + 2])
        assert Unpickler(memoryview(PROTOCOL + body + b"."), "x", 0).load()[0] == []
    refused(tmp_path, archive(PROTOCOL + b"]q\x03h\x01."), "memo 1, which it has not stored")
    refused(tmp_path, archive(PROTOCOL + b"]r\xff\xff\xff\xff."), "describes more objects")


def test_nesting_and_long_names_have_limits(tmp_path: Path) -> None:
    deep: Any = tensor(FLOATS, (4,))
    for _ in range(40):
        deep = {"a": deep}
    refused(tmp_path, archive(program(deep), ZEROS), "nest deeper than 32")
    refused(tmp_path, archive(program({"a" * 70000: tensor(FLOATS, (4,))}), ZEROS), "names are longer")
    itself = Code(b"]q\x00h\x00a")
    refused(tmp_path, archive(program({"a": itself, "w": tensor(FLOATS, (4,))}), ZEROS), "or in itself")
    # Each list holds the one before it twice: 2 ** 30 paths to one tensor.
    doubled = b"".join(b"](h\x00h\x00eq\x00" for _ in range(30))
    refused(
        tmp_path,
        archive(PROTOCOL + tensor(FLOATS, (4,)) + b"q\x00" + doubled[:-2] + b".", ZEROS),
        "somewhere else|left on its stack",
    )


# ---- tensors and storages


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (tensor(FLOATS, (4, 4), (4,)), "tensor 'w'.*2 sizes and 1 strides"),
        (tensor(FLOATS, (5, 4)), r"tensor 'w' \(described at byte \d+\).*lead to byte 80 of a storage of 64, out of bounds"),
        (tensor(FLOATS, (4,), offset=13), "out of bounds"),
        (tensor(FLOATS, (4,), offset=1 << 62), "out of bounds"),
        (tensor(FLOATS, (2,), (15,), offset=1), "out of bounds"),
        (tensor(FLOATS, (0, 4), offset=17), "out of bounds"),
        (tensor(FLOATS, (1 << 62, 1 << 62), (0, 0)), "overflows 64 bits"),
        (tensor(FLOATS, (0, 1 << 62, 1 << 62), (0, 0, 0)), "overflows 64 bits"),
        (tensor(FLOATS, (1,) * 65), "has 65 dimensions, more than 64"),
        (tensor(FLOATS, (1 << 40,), (0,)), "expands a storage of 64 bytes"),
        (tensor(FLOATS, (4,), offset=-1), "offset in its storage is not a size"),
        (tensor(FLOATS, (4,), offset=True), "offset in its storage is not a size"),
        (tensor(FLOATS, (-4,), (1,)), "size is not a tuple of non-negative"),
        (tensor(FLOATS, (4,), (-1,)), "stride is not a tuple of non-negative"),
        (tensor(FLOATS, (True,), (1,)), "size is not a tuple of non-negative"),
        (tensor(FLOATS, (2.0,), (1,)), "size is not a tuple of non-negative"),
        (tensor(FLOATS, [4], (1,)), "size is not a tuple of non-negative"),
        (tensor(FLOATS, (1 << 64,), (0,)), "size is not a tuple of non-negative"),
        (tensor(FLOATS, (1 << 40000,), (0,)), "size is not a tuple of non-negative"),
        (tensor(code("x"), (4,)), "has no storage"),
        (tensor(named("torch", "FloatStorage"), (4,)), "has no storage"),
        (tensor(storage("UntypedStorage", "0", 64), (4,)), "untyped and its tensor has no dtype"),
        (tensor(storage("UntypedStorage", "0", 64), (17,), dtype="float32"), "out of bounds"),
        (tensor(storage("UntypedStorage", "0", 65), (4,), dtype="float32"), "its storage '0' is short"),
        (tensor(storage("UntypedStorage", "0", 64), (4,), dtype="FloatStorage"), "no known dtype"),
        (tensor(storage("FloatStorage", "0", 17), (4,)), "its storage '0' is short: 17 numbers"),
        (tensor(storage("FloatStorage", "0", 1 << 62), (4,)), "its storage '0' is short"),
        (tensor(storage("FloatStorage", "0", 1 << 63), (4,)), "its size is not a size"),
        (tensor(storage("FloatStorage", "0", -1), (4,)), "its size is not a size"),
        (tensor(storage("FloatStorage", "0", 4.0), (4,)), "its size is not a size"),
        (tensor(storage("FloatStorage", "7", 4), (4,)), r"record 'archive/data/7' \(for tensor 'w'\) is missing"),
        (tensor(storage("FloatStorage", "../version", 0), (0,)), "'archive/data/../version'.* is missing"),
        (tensor(storage("FloatStorage", 7, 4), (4,)), "whose key is not text"),
        (tensor(storage("float32", "0", 4), (4,)), "no known class"),
        (tensor(storage("FloatStorage", "0", 4, 5), (4,)), "its view is damaged"),
        (tensor(storage("FloatStorage", "0", 4, ("v", -1, 2)), (1,)), "its view is damaged"),
        (tensor(storage("FloatStorage", "0", 4, ("v", 3, 2)), (1,)), "out of bounds"),
        (call("torch._utils", "_rebuild_tensor_v2", FLOATS, 0, (4,), (1,), False, {}, {"neg": True}), "has metadata"),
        (call("torch._utils", "_rebuild_tensor_v3", FLOATS, 0, (4,), (1,), False, {}, named("torch", "float32"),
              {"conj": True}), "has metadata"),
        (call("torch._utils", "_rebuild_tensor_v2", 1, 2), "tensor has 2 arguments"),
        (call("torch._utils", "_rebuild_tensor_v3", 1, 2), "tensor has 2 arguments"),
    ],
)  # fmt: skip
def test_views_that_leave_their_storage_are_refused(tmp_path: Path, described: Code, message: str) -> None:
    refused(tmp_path, archive(program({"w": described}), ZEROS), message)


# ---- zip archives

GOOD = archive(program({"w": tensor(FLOATS, (4, 4))}), ZEROS)
DIRECTORY = GOOD.index(b"PK\1\2")
END = GOOD.index(b"PK\5\6")


def patched(at: int, raw: bytes) -> bytes:
    return GOOD[:at] + raw + GOOD[at + len(raw) :]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b"PK\3\4", "truncated: a zip archive that has no end"),
        (GOOD[:-1], "no end"),
        (GOOD[:END], "no end"),
        (GOOD + b"x", "no end"),
        (patched(END + 4, b"\1"), "several disks"),
        (patched(END + 16, b"\xff\xff\xff\x7f"), "out of bounds"),
        (patched(END + 16, b"\xff\xff\xff\xff"), "64-bit end of the zip directory is missing"),
        (patched(END + 12, struct.pack("<L", END - DIRECTORY - 1)), "zip directory is (damaged|truncated)"),
        (patched(DIRECTORY, b"PK\1\3"), "zip directory is damaged at byte"),
        (patched(DIRECTORY + 28, b"\xff\xff"), "zip directory is damaged at byte"),
        (patched(DIRECTORY + 24, b"\xff\xff\xff\x00"), "'archive/data.pkl' ends at byte .*, past the end"),
        (patched(DIRECTORY + 24, b"\xff\xff\xff\xff"), "'archive/data.pkl' ends at byte .*, past the end"),
        (patched(DIRECTORY + 42, b"\xff\xff\xff\x00"), "'archive/data.pkl' begins at byte .*, past the end"),
        (patched(DIRECTORY + 42, b"\1"), "'archive/data.pkl' has no header at byte 1"),
        (patched(DIRECTORY + 8, b"\1"), "'archive/data.pkl' is encrypted"),
        (patched(DIRECTORY + 10, b"\x0e"), r"'archive/data.pkl' is compressed \(lzma\)"),
        (patched(DIRECTORY + 10, b"\x63"), r"'archive/data.pkl' is compressed \(method 99\)"),
        (archive(program({}), method=zipfile.ZIP_DEFLATED), "compressed"),
        (archive(program({}), byteorder=b"big"), "byteorder is b'big'"),
        (archive(program({}), byteorder=b"?" * 99), "byteorder is"),
        (archive(program({}), root="a/b"), "no record FOLDER/data.pkl"),
        (archive(program({}), extra={"other/data.pkl": b""}), "2 records called data.pkl"),
        (archive(program({}), extra={"archive/constants.pkl": b""}), "TorchScript"),
        (b"<html>not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        (bytes(257) + b"ustar" + bytes(250), "tar archive"),
    ],
)  # fmt: skip
def test_damaged_archives_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    refused(tmp_path, raw, message)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_record_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    raw = archive(program({"w": tensor(FLOATS, (4, 4))}), ZEROS, extra={"archive/data/0": bytes(64)})
    refused(tmp_path, raw, "record 'archive/data/0' occurs twice")


def test_archives_of_64_bits_are_read(tmp_path: Path) -> None:
    """Sizes and offsets moved into the 64-bit fields, as beyond 4 GiB."""
    entries = b""
    at = DIRECTORY
    while at < END:
        fields = list(struct.unpack_from("<4s6H3L5H2L", GOOD, at))
        name = GOOD[at + 46 : at + 46 + fields[10]]
        at += 46 + len(name)
        extra = struct.pack("<2H3Q", 1, 24, fields[9], fields[8], fields[16])
        fields[8] = fields[9] = fields[16] = 0xFFFFFFFF
        fields[11] = len(extra) + 6
        entries += struct.pack("<4s6H3L5H2L", *fields) + name + struct.pack("<2H2s", 9, 2, b"..") + extra
    n = len(entries) // 46
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, n, n, len(entries), DIRECTORY)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, DIRECTORY + len(entries), 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 3) + b"end"
    path = tmp_path / "weights.bin"
    path.write_bytes(GOOD[:DIRECTORY] + entries + end + locator + last)
    assert list(open_checkpoint(path).tensors) == ["w"]
    broken = GOOD[:DIRECTORY] + entries + end.replace(b"PK\6\6", b"PK\6\0") + locator + last
    refused(tmp_path, broken, r"64-bit end of the zip directory is not at byte \d+")


# ---- legacy streams

OBJECT = program({"w": tensor(FLOATS, (4, 4))})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (program(1), "a pickle, but not one of torch.save"),
        (stream(OBJECT, [], magic=7), "a pickle, but not one of torch.save"),
        (program(0x1950A86A20F9469CFC6C) + program(1002), "the version of its format is not 1001"),
        (stream(OBJECT, [("0", 16, bytes(64))], little=False), "little-endian"),
        (stream(OBJECT, []), "storage '0' of tensor 'w' is missing"),
        (stream(OBJECT, [("1", 16, bytes(64))]), "storage '1' at byte .* is of no known type"),
        (stream(OBJECT, [("0", 16, bytes(64)), ("0", 16, bytes(64))]), "is listed twice"),
        (stream(OBJECT, [("0", 16, bytes(63))]), "storage '0' at byte .* is truncated: it needs 64 bytes, 63 are left"),
        (stream(OBJECT, [("0", 16, b"")])[:-8], "past the end of the file"),
        (stream(OBJECT, [("0", -16, bytes(64))]), "says that it has -16 numbers"),
        (stream(OBJECT, [("0", 1 << 62, bytes(64))]), "the size is damaged"),
        (stream(program({"w": call("os", "system", "x")}), []), r"weights.bin: object: refused.*\(byte \d+\)"),
        (stream(program({"w": tensor(FLOATS, (4,)), "v": tensor(storage("HalfStorage", "0", 16), (4,))}),
                [("0", 16, bytes(64))]), "storage '0' is described in two ways"),
        (stream(OBJECT, [("0", 16, bytes(64))]).replace(program(["0"]), program({"0": 1})), "not a list of names"),
        (stream(OBJECT, [("0", 16, bytes(64))]).replace(program(["0"]), program([0])), "not a list of names"),
    ],
)  # fmt: skip
def test_damaged_streams_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    refused(tmp_path, raw, message)


def test_every_cut_of_a_file_is_refused_or_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    for whole in (GOOD, stream(OBJECT, [("0", 16, bytes(64))])):
        for length in range(0, len(whole), 3):
            path.write_bytes(whole[:length])
            with pytest.raises(BadInput):
                open_checkpoint(path)
