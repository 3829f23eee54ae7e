"""Digests of the tensors of a GGUF file, and of all their data: the lines of llama.cpp's gguf-hash.

    ALGORITHM  HEX  FILE:TENSOR
    ALGORITHM  HEX  FILE

Metadata and padding have no part in them, so a file has the same after its keys were edited. Of a split model each file has its
own. One difference: gguf-hash finds no entry for a UUID in a manifest that has one.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from ..errors import BadInput
from ..rows import Bytes
from ..sources import GgufFile, IoMode, read_gguf
from ..sources.small_files import read_small
from ..threads import spread

#: in the order of the lines; a UUID is of all data only
ALGORITHMS = ("xxh64", "sha1", "sha256", "uuid")
#: of those that a manifest has, the first is compared where none is asked for
IN_MANIFESTS = ("sha256", "sha1", "xxh64", "uuid")
#: uuid5(NAMESPACE_URL, "en.wikipedia.org/wiki/Llama.cpp")
_NAMESPACE = uuid.UUID("ef001206-dadc-5f6d-a15f-3359e577d4e5")
_BLOCK_BYTES = 8 << 20
_MAX_MANIFEST_BYTES = 256 << 20

Manifest = Mapping[tuple[str, str], str]


class Hashed(NamedTuple):
    """One digest; ``verdict`` is ``Ok``, ``Mismatch`` or ``Not Found`` by the manifest, "" without one.

    ``Missing`` is one of the manifest whose tensor is not in the file.
    """

    algorithm: str
    digest: str
    name: str
    verdict: str = ""

    def __str__(self) -> str:
        return f"{self.algorithm:8}  {self.digest}  {self.name}" + (f"  -  {self.verdict}" if self.verdict else "")


def read_manifest(path: Path) -> dict[tuple[str, str], str]:
    """Digests by algorithm and name, of a file of such lines; others do not count.

    Raises
    ------
    InputMissing, NoPermission : it cannot be read
    BadInput : it has no such line
    """
    found: dict[tuple[str, str], str] = {}
    for line in read_small(path, _MAX_MANIFEST_BYTES).decode(errors="surrogateescape").splitlines():
        words = line.split(None, 2)
        if len(words) == 3 and words[0] in ALGORITHMS:
            found.setdefault((words[0], words[2]), words[1])
    if not found:
        raise BadInput(
            f"{path} has no line of digests ({', '.join(ALGORITHMS)})",
            "Write one with streamconv hash FILE > MANIFEST.",
        )
    return found


def chosen(asked: Collection[str], manifest: Manifest | None) -> list[str]:
    """The algorithms to compute: those asked for, else the strongest that the manifest has, else xxh64."""
    if not asked and manifest is not None:
        there = {algorithm for algorithm, _ in manifest}
        asked = [next(name for name in IN_MANIFESTS if name in there)]
    return [name for name in ALGORITHMS if name in (asked or ("xxh64",))]


def hash_file(
    path: str | os.PathLike[str],
    algorithms: Collection[str],
    *,
    per_tensor: bool = True,
    manifest: Manifest | None = None,
    io: IoMode = "mmap",
    n_threads: int = 1,
    start: Callable[[int], None] = lambda n_bytes: None,
    advance: Callable[[int, str], None] = lambda n_bytes, name: None,
) -> Iterator[Hashed]:
    """The digests of the tensors in file order, then those of all data; a block of the file at a time is in memory.

    Parameters
    ----------
    path : as it is to be named in the lines
    manifest : to compare with
    n_threads : that several digests are computed in
    start, advance : told of all bytes, and of those that were read with the tensor that they are of

    Raises
    ------
    InputMissing, NoPermission, BadInput : it cannot be read, or is no GGUF file
    """
    name = os.fspath(path)
    file = read_gguf(Path(path), io, lenient=True)
    whole = {each: _new(each) for each in algorithms}
    start(sum(info.n_bytes for info in file.tensors.values()))

    def told(algorithm: str, digest: str, of: str) -> Hashed:
        if manifest is None:
            return Hashed(algorithm, digest, of)
        recorded = manifest.get((algorithm, of))
        return Hashed(
            algorithm, digest, of, "Not Found" if recorded is None else "Ok" if recorded == digest else "Mismatch"
        )

    for tensor in file.tensors:
        own = {each: _new(each) for each in algorithms if per_tensor and each != "uuid"}
        for data in _blocks(file, tensor):
            spread(partial(_update, data), [*own.values(), *whole.values()], n_threads)
            advance(data.nbytes, tensor)
        for each, digest in own.items():
            yield told(each, digest.hexdigest(), f"{name}:{tensor}")
    for each, digest in whole.items():
        text = str(uuid.UUID(bytes=digest.digest()[:16], version=5)) if each == "uuid" else digest.hexdigest()
        yield told(each, text, name)
    for (each, of), digest in (manifest or {}).items():
        if per_tensor and each in whole and of.startswith(f"{name}:") and of[len(name) + 1 :] not in file.tensors:
            yield Hashed(each, digest, of, "Missing")


def verdict(found: Collection[Hashed]) -> str:
    """What a manifest says of a file, in gguf-hash's words: ``Success``, ``Failure`` or ``Manifest Missing Entry``."""
    verdicts = {each.verdict for each in found}
    return (
        "Failure" if verdicts & {"Mismatch", "Missing"} else "Success" if "Ok" in verdicts else "Manifest Missing Entry"
    )


def _blocks(file: GgufFile, tensor: str) -> Iterator[Bytes]:
    """The data of a tensor, piece after piece, whose pages go when it is done with."""
    info = file.tensors[tensor]
    first = file.header.data_start + info.offset
    for at in range(first, first + info.n_bytes, _BLOCK_BYTES):
        length = min(_BLOCK_BYTES, first + info.n_bytes - at)
        yield file.file.view(at, length)
        file.file.release(at, length)


def _update(data: Bytes, digest: Any) -> None:
    digest.update(data.data)


def _new(algorithm: str) -> Any:
    if algorithm == "xxh64":
        return xxhash.xxh64()
    found = hashlib.new("sha256" if algorithm == "sha256" else "sha1", usedforsecurity=False)
    if algorithm == "uuid":
        found.update(_NAMESPACE.bytes)
    return found
