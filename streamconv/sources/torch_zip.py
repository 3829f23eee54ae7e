"""The zip archive that ``torch.save`` has written since version 1.6, as far as it writes zip.

All records are stored as they are, so a storage is a range of the file that is mapped where it lies. Only the directory at
the end of the file is trusted, and of a record's own header its length. Archives beyond 4 GiB use the 64-bit fields.
Refused: compressed or encrypted records, several disks, names that occur twice, more than one ``data.pkl``.
Not checked here: checksums, which would mean reading everything twice.

Source: PKWARE's APPNOTE 6.3; torch's caffe2/serialize/inline_container.cc for the records.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from ..errors import BadInput
from .mapped import MappedFile
from .naming import shown
from .torch_globals import Storage
from .torch_pickle import MAX_PICKLE_BYTES, Unpickler

MAGIC = b"PK\3\4"
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 65535
#: more than the pickle can refer to
_MAX_DIRECTORY_BYTES = 16 << 20
_MAX_RECORDS = 65536
#: in the extra data of a record; torch writes two
_MAX_EXTRA_FIELDS = 16
_ENCRYPTED = 1
_METHODS = {8: "deflate", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstandard"}


@dataclass(frozen=True, slots=True)
class _Record:
    """An entry of the directory; ``header`` is the offset of the record's own header."""

    header: int
    size: int
    method: int
    flags: int


class ZipArchive:
    """One archive, opened.

    Attributes
    ----------
    root : what ``data.pkl`` describes, see ``torch_pickle``
    identity : ranges of the file, offset and length, that tell this archive from others: the pickle, and the directory
        with the checksums of all records

    Errors: BadInput names the file and the record or byte.
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        directory = _directory_range(file)
        self._records = _read_directory(file, *directory)
        self._folder = self._find_folder()
        self._check_byteorder()
        start, size = self._locate("data.pkl")
        where = f"{file.path}: record {shown(f'{self._folder}/data.pkl')}"
        if size > MAX_PICKLE_BYTES:
            raise BadInput(f"{where} has {size} bytes, over the limit of {MAX_PICKLE_BYTES}")
        self.root: Any = Unpickler(file.view(start, size).data, where, start).load()[0]
        self.identity = ((start, size), directory)

    def locate(self, storage: Storage, tensor: str) -> tuple[int, int]:
        """Offset and length in bytes of the record that holds ``storage``; ``tensor`` is named in messages."""
        return self._locate(f"data/{storage.key}", f" (for tensor {shown(tensor)})")

    def _find_folder(self) -> str:
        """The name of the one folder that everything is in."""
        found = [name for name in self._records if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(found) != 1:
            what = "no record FOLDER/data.pkl" if not found else f"{len(found)} records called data.pkl"
            raise BadInput(f"{self._file.path} is a zip archive with {what}; torch.save writes one")
        folder = found[0].partition("/")[0]
        if f"{folder}/constants.pkl" in self._records:
            raise BadInput(
                f"{self._file.path} is a TorchScript program, not a checkpoint",
                "From software that you trust the file with, save its state_dict().",
            )
        return folder

    def _check_byteorder(self) -> None:
        if f"{self._folder}/byteorder" not in self._records:
            return
        start, size = self._locate("byteorder")
        order = bytes(self._file.view(start, min(size, 16)))
        if order != b"little":
            raise BadInput(f"{self._file.path}: byteorder is {order!r}; only little-endian files are read")

    def _locate(self, name: str, purpose: str = "") -> tuple[int, int]:
        """Offset and length of a record's bytes."""
        name = f"{self._folder}/{name}"
        record = self._records.get(name)
        where = f"{self._file.path}: record {shown(name)}{purpose}"
        if record is None:
            raise BadInput(f"{where} is missing in the archive")
        if record.flags & _ENCRYPTED:
            raise BadInput(f"{where} is encrypted")
        if record.method:
            method = _METHODS.get(record.method, f"method {record.method}")
            raise BadInput(
                f"{where} is compressed ({method}); only stored records are read, as torch.save writes them",
                "Pack the archive again without compression (zip -0).",
            )
        if record.header + _LOCAL.size > self._file.size:
            raise BadInput(f"{where} begins at byte {record.header}, past the end of the file; truncated?")
        fields = _LOCAL.unpack(self._file.view(record.header, _LOCAL.size).data)
        start = record.header + _LOCAL.size + fields[9] + fields[10]
        if fields[0] != MAGIC:
            raise BadInput(f"{where} has no header at byte {record.header}")
        if start + record.size > self._file.size:
            raise BadInput(f"{where} ends at byte {start + record.size}, past the end of the file; truncated?")
        return start, record.size


