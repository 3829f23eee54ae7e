"""Who made a file, by what formats let it say: the key ``streamconv.job`` of GGUF and safetensors."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from ..errors import StreamconvError
from ..quant.sbs import container
from ..sources.checkpoint import JOB_KEY
from ..sources.gguf import read_gguf
from ..sources.mapped import MappedFile
from ..sources.safetensors import read_safetensors

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def job_of_gguf(path: Path) -> str:
    """The fingerprint in the header of a GGUF file; "" for every other file.

    Our key is the last one. Where others follow, another tool has copied it, as llama-quantize and llama-gguf-split do, and added
    its own.
    """
    try:
        metadata = read_gguf(path).metadata
    except StreamconvError:
        return ""
    return _checked(metadata.get(JOB_KEY, "") if list(metadata.values)[-1:] == [JOB_KEY] else "")


def job_of_safetensors(path: Path) -> str:
    """The same of a safetensors file."""
    try:
        return _checked(read_safetensors(MappedFile(path)).metadata.get(JOB_KEY, ""))
    except StreamconvError:
        return ""


def job_of_sbs(path: Path) -> str:
    """The same of a weight file of gemma.cpp: the first blob of ours."""
    size = container.HEADER_BYTES + container.KEY_BYTES
    try:
        with path.open("rb") as file:
            head = file.read(size)
            magic, n, _ = struct.unpack_from("<IIQ", head)
            if magic != container.MAGIC or head[container.HEADER_BYTES :].rstrip(b"\0") != container.JOB.encode():
                return ""
            file.seek(container.HEADER_BYTES + n * container.KEY_BYTES)
            offset, length = struct.unpack("<QQ", file.read(container.RANGE_BYTES))
            file.seek(offset)
            return _checked(file.read(min(length, container.BLOB_ALIGNMENT)).decode("ascii", "replace"))
    except (OSError, struct.error):
        return ""


def _checked(found: object) -> str:
    return found if isinstance(found, str) and _FINGERPRINT.fullmatch(found) else ""
