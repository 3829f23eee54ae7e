"""The engine's plan for a file of an importance matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..conversion.layout import identities
from ..conversion.provenance import job_of_gguf
from ..engine import plan as plans
from ..errors import UsageError
from ..forward import Model
from ..forward.chunks import Tokens
from ..sources.checkpoint import InputFile
from ..targets.gguf import encode_value
from ..targets.imatrix import DAT, ImatrixLayout
from .groups import Group, block_of

#: raised where the same text and model give other numbers than before
_SCHEME = 1
#: stands in the header for the fingerprint while it is not known
UNKNOWN_JOB = "0" * 64


class _Provenance:
    """Who made a file of an importance matrix, as far as it says."""

    def job_of(self, path: Path) -> str:
        """See ``engine.plan.Provenance``."""
        return job_of_gguf(path) if path.suffix != DAT else ""


def check_ending(output: Path) -> Path:
    """``output`` again, if its ending says a format.

    Raises
    ------
    UsageError : it has another one
    """
    if output.suffix not in (".gguf", DAT):
        raise UsageError(f"{output}: an importance matrix is a .gguf or a .dat file", f"Name it {output.name}.gguf.")
    return output


def make_plan(
    output: Path,
    lay_out: Callable[[str], ImatrixLayout],
    groups: Sequence[Group],
    inputs: Sequence[InputFile],
    verify_inputs: Callable[[], bool],
    facts: Mapping[str, Any],
    description: Mapping[str, Any],
    scratch_bytes: int = 0,
) -> plans.Plan:
    """The plan.

    Parameters
    ----------
    lay_out : the file with a fingerprint in its header
    groups : all that lies in the file, in its order
    facts : what decides the bytes besides the tensors that the groups are made of
    scratch_bytes : what lies beside the file while it is made
    """
    blank = lay_out(UNKNOWN_JOB)
    if groups[-1].offset + groups[-1].n_bytes != blank.size:
        raise AssertionError(f"{output}: entries were placed in another layout")
    numbers = {file.path: n for n, file in enumerate(inputs)}
    fingerprint = plans.fingerprint(
        {
            **facts,
            "scheme": _SCHEME,
            "file": [hashlib.sha256(blank.header + blank.tail).hexdigest(), blank.size],
            "groups": [[g.name, g.offset, g.identity(), [numbers.get(f.path, -1) for f in g.files]] for g in groups],
            "inputs": [list(file.content)[1:] for file in inputs],
        }
    )
    header = lay_out(fingerprint.hex()).header
    return plans.Plan(
        output=output,
        files=[plans.OutputFile(output, header, blank.size, names_job=output.suffix != DAT)],
        placements=[plans.Placement(group, 0, 0, group.offset) for group in groups],
        fingerprint=fingerprint,
        inputs=identities(inputs),
        verify_inputs=verify_inputs,
        description={
            **description,
            "type": "imatrix",
            "input size": sum(file.size for file in inputs),
            "output size": blank.size,
        },
        provenance=_Provenance(),
        scratch_bytes=scratch_bytes,
    )


def facts_of(model: Model) -> dict[str, Any]:
    """What decides what a model makes of tokens, besides the tensors of its blocks and the bytes of its files."""
    keys = hashlib.sha256()
    for key, value in model.metadata.items():
        if not key.startswith(("tokenizer.", "general.")) or key == "general.architecture":
            keys.update(key.encode() + encode_value(value))
    rest = [rows.identity() for name, rows in model.rows.items() if block_of(name) is None]
    return {"keys": keys.hexdigest(), "rest": rest}


def digest_of(tokens: Tokens) -> str:
    """SHA-256 of the numbers of tokens."""
    return hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()


def any_changed(inputs: Sequence[InputFile], also: Callable[[], bool] = lambda: False) -> bool:
    """Whether something happened to one of ``inputs``; see ``InputFile.verify_unchanged``."""
    return any([file.verify_unchanged() for file in inputs] + [also()])