def _directory_range(file: MappedFile) -> tuple[int, int]:
    """Offset and length of the directory, from the record that ends the archive."""
    first = max(0, file.size - _END.size - _MAX_COMMENT)
    tail = bytes(file.view(first, file.size - first))
    at = len(tail)
    while True:
        at = tail.rfind(b"PK\5\6", 0, at)
        if at < 0:
            raise BadInput(f"{file.path} is truncated: a zip archive that has no end", "Fetch this file again.")
        # The signature may occur in the comment; the right one is followed by exactly as many bytes as it says.
        if at + _END.size <= len(tail) and at + _END.size + _END.unpack_from(tail, at)[7] == len(tail):
            break
    end = first + at
    _, disk, directory_disk, _, n_records, size, start, _ = _END.unpack_from(tail, at)
    if 0xFFFF in (disk, directory_disk, n_records) or 0xFFFFFFFF in (size, start):
        disk, directory_disk, n_records, size, start, end = _end64(file, end)
    if disk or directory_disk:
        raise BadInput(f"{file.path} is a zip archive of several disks")
    if start + size > end:
        raise BadInput(f"{file.path}: the zip directory, bytes {start}..{start + size}, is out of bounds")
    if size > _MAX_DIRECTORY_BYTES or n_records > _MAX_RECORDS:
        raise BadInput(f"{file.path}: {n_records} records in {size} bytes of zip directory are over the limit")
    return start, size


def _end64(file: MappedFile, end: int) -> tuple[int, int, int, int, int, int]:
    """The same fields from the 64-bit record, which a locator right before ``end`` leads to, and where that record is."""
    where = f"{file.path}: the 64-bit end of the zip directory"
    if end < _LOCATOR.size:
        raise BadInput(f"{where} is missing")
    magic, _, at, _ = _LOCATOR.unpack(file.view(end - _LOCATOR.size, _LOCATOR.size).data)
    if magic != b"PK\6\7" or at + _END64.size > end:
        raise BadInput(f"{where} is missing")
    magic, _, _, _, disk, directory_disk, _, n_records, size, start = _END64.unpack(file.view(at, _END64.size).data)
    if magic != b"PK\6\6":
        raise BadInput(f"{where} is not at byte {at}")
    return disk, directory_disk, n_records, size, start, at


def _read_directory(file: MappedFile, start: int, size: int) -> dict[str, _Record]:
    """All records by their whole names."""
    data = file.view(start, size).data
    records: dict[str, _Record] = {}
    at = 0
    while at < size:
        if size - at < _ENTRY.size:
            raise BadInput(f"{file.path}: the zip directory is truncated at byte {start + at}")
        fields = _ENTRY.unpack_from(data, at)
        flags, method = fields[3:5]
        stored_size, name_size, extra_size, comment_size, header = fields[9], *fields[10:13], fields[16]
        if fields[0] != b"PK\1\2" or at + _ENTRY.size + name_size + extra_size + comment_size > size:
            raise BadInput(f"{file.path}: the zip directory is damaged at byte {start + at}")
        at += _ENTRY.size
        name = str(data[at : at + name_size], "utf-8", "surrogateescape")
        extra = bytes(data[at + name_size : at + name_size + extra_size])
        if 0xFFFFFFFF in (fields[8], stored_size, header):
            stored_size, header = _sizes64(extra, fields[8], stored_size, header)
        if name in records:
            raise BadInput(f"{file.path}: record {shown(name)} occurs twice in the archive")
        if len(records) == _MAX_RECORDS:
            raise BadInput(f"{file.path}: more than {_MAX_RECORDS} records in the zip directory")
        records[name] = _Record(header, stored_size, method, flags)
        at += name_size + extra_size + comment_size
    return records


def _sizes64(extra: bytes, *fields: int) -> tuple[int, int]:
    """The size and the header's offset, which where they are all ones come from the 64-bit extra field, in order.

    ``fields``: compressed and uncompressed size and offset. A field that is not there stays as it is, out of bounds.
    """
    at, values = 0, []
    for _ in range(_MAX_EXTRA_FIELDS):
        if at + 4 > len(extra):
            break
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            words = extra[at + 4 : at + 4 + length]
            values = [word for (word,) in struct.iter_unpack("<Q", words[: len(words) // 8 * 8])]
            break
        at += 4 + length
    compressed, stored, header = fields
    # The order in the extra field: uncompressed, compressed, offset.
    if stored == 0xFFFFFFFF and values:
        stored = values.pop(0)
    if compressed == 0xFFFFFFFF and values:
        values.pop(0)
    if header == 0xFFFFFFFF and values:
        header = values.pop(0)
    return stored, header
