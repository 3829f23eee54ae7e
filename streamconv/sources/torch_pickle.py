"""A pickle machine that can only describe tensors.

A pickle is a program, and Python's own unpickler runs whatever it names. This one knows the opcodes that ``torch.save``
writes and a fixed list of globals, each compared as a whole ``(module, name)`` pair and each standing for something of ours:
a record, a tag or a pure function. Nothing is imported, no attribute is looked up, no class is made; everything else is
refused before it does anything. What comes out is made of dict, list, tuple, str, bytes, int, float, bool, None, and
``Tag``, ``Kind``, ``Storage`` and ``Tensor`` of ``torch_globals``.

All pickles of a file together get a ``PickleBudget`` of steps and memory. It is spent by some 45 000 tensors: the most a file has
that a model was split into is a few thousand, and models with more are stored as safetensors.
Not checked here: whether a tensor lies inside its storage, and whether the storage is there.

Source: pickletools of the standard library.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import BadInput
from .naming import shown
from .torch_globals import GLOBALS, Callee, Storage, storage_of

#: 45 000 tensors take 10 MiB
MAX_PICKLE_BYTES = 16 << 20
_U32 = struct.Struct("<I")
#: longest module or class name that is looked at
_MAX_LINE = 256
#: dictionary keys that are numbers are below this
_MAX_KEY = 1 << 60
#: in the memo, where nothing was put
_ABSENT = object()
_SAVE_PLAIN = (
    "Only tensors in plain containers are read, and nothing in the file is run. From software that you trust"
    " the file with, save model.state_dict() alone, best as safetensors."
)
_OF_RANK = "It holds distributed tensors (DTensor), one rank's part of a checkpoint: merge the ranks with the tool that wrote them."
#: beginnings of globals -> what a file that asks for them is, and what to do instead
_FOREIGN = {
    "torch.distributed.": _OF_RANK,
    "torch._utils._rebuild_wrapper_subclass": _OF_RANK,
    "deepspeed.": "It is a training state of DeepSpeed: run zero_to_fp32.py, which is saved beside it, and convert its output.",
    "megatron.": "It is a checkpoint of Megatron: convert it to the Hugging Face form with the converter of Megatron.",
}


@dataclass
class PickleBudget:
    """What the pickles of one file may still take.

    Attributes
    ----------
    steps : opcodes
    n_bytes : memory of what they describe, an estimate on the safe side
    """

    steps: int = 1_500_000
    n_bytes: int = 112 << 20


class Unpickler:
    """Runs one pickle.

    Parameters
    ----------
    data : bytes that begin with the pickle; what follows it is not looked at
    where : file and record, for messages
    base : offset of ``data`` in the file, for messages
    budget : what it may take, by default the whole of a file's; what it took is gone from it

    Attributes
    ----------
    storages : every storage that was mentioned, in order
    """

    def __init__(self, data: memoryview, where: str, base: int, budget: PickleBudget | None = None) -> None:
        self.storages: list[Storage] = []
        self._data = bytes(data)
        self._budget = PickleBudget() if budget is None else budget
        self._where = where
        self._base = base
        self._at = 0
        self._opcode_at = 0
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: list[Any] = []

    def load(self) -> tuple[Any, int]:
        """What the pickle describes, and how many bytes it has.

        Errors: BadInput names the file and the byte.
        """
        data, handlers, budget = self._data, _HANDLERS, self._budget
        size, steps_left = len(data), budget.steps
        try:
            while True:
                steps_left -= 1
                if steps_left < 0:
                    self.fail("the pickle takes more steps than a model's description needs")
                at = self._opcode_at = self._at
                if at >= size:
                    self.fail("the pickle is truncated: it has no end")
                self._at = at + 1
                code = data[at]
                handler = handlers[code]
                if handler is not None:
                    handler(self)
                elif code == _STOP:
                    budget.steps = steps_left
                    return self._result(), self._at
                else:
                    self._refuse_opcode(code)
        except IndexError:
            self.fail("the pickle pops more from its stack than it pushed")

    def _result(self) -> Any:
        if len(self._stack) != 1 or self._marked:
            self.fail("the pickle ends with values left on its stack")
        return self._stack[0]

    def fail(self, what: str, hint: str = "") -> NoReturn:
        """BadInput at the current opcode."""
        raise BadInput(f"{self._where}: {what} (byte {self.position()})", hint)

    def charge(self, n_bytes: int) -> None:
        """Count what an object takes."""
        self._budget.n_bytes -= n_bytes
        if self._budget.n_bytes < 0:
            self.fail("the pickle describes more objects than a model has")

    def position(self) -> int:
        """Byte of the file that the current opcode is at."""
        return self._base + self._opcode_at

    # ---- reading the program

    def _take(self, n_bytes: int) -> bytes:
        at = self._at
        if n_bytes > len(self._data) - at:
            self.fail(f"the pickle is truncated: {n_bytes} bytes are promised, {len(self._data) - at} left")
        self._at = at + n_bytes
        return self._data[at : at + n_bytes]

    def _unsigned(self, n_bytes: int) -> int:
        return int.from_bytes(self._take(n_bytes), "little")

    def _word(self) -> int:
        at = self._at
        if at + 4 > len(self._data):
            self._take(4)
        self._at = at + 4
        return int(_U32.unpack_from(self._data, at)[0])

    def _byte(self) -> int:
        at = self._at
        if at >= len(self._data):
            self._take(1)
        self._at = at + 1
        return self._data[at]

    def _line(self) -> str:
        line = self._data[self._at : self._at + _MAX_LINE]
        end = line.find(b"\n")
        if end < 0:
            what = "truncated" if len(line) < _MAX_LINE else "damaged"
            self.fail(f"the pickle is {what}: no end of line in {len(line)} bytes")
        self._at += end + 1
        return self._decoded(line[:end])

    def _decoded(self, raw: bytes) -> str:
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            self.fail("the pickle holds text that is not UTF-8")

    # ---- stack and memo

    def _push(self, value: Any, n_bytes: int) -> None:
        self.charge(n_bytes)
        self._stack.append(value)

    def _pop_to_mark(self) -> list[Any]:
        """The items above the topmost mark."""
        items = self._stack
        self._stack = self._marked.pop()
        return items

    def _mark(self) -> None:
        self.charge(64)
        self._marked.append(self._stack)
        self._stack = []

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_to_mark()

    def _put(self, index: int) -> None:
        """Number what is on top. Picklers count up, so a list does; a dictionary can be made slow by choice of numbers."""
        memo = self._memo
        missing = index + 1 - len(memo)
        if missing > 0:
            self.charge(16 * missing)
            memo.extend([_ABSENT] * missing)
        memo[index] = self._stack[-1]

    def _memoize(self) -> None:
        self.charge(16)
        self._memo.append(self._stack[-1])

    def _get(self, index: int) -> None:
        if index >= len(self._memo) or self._memo[index] is _ABSENT:
            self.fail(f"the pickle refers to memo {index}, which it has not stored")
        self._stack.append(self._memo[index])

    # ---- values

    def _text(self, n_bytes: int) -> None:
        text = self._decoded(self._take(n_bytes))
        self.charge(64 + (n_bytes if text.isascii() else 4 * n_bytes))
        self._stack.append(text)

    def _bytes(self, n_bytes: int) -> None:
        raw = self._take(n_bytes)
        self.charge(64 + n_bytes)
        self._stack.append(raw)

    def _int(self, n_bytes: int) -> None:
        self._push(int.from_bytes(self._take(n_bytes), "little", signed=True), 32 + n_bytes)

    def _float(self) -> None:
        self._push(struct.unpack(">d", self._take(8))[0], 32)

    def _tuple(self, n_items: int) -> None:
        if n_items > len(self._stack):
            raise IndexError
        first = len(self._stack) - n_items
        items = tuple(self._stack[first:])
        del self._stack[first:]
        self._push(items, 64 + 8 * n_items)

    def _marked_tuple(self) -> None:
        items = tuple(self._pop_to_mark())
        self._push(items, 64 + 8 * len(items))

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            self.fail("the pickle appends to something that is not a list")
        self.charge(16 * len(items))
        target.extend(items)

    def insert(self, target: dict[str, Any], items: list[Any]) -> None:
        """Put keys and values, one after the other in ``items``, into ``target``.

        Numbers become text, as they do in names: the hash of a number is known beforehand, and a dictionary of chosen ones can
        be made as slow as a list.
        """
        self.charge(60 * len(items))
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                if type(key) not in (int, bool) or not -_MAX_KEY < key < _MAX_KEY:
                    self.fail(f"the pickle has a dictionary key of type {type(key).__name__}")
                key = str(key)
            if key in target:
                self.fail(f"the pickle has the dictionary key {shown(key)} twice")
            target[key] = value

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            self.fail("the pickle sets items of something that is not a dictionary")
        self.insert(target, items)

    def _set_item(self) -> None:
        value = self._stack.pop()
        key = self._stack.pop()
        self._set_items([key, value])

    # ---- globals

    def _global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            self.fail("the pickle names a global by something that is not text")
        self.charge(500)  # nothing is kept, but it takes the time of many other opcodes
        found = GLOBALS.get((module, name))
        if found is None:
            self.fail(
                f"refused: the pickle asks for the global {shown(f'{module}.{name}')}, which is not allowed",
                next((hint for start, hint in _FOREIGN.items() if f"{module}.{name}".startswith(start)), _SAVE_PLAIN),
            )
        self._stack.append(found)

    def _stack_global(self) -> None:
        name = self._stack.pop()
        self._global(self._stack.pop(), name)

    def _reduce(self) -> None:
        arguments = self._stack.pop()
        function = self._stack.pop()
        if type(function) is not Callee or type(arguments) is not tuple:
            self.fail("refused: the pickle calls something that is not a function on the list of what may be called")
        self._stack.append(function.call(self, arguments))

    def _build(self) -> None:
        """Attributes of an OrderedDict (``_metadata``: versions of modules); nothing of ours has any."""
        self._stack.pop()
        if type(self._stack[-1]) is not dict:
            self.fail("refused: the pickle sets attributes of something that is not a dictionary")

    def _persistent(self) -> None:
        storage = storage_of(self, self._stack.pop())
        self._stack.append(storage)
        self.storages.append(storage)

    def _refuse_opcode(self, code: int) -> NoReturn:
        name = _CALLING.get(code)
        if name is not None:
            self.fail(f"refused: the pickle's opcode {name} makes objects of any class, which is not allowed")
        self.fail(f"the pickle has opcode {code:#04x}, which torch does not write")


# ---- opcodes


def _protocol(m: Unpickler) -> None:
    version = m._byte()
    if not 2 <= version <= 5:
        m.fail(f"pickle protocol {version} is not one that torch writes")


_STOP = ord(".")
#: these make objects by calling; named in the message
_CALLING = {0x69: "INST", 0x6F: "OBJ", 0x81: "NEWOBJ", 0x92: "NEWOBJ_EX", 0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4"}
_OPCODES: dict[int, Callable[[Unpickler], object]] = {
    0x80: _protocol,
    0x95: lambda m: m._take(8),  # FRAME: only a hint how much to read at once
    ord("("): Unpickler._mark,
    ord("0"): Unpickler._pop,
    ord("1"): lambda m: m._pop_to_mark(),
    ord("q"): lambda m: m._put(m._byte()),
    ord("r"): lambda m: m._put(m._word()),
    0x94: Unpickler._memoize,
    ord("h"): lambda m: m._get(m._byte()),
    ord("j"): lambda m: m._get(m._word()),
    ord("N"): lambda m: m._push(None, 0),
    0x88: lambda m: m._push(True, 0),
    0x89: lambda m: m._push(False, 0),
    ord("K"): lambda m: m._push(m._byte(), 0),
    ord("M"): lambda m: m._push(m._unsigned(2), 32),
    ord("J"): lambda m: m._int(4),
    0x8A: lambda m: m._int(m._byte()),
    0x8B: lambda m: m._int(m._word()),
    ord("G"): Unpickler._float,
    ord("X"): lambda m: m._text(m._word()),
    0x8C: lambda m: m._text(m._byte()),
    0x8D: lambda m: m._text(m._unsigned(8)),
    # str of Python 2, which wrote many of the old files
    ord("U"): lambda m: m._text(m._byte()),
    ord("T"): lambda m: m._text(m._word()),
    ord("C"): lambda m: m._bytes(m._byte()),
    ord("B"): lambda m: m._bytes(m._word()),
    0x8E: lambda m: m._bytes(m._unsigned(8)),
    ord(")"): lambda m: m._push((), 0),
    0x85: lambda m: m._tuple(1),
    0x86: lambda m: m._tuple(2),
    0x87: lambda m: m._tuple(3),
    ord("t"): Unpickler._marked_tuple,
    ord("]"): lambda m: m._push([], 64),
    ord("a"): lambda m: m._extend([m._stack.pop()]),
    ord("e"): lambda m: m._extend(m._pop_to_mark()),
    0x8F: lambda m: m._push([], 64),  # EMPTY_SET; no weight is in a set, so it is a list
    0x90: lambda m: m._extend(m._pop_to_mark()),
    ord("}"): lambda m: m._push({}, 64),
    ord("s"): Unpickler._set_item,
    ord("u"): lambda m: m._set_items(m._pop_to_mark()),
    ord("c"): lambda m: m._global(m._line(), m._line()),
    0x93: Unpickler._stack_global,
    ord("Q"): Unpickler._persistent,
    ord("R"): Unpickler._reduce,
    ord("b"): Unpickler._build,
}
#: the same by number, None for what is refused
_HANDLERS = [_OPCODES.get(code) for code in range(256)]
