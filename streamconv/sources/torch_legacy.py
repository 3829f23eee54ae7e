"""The stream that ``torch.save`` wrote before version 1.6, and still does when asked to.

Five pickles follow each other: a magic number, the protocol's version, facts about the machine, the object, and the keys of
all storages. Then comes each storage in the order of the keys: a count of numbers (int64) and the numbers. Where a storage
begins turns out only by going from count to count.
Not checked here: what follows the last storage.

Source: ``_legacy_save`` and ``_legacy_load`` of torch/serialization.py.
"""

from __future__ import annotations

from typing import Any

from ..errors import BadInput
from .mapped import MappedFile
from .naming import shown
from .torch_globals import Storage
from .torch_pickle import MAX_PICKLE_BYTES, PickleBudget, Unpickler
from .widen import STORED_TYPES

#: a pickle of protocol 2 or later
MAGICS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_VERSION = 1001
#: far more than the three small pickles at the beginning take
_MAX_PREAMBLE_BYTES = 64 << 10


class LegacyStream:
    """One file, opened.

    Attributes
    ----------
    root : what the pickle describes, see ``torch_pickle``
    identity : the range of the file, offset and length, that is before the first number

    Errors: BadInput names the file and the byte.
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        self._at = 0
        self._budget = PickleBudget()
        if self._load("magic number", _MAX_PREAMBLE_BYTES)[0] != _MAGIC_NUMBER:
            raise BadInput(f"{file.path} is a pickle, but not one of torch.save")
        version, _ = self._load("version", _MAX_PREAMBLE_BYTES)
        if version != _VERSION:
            raise BadInput(f"{file.path}: the version of its format is not {_VERSION}")
        machine, _ = self._load("machine", _MAX_PREAMBLE_BYTES)
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise BadInput(f"{file.path} was not written on a little-endian machine; only such files are read")
        self.root, storages = self._load("object", MAX_PICKLE_BYTES)
        keys, _ = self._load("list of storages", MAX_PICKLE_BYTES)
        self.identity = ((0, self._at),)
        self._places = self._scan(keys, self._known(storages))

    def locate(self, storage: Storage, tensor: str) -> tuple[int, int]:
        """Offset and length in bytes of ``storage``, whole; ``tensor`` is named in messages."""
        place = self._places.get(storage.key)
        if place is None:
            raise BadInput(
                f"{self._file.path}: storage {shown(storage.key)} of tensor {shown(tensor)} is missing in the list"
            )
        return place

    def _load(self, what: str, limit: int) -> tuple[Any, list[Storage]]:
        """The next pickle and the storages it mentions."""
        window = self._file.view(self._at, min(limit, self._file.size - self._at)).data
        unpickler = Unpickler(window, f"{self._file.path}: {what}", self._at, self._budget)
        value, n_bytes = unpickler.load()
        self._at += n_bytes
        return value, unpickler.storages

    def _known(self, storages: list[Storage]) -> dict[str, tuple[int, int]]:
        """Key -> count of numbers and bits of each; the pickle must say the same every time."""
        known: dict[str, tuple[int, int]] = {}
        for storage in storages:
            facts = storage.numel, STORED_TYPES[storage.dtype].bits if storage.dtype else 8
            if known.setdefault(storage.key, facts) != facts:
                raise BadInput(f"{self._file.path}: storage {shown(storage.key)} is described in two ways")
        return known

    def _scan(self, keys: Any, known: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        """Key -> offset and length in bytes."""
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise BadInput(f"{self._file.path}: the list of storages is not a list of names")
        places: dict[str, tuple[int, int]] = {}
        at, size = self._at, self._file.size
        for key in keys:
            where = f"{self._file.path}: storage {shown(key)} at byte {at}"
            if key in places or key not in known:
                raise BadInput(f"{where} is {'listed twice' if key in places else 'of no known type'}")
            numel, bits = known[key]
            if at + 8 > size:
                raise BadInput(f"{where} is past the end of the file; truncated?", "Fetch this file again.")
            found = int.from_bytes(self._file.view(at, 8).data, "little", signed=True)
            if found != numel:
                raise BadInput(f"{where} says that it has {found} numbers, the pickle {numel}: the size is damaged")
            n_bytes = numel * bits // 8
            if at + 8 + n_bytes > size:
                raise BadInput(
                    f"{where} is truncated: it needs {n_bytes} bytes, {size - at - 8} are left",
                    "Fetch this file again.",
                )
            places[key] = at + 8, n_bytes
            at += 8 + n_bytes
        return places
