"""Who made a file, by what the formats of our outputs let it say: the key ``streamconv.job`` of GGUF and safetensors."""

from __future__ import annotations

import glob
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
        """The fingerprint in the header of a GGUF or safetensors file; "" for every other file."""
        try:
            if path.suffix == ".safetensors":
                found = read_safetensors(MappedFile(path)).metadata.get(JOB_KEY, "")
            else:
                found = read_gguf(path).metadata.get(JOB_KEY, "")
        except StreamconvError:
            return ""
        return found if isinstance(found, str) and _FINGERPRINT.fullmatch(found) else ""

    def names_of(self, output: Path) -> list[Path]:
        """A GGUF file and its shards, of any number."""
        if output.suffix != ".gguf":
            return []
        pattern = f"{glob.escape(output.stem)}-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].gguf"
        return [output, *sorted(output.parent.glob(pattern))]
