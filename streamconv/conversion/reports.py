"""A plan and its result for people and pipelines."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from ..engine import files
from ..engine import job as jobs
from ..engine import run as runs
from ..engine.existing import Existing, look
from ..engine.plan import Plan
from ..engine.record import record_path
from ..engine.unfinished import refuse_another
from ..errors import CannotCreate, NoPermission, StreamconvError, UsageError, raise_exhausted
from ..report import is_page
from ..rows import Quality, merge_of
from ..sources.zstd import packed_sizes
from . import estimate
from .disk_space import disk_bytes
from .execution import budget_of
from .options import Options
from .prepared import OutputTensor, Prepared
from .report_page import Run, conversion_page, is_page_name
from .reuse import reusable


def describe(prepared: Prepared, options: Options) -> dict[str, Any]:
    """The plan for people and pipelines, JSON-able."""
    plan, budget = prepared.plan, budget_of(prepared, options)
    reuse = reusable(prepared, options)
    tensors = [
        {
            "name": t.name, "shape": list(t.item.rows.shape), "source_type": t.item.rows.dtype,
            "type": t.encoding.type.name, "bytes": t.encoding.n_bytes, "reason": t.reason, "output": str(o.path),
            **_merge(t),
        }
        for o in prepared.outputs
        for t in o.tensors
    ]  # fmt: skip
    outputs = [
        {"path": str(o.path), "type": o.type, "parameters": o.n_params, "bits_per_weight": o.bits_per_weight}
        for o in prepared.outputs
    ]
    return {
        "source": str(prepared.source),
        "files": [str(f.path) for f in plan.files],
        "architecture": prepared.arch,
        "type": ",".join(o.type for o in prepared.outputs),
        "fingerprint": plan.fingerprint.hex(),
        "outputs": outputs,
        "parameters": prepared.outputs[0].n_params,
        "bits_per_weight": prepared.outputs[0].bits_per_weight,
        "input_bytes": sum(i["size"] for i in plan.inputs),
        "packed": packed_sizes(file for item in prepared.items for file in item.files),
        "output_bytes": plan.total_bytes,
        "disk_bytes": plan.total_bytes + 8192 + 128 * len(plan.chunks()),
        "ram_bytes": budget.ram_bytes,
        "threads": budget.threads,
        "estimated_s": round(estimate.seconds(prepared, budget.threads, reuse.found.sources), 1),
        "chunks": len(plan.chunks()),
        "fetch": _fetching(prepared),
        "reuse": {
            "bytes": reuse.found.n_bytes, "tensors": len(reuse.found.sources), "from": list(map(str, reuse.found.donors)),
        },
        "tensors": tensors,
        "left_out": dict(prepared.left_out),
        "warnings": [*prepared.warnings, *reuse.told(), *_obstacles(prepared, options)],
    }  # fmt: skip


def _merge(tensor: OutputTensor) -> dict[str, Any]:
    """How a tensor is merged: the method and of how many inputs; nothing where it is not."""
    found = merge_of(tensor.item.rows)
    return {} if found is None else {"method": found.method, "merged": found.n_inputs}


def _obstacles(prepared: Prepared, options: Options) -> list[str]:
    """What a conversion would be refused for as things are now, though the plan is sound; and what it would have to read first."""
    plan, found = prepared.plan, Existing()
    try:
        found = look(plan, thorough=False)
        if not found.complete or options.force:
            found.refuse(force=options.force, update=options.update)
            jobs.preflight(plan)
            if not (options.force or options.update):
                refuse_another(plan)
    except StreamconvError as e:
        return [f"convert will refuse this: {e.message}"]
    return [f"convert will read contents and compare them first: {doubt}" for doubt in found.undecided]


def _fetching(prepared: Prepared) -> dict[str, Any] | None:
    """What has to be downloaded from the hub; None when nothing does."""
    hub = prepared.hub
    if hub is None:
        return None
    left = hub.left_out()
    return {
        "models": [f"{model.repo}@{model.commit}" for model in hub.models.values()],
        "missing_bytes": hub.missing_bytes(),
        "disk_bytes_keep": disk_bytes(hub, evict=False),
        "disk_bytes_evict": disk_bytes(hub, evict=True),
        "left_out": [f.path for f in left],
        "left_out_bytes": sum(f.size for f in left),
    }


def check_report(path: Path, plan: Plan | None, force: bool) -> None:
    """Refuse a report that could not be written in the end, or whose place something else has.

    Parameters
    ----------
    plan : what is made besides, if anything is

    Raises
    ------
    UsageError : it is an output or what is kept beside one, or lies in it; or no file can have its name
    CannotCreate : its folder is not there, or the file is no report and not ``force``
    NoPermission : its folder may not be written
    """
    if path.name in ("", "..") or "\0" in os.fspath(path):
        raise UsageError(f"{os.fspath(path)!r} is not a valid name for a report", "Choose another name for --report.")
    folder = path.absolute().parent
    real = Path(os.path.realpath(folder), path.name)
    outputs = (
        [plan.output, plan.job_dir, *(f.path for f in plan.files), *map(record_path, plan.outputs)] if plan else []
    )
    places = {
        p
        for output in outputs
        for p in (Path(os.path.realpath(output)), Path(os.path.realpath(output.parent), output.name))
    }
    if places & {real, *real.parents} or any(_is_same(path, output) for output in outputs):
        raise UsageError(
            f"the report {path} cannot be the output, or be inside it", "Choose another name for --report."
        )
    if not folder.is_dir():
        raise CannotCreate(f"{path}: the folder of the report does not exist", f"Create it first: mkdir -p {folder}")
    if len(os.fsencode(path.name)) > os.pathconf(folder, "PC_NAME_MAX"):
        raise CannotCreate(f"{path}: the name of the report is too long", "Choose another name for --report.")
    if os.path.lexists(path):
        if path.is_symlink() or not path.is_file():
            raise CannotCreate(
                f"{path} is not a regular file, so no report can be written there", "Choose another name."
            )
        if not force and not _is_report(path):
            raise CannotCreate(f"{path} already exists and is not a report", _other_name(plan))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NoPermission(f"{path}: the folder of the report is not writable")


def _other_name(plan: Plan | None) -> str:
    return "Choose another name, or use --force." if plan else "Choose another name."


def _is_same(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _is_report(path: Path) -> bool:
    """Whether the file is empty, or begins as reports do."""
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16)
            return (
                not start
                or is_page(start)
                or {"name", "type", "sha256", "nonfinite", "rmse"} <= json.loads(start.partition(b"\n")[0]).keys()
            )
    except (OSError, ValueError, AttributeError) as e:
        raise_exhausted(e)
        return False


def write_report(prepared: Prepared, outcome: runs.Outcome | None, run: Run, options: Options) -> None:
    """Write the report that was asked for, if any: a page where its name says so, else JSON lines.

    Errors: as ``check_report``, since a file of that name may have appeared during the run.
    """
    path = options.report
    if path is None:
        return
    check_report(path, prepared.plan, options.force)
    text = conversion_page(prepared, outcome, run, options) if is_page_name(path) else _json_lines(prepared, outcome)
    files.write_atomically(path, text)


def _json_lines(prepared: Prepared, outcome: runs.Outcome | None) -> str:
    """Type, hash and error (null where unmeasured) of every tensor as JSON lines, read back from the finished output."""
    unknown = Quality(sum_squared_error=math.nan)
    lines = []
    names = [(t, o) for o in prepared.outputs for t in o.tensors]
    places = {(p.item.number, p.part): p for p in prepared.plan.placements}
    for tensor, output in names:
        encoding, item = tensor.encoding, tensor.item
        n_bytes, n = encoding.n_bytes, item.n_rows * item.n_cols
        digest = hashlib.sha256()
        place = places.get((item.number, tensor.part))
        if place is not None:  # an empty tensor has none
            with open(prepared.plan.files[place.file].path, "rb") as f:
                f.seek(place.offset)
                for at in range(0, n_bytes, 1 << 22):
                    digest.update(f.read(min(1 << 22, n_bytes - at)))
        q = outcome.quality.get((item.name, tensor.part), Quality()) if outcome else unknown
        measured = math.isfinite(q.sum_squared_error)
        record = {
            "name": tensor.name, "type": encoding.type.name, "shape": list(item.rows.shape), "bytes": n_bytes,
            "sha256": digest.hexdigest(), "nonfinite": q.nonfinite if outcome else None,
            "rmse": math.sqrt(q.sum_squared_error / n) if measured and n else None,
            "max_error": q.max_error if measured else None,
        }  # fmt: skip
        if len(prepared.outputs) > 1:
            record["output"] = str(output.path)
        lines.append(json.dumps(record) + "\n")
    return "".join(lines)
