"""Who made a file, by what the formats of our outputs let it say: the key ``streamconv.job`` of GGUF and safetensors."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import StreamconvError
from ..sources.checkpoint import JOB_KEY
from ..sources.gguf import read_gguf
from ..sources.mapped import MappedFile
from ..sources.safetensors import read_safetensors

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class OfOutputs:
    """See ``engine.plan.Provenance``."""

    def job_of(self, path: Path) -> str:
        """The fingerprint in the header of a GGUF or safetensors file; "" for every other file.

        Our key is the last one of a GGUF file. Where others follow, another tool has copied it, as llama-quantize and
        llama-gguf-split do, and added its own.
        """
        try:
            if path.suffix == ".safetensors":
                found = read_safetensors(MappedFile(path)).metadata.get(JOB_KEY, "")
            else:
                metadata = read_gguf(path).metadata
                found = metadata.get(JOB_KEY, "") if list(metadata.values)[-1:] == [JOB_KEY] else ""
        except StreamconvError:
            return ""
        return found if isinstance(found, str) and _FINGERPRINT.fullmatch(found) else ""
