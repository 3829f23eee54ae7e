"""What every target's plan has in common."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..engine import plan as plans
from ..sources.checkpoint import Checkpoint
from ..targets.layout import FileLayout
from .options import Options
from .prepared import OutputTensor
from .provenance import OfOutputs

#: the files of an output, given what identifies the job
LayOut = Callable[[str], Sequence[FileLayout]]
#: stands in the headers for the fingerprint while it is not known: as long as it is
_UNKNOWN_JOB = "0" * 64


def _place(tensors: Sequence[OutputTensor], files: Sequence[FileLayout], first_file: int) -> list[plans.Placement]:
    """Placements of one output's tensors; its files have the numbers from ``first_file`` on. Empty tensors need none."""
    return [
        plans.Placement(tensors[number].item, tensors[number].part, first_file + k, offset)
        for k, f in enumerate(files)
        for number, offset in f.tensors
        if tensors[number].encoding.n_bytes
    ]


def make_plan(
    checkpoint: Checkpoint,
    output: Path,
    outputs: Sequence[tuple[Sequence[OutputTensor], LayOut]],
    options: Options,
    description: Mapping[str, Any],
    folder: Path | None = None,
    names: Sequence[Path] = (),
) -> tuple[plans.Plan, list[range]]:
    """The engine's plan, see ``engine.plan.Plan``, and the numbers of every output's files in it; ``names`` where several are."""
    drafts = [lay_out(_UNKNOWN_JOB) for _, lay_out in outputs]
    ends = [sum(map(len, drafts[: n + 1])) for n in range(len(drafts))]
    ranges = [range(end - len(draft), end) for end, draft in zip(ends, drafts, strict=True)]
    placements = [
        place
        for (tensors, _), draft, numbers in zip(outputs, drafts, ranges, strict=True)
        for place in _place(tensors, draft, numbers.start)
    ]
    draft = [f for own in drafts for f in own]
    fingerprint = plans.fingerprint(_facts(checkpoint, draft, placements, options, folder))
    del draft, drafts  # the header of a large vocabulary has megabytes, and there would be two
    files = [f for _, lay_out in outputs for f in lay_out(fingerprint.hex())]
    plan = plans.Plan(
        output=output,
        files=[plans.OutputFile(f.path, f.header, f.size) for f in files],
        placements=placements,
        fingerprint=fingerprint,
        inputs=_identities(checkpoint),
        verify_inputs=checkpoint.verify_unchanged,
        description={
            "source": str(checkpoint.path),
            **description,
            "input size": sum(f.size for f in checkpoint.inputs),
            "output size": sum(f.size for f in files),
        },
        chunk_bytes=options.chunk_bytes,
        folder=folder,
        admits_nonfinite=options.allow_nonfinite,
        parts=dict(zip(names, ranges, strict=True)) if names else {},
        provenance=OfOutputs(),
    )
    return plan, ranges


def _facts(
    checkpoint: Checkpoint,
    files: Sequence[FileLayout],
    placements: Sequence[plans.Placement],
    options: Options,
    folder: Path | None,
) -> dict[str, Any]:
    """Everything that decides the outputs' bytes, for the fingerprint; and the size of chunks, which decides the index.

    It need not be kept complete: a byte is of a file's first ones, which are all here, or made by an item, which says itself
    what decides it, from the bytes of an input.
    """
    inputs = {f.path: [f.name, f.size, f.digest] for f in checkpoint.inputs}
    used: dict[Path, int] = {}
    items: dict[int, int] = {}
    identities = []
    for item in (place.item for place in placements):
        if id(item) not in items:
            items[id(item)] = len(items)
            read = [used.setdefault(file.path, len(used)) for file in item.files]
            identities.append([item.identity(), read])
    return {
        "files": [
            [
                "" if folder is None else f.path.relative_to(folder).as_posix(),
                hashlib.sha256(f.header).hexdigest(),
                f.size,
            ]
            for f in files
        ],
        "items": identities,
        "places": [[items[id(place.item)], place.part, place.file, place.offset] for place in placements],
        "inputs": [inputs[path] for path in used],
        "chunk_bytes": options.chunk_bytes,
    }


def _identities(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The inputs by names that tell them apart: the models of a merge often have files of the same name."""
    names = [f.name for f in checkpoint.inputs]
    return [
        {
            "name": str(f.path) if names.count(f.name) > 1 else f.name, "size": f.size, "mtime_ns": f.mtime_ns,
            "ctime_ns": f.ctime_ns, "inode": f.inode, "device": f.device, "digest": f.digest,
        }
        for f in checkpoint.inputs
    ]  # fmt: skip
