"""What every target's plan has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..engine import plan as plans
from ..sources.checkpoint import Checkpoint
from ..targets.layout import FileLayout
from .options import Options
from .prepared import OutputTensor
from .provenance import OfOutputs


def input_facts(checkpoint: Checkpoint) -> list[list[Any]]:
    """What identifies the inputs' contents, for the fingerprint."""
    return [[f.name, f.size, f.digest] for f in checkpoint.inputs]


def place(tensors: Sequence[OutputTensor], files: Sequence[FileLayout], first_file: int) -> list[plans.Placement]:
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
    files: Sequence[FileLayout],
    placements: Sequence[plans.Placement],
    fingerprint: bytes,
    options: Options,
    description: Mapping[str, Any],
    folder: Path | None = None,
    parts: Mapping[Path, Sequence[int]] | None = None,
) -> plans.Plan:
    """The engine's plan; see ``engine.plan.Plan``."""
    return plans.Plan(
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
        parts=parts or {},
        provenance=OfOutputs(),
    )


def _identities(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The inputs by names that tell them apart: the models of a merge often have files of the same name."""
    names = [f.name for f in checkpoint.inputs]
    return [
        {
            "name": str(f.path) if names.count(f.name) > 1 else f.name, "size": f.size, "mtime_ns": f.mtime_ns,
            "ctime_ns": f.ctime_ns, "inode": f.inode, "device": f.device,
        }
        for f in checkpoint.inputs
    ]  # fmt: skip
