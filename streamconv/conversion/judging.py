"""What loaders will make of an output is known before it is written: its header is judged as ``streamconv check`` judges a file.

What the source lacks, the output lacks: that is told. What the source has and the output lacks is our mistake: that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .. import models
from ..errors import BadInput
from ..metadata import Metadata
from ..rows import Rows
from ..sources.checkpoint import Checkpoint

if TYPE_CHECKING:
    from ..check import Finding

_NUMBER = re.compile(r"(?<=blk\.)\d+")


def judged_model(checkpoint: Checkpoint, family: models.Family, model: models.Model) -> list[str]:
    """What to tell of the model of a checkpoint.

    Raises
    ------
    BadInput : the checkpoint has what the output lacks, or tensors whose shapes are not those of config.json
    """
    from ..check import judge

    findings = judge(model.metadata, model.tensors)
    offered: dict[str, str] | None = None
    for f in findings:
        if f.kind == "shape" and not family.is_misfit((f.where, *f.others)):
            found, right = (_sizes(shape) for shape in f.shapes)
            raise BadInput(
                f"{checkpoint.path}: tensor {model.made_of.get(f.where) or f.where!r} has shape {found}, config.json asks"
                f" for {right} ({f.where})",
                "The tensor and config.json are from different models; fetch the checkpoint again.",
            )
        if f.kind == "missing":
            offered = models.offered(checkpoint, family, model.left_out) if offered is None else offered
            for name in (f.where, *f.others):
                _refuse_forgotten(name, offered, model.arch)
    return _told(findings)


def judged_file(checkpoint: Checkpoint, metadata: Metadata, tensors: Mapping[str, Rows], overridden: bool) -> list[str]:
    """What to tell of a GGUF file that is written again; ``overridden``: with keys that the user overrides.

    Raises
    ------
    BadInput : loaders take the source and would not take the output
    """
    from ..check import judge

    findings = judge(metadata, tensors)
    if any(f.severity == "error" for f in findings) and not overridden:
        assert checkpoint.metadata is not None
        before = {_place(f) for f in judge(checkpoint.metadata, checkpoint.tensors)}
        for f in findings:
            if f.severity == "error" and _place(f) not in before:
                raise BadInput(
                    f"{checkpoint.path}: no runtime would load the output: {f.message}",
                    "The file can be written with other types, but not with other layers.",
                )
    return _told(findings)


def _refuse_forgotten(name: str, offered: Mapping[str, str], arch: str) -> None:
    if name in offered:
        raise BadInput(
            f"no runtime would load the output: it lacks {name}, which {offered[name]} of the checkpoint has",
            f"This is an error in this version's rules for {arch!r}; please report it.",
        )


def _told(findings: Iterable[Finding]) -> list[str]:
    return [
        f"no runtime will load the output: {f.message}" if f.severity == "error" else f.message
        for f in findings
        if (f.severity == "error" and f.kind != "alone") or f.kind in ("unknown", "marker")
    ]


def _place(finding: Finding) -> tuple[str, str, str]:
    """What it is about, whatever the number of the layer."""
    return finding.severity, finding.kind, _NUMBER.sub("*", finding.where)


def _sizes(shape: Iterable[int | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
