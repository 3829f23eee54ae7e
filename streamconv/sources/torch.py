"""Checkpoints of torch, read without torch.

The file is a zip archive (``torch_zip``) or, from before 2020, a stream of pickles (``torch_legacy``). Either way a pickle
describes tensors as views of storages; it is read by a machine that can do nothing else (``torch_pickle``). The storages stay
where they are in the mapped file, and every view is checked against its storage before any row is handed out.
Not checked here: the values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import xxhash

from ..errors import BadInput
from .checkpoint import InputFile
from .mapped import MappedFile
from .placeholders import HEAD_BYTES, other_container, refuse_no_weights
from .stored import FileRows
from .torch_globals import Storage
from .torch_legacy import MAGICS, LegacyStream
from .torch_names import named_tensors
from .torch_rows import tensor_rows
from .torch_zip import MAGIC, ZipArchive


@dataclass(frozen=True)
class TorchFile:
    """One file, read.

    Attributes
    ----------
    file : the bytes
    tensors : name -> rows, sorted by name
    identity : ranges of the file, offset and length, that describe its contents
    warnings : what was left out
    """

    file: MappedFile
    tensors: dict[str, FileRows]
    identity: tuple[tuple[int, int], ...]
    warnings: list[str]

    def describe(self) -> InputFile:
        """The file's identity; the digest also covers what describes the contents, wherever in the file that is."""
        sampled = self.file.describe(0)
        digest = xxhash.xxh3_128(sampled.digest.encode())
        for offset, length in self.identity:
            digest.update(self.file.view(offset, length).data)
        return replace(sampled, digest=digest.hexdigest())


def read_torch(file: MappedFile) -> TorchFile:
    """Read what ``file`` describes and check that all of it is there.

    Errors: BadInput names the file and, where there is one, the tensor and the byte.
    """
    container = _open(file)
    warnings: list[str] = []
    places: dict[Storage, tuple[int, int]] = {}
    tensors: dict[str, FileRows] = {}
    for name, tensor in named_tensors(container.root, str(file.path), warnings).items():
        place = places.get(tensor.storage)
        if place is None:
            place = places[tensor.storage] = container.locate(tensor.storage, name)
        tensors[name] = tensor_rows(file, name, tensor, place)
    return TorchFile(file, tensors, container.identity, warnings)


def _open(file: MappedFile) -> ZipArchive | LegacyStream:
    head = bytes(file.view(0, min(file.size, HEAD_BYTES)))
    if head.startswith(MAGIC):
        return ZipArchive(file)
    if head.startswith(MAGICS):
        return LegacyStream(file)
    if head[257:262] == b"ustar":
        raise BadInput(
            f"{file.path} is a tar archive, as torch wrote them before 2017; that format is not read",
            "Load it and save it again with a torch of today.",
        )
    refuse_no_weights(file.path, head)
    what = other_container(head)
    raise BadInput(
        f"{file.path} is in no format that torch writes, neither a zip archive nor a pickle:"
        f" {f'it is {what}' if what else f'it begins with {head[:8]!r}'}"
    )
