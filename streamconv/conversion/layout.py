"""Lays the outputs out, with the fingerprint of all that decides their bytes: the engine's plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..engine import plan as plans
from ..rows import digest_of
from ..sources.checkpoint import Checkpoint, InputFile
from ..targets.layout import FileLayout
from .options import Options
from .prepared import Output, OutputTensor
from .target import Draft, Target

#: stands in the headers for the fingerprint while it is not known: as long as it is
_UNKNOWN_JOB = "0" * 64


class Content(NamedTuple):
    """What an output holds, before it has a place: its name, its draft, and the tensors of that as parts of items."""

    path: Path
    draft: Draft
    tensors: Sequence[OutputTensor]


def make_plan(
    checkpoint: Checkpoint,
    output: Path,
    target: Target,
    contents: Sequence[Content],
    options: Options,
    plugins: Sequence[str] = (),
    revisions: Mapping[str, str] | None = None,
) -> tuple[plans.Plan, list[Output]]:
    """The engine's plan, see ``engine.plan.Plan``, and the outputs with the numbers of their files in it.

    Parameters
    ----------
    plugins : what other packages have a part in it
    revisions : commits of the models of the hub by their references
    """
    folder = output if target.is_folder else None
    files: list[FileLayout] = []
    placements: list[plans.Placement] = []
    outputs = []
    for path, draft, tensors in contents:
        layouts = target.lay_out(path, draft, options, _UNKNOWN_JOB)
        placements += _place(tensors, layouts, len(files))
        listed = [tensor for tensor in tensors if tensor.is_listed]
        outputs.append(Output(path, draft.type, draft.arch, listed, range(len(files), len(files) + len(layouts))))
        files += layouts
    facts = _facts(checkpoint, files, placements, options, folder)
    fingerprint = plans.fingerprint({**facts, "plugins": plugins} if plugins else facts)
    del files, layouts  # the header of a large vocabulary has megabytes, and there would be two
    job = fingerprint.hex()
    files = [f for c in contents for f in target.lay_out(c.path, c.draft, options, job)]
    plan = plans.Plan(
        output=output,
        files=[plans.OutputFile(f.path, f.header, f.size, f.accept, target.names_job) for f in files],
        placements=placements,
        fingerprint=fingerprint,
        inputs=identities(checkpoint.inputs),
        verify_inputs=checkpoint.verify_unchanged,
        description={
            "source": str(checkpoint.path),
            "type": ",".join(o.type for o in outputs),
            "architecture": contents[0].draft.arch,
            "input size": sum(f.size for f in checkpoint.inputs),
            "output size": sum(f.size for f in files),
            **({"revisions": revisions} if revisions else {}),
        },
        chunk_bytes=options.chunk_bytes,
        folder=folder,
        admits_nonfinite=options.allow_nonfinite,
        parts={} if folder else {o.path: o.files for o in outputs},
        provenance=target,
        key_of=_keys(checkpoint, [tensor for c in contents for tensor in c.tensors], plugins),
        has_manifest=options.manifest,
    )
    return plan, outputs


def _place(tensors: Sequence[OutputTensor], files: Sequence[FileLayout], first_file: int) -> list[plans.Placement]:
    """Placements of one output's tensors; its files have the numbers from ``first_file`` on. Empty tensors need none."""
    return [
        plans.Placement(tensors[number].item, tensors[number].part, k, offset)
        for k, f in enumerate(files, first_file)
        for number, offset in f.tensors
        if tensors[number].encoding.n_bytes
    ]


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
    inputs = {f.path: list(f.content) for f in checkpoint.inputs}
    used: dict[Path, int] = {}
    order: dict[int, int] = {}
    identities = []
    for item in (place.item for place in placements):
        if item.number not in order:
            order[item.number] = len(order)
            read = [used.setdefault(file.path, len(used)) for file in item.files]
            identities.append([item.identity(), read, *([item.together] if item.together else ())])
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
        "places": [[order[place.item.number], place.part, place.file, place.offset] for place in placements],
        "inputs": [inputs[path] for path in used],
        "chunk_bytes": options.chunk_bytes,
    }


def _keys(
    checkpoint: Checkpoint, tensors: Sequence[OutputTensor], plugins: Sequence[str]
) -> Callable[[plans.Item, int], plans.Key]:
    """What decides the bytes of a tensor, beside its name and place; see ``engine.plan.Key``."""
    inputs = {f.path: f for f in checkpoint.inputs}
    items = {tensor.item.number: tensor.item for tensor in tensors}

    @lru_cache(maxsize=1)  # an item's parts are asked for one after the other
    def of_rows(number: int) -> tuple[str, str]:
        item = items[number]
        read = [inputs[file.path] for file in item.files]
        facts = [item.rows.identity(), [list(f.content) for f in read], *plugins]
        return plans.fingerprint(facts).hex(), digest_of(
            [[f.size, f.mtime_ns, f.ctime_ns, f.inode, f.device, f.digest] for f in dict.fromkeys(read)]
        )

    def key_of(item: plans.Item, part: int) -> plans.Key:
        encoding = items[item.number].parts[part]
        rows, files = of_rows(item.number)
        return plans.Key(encoding.type.name, digest_of(encoding.identity()), rows, files)

    return key_of


def identities(inputs: Sequence[InputFile]) -> list[dict[str, Any]]:
    """The inputs by names that tell them apart: the models of a merge often have files of the same name."""
    names = [f.name for f in inputs]
    return [
        {
            "name": str(f.path) if names.count(f.name) > 1 else f.name, "size": f.size, "mtime_ns": f.mtime_ns,
            "ctime_ns": f.ctime_ns, "inode": f.inode, "device": f.device, "digest": f.digest,
        }
        for f in inputs
    ]  # fmt: skip
