"""What a job folder tells of a job, without taking it over."""

from __future__ import annotations

import glob
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..engine import files, job_files
from ..engine.index_file import read_progress
from ..engine.plan import job_folder
from ..engine.record import record_path
from ..errors import InputMissing, UsageError
from ..file_names import GGUF, around_fields, first_parts


def check_name(output: str | os.PathLike[str]) -> Path:
    """The path of an output.

    Raises
    ------
    UsageError : none can have it: nothing could be put beside it ("", ".", "..", "/"), or it is that of a job or a record
    """
    if not os.fspath(output):
        raise UsageError("a file name is empty")
    if "\0" in os.fspath(output):
        raise UsageError(f"{os.fspath(output)!r} is not a valid file name")
    if Path(output).suffix == ".streamconv":
        raise UsageError(
            f"{os.fspath(output)}: names that end in .streamconv are reserved for unfinished jobs and records",
            f"The output is {Path(output).with_suffix('')}.",
        )
    if Path(output).name in ("", ".."):
        raise UsageError(
            f"{os.fspath(output)} is not a valid output name", "Give a file name, or a folder that does not exist yet."
        )
    return Path(output)


def recorded_plan(output: Path) -> dict[str, Any]:
    """The ``plan.json`` of the unfinished job for ``output``; {} where there is none or it is damaged.

    Errors: NoPermission where the job folder is not ours.
    """
    folder = job_folder(output)
    if os.path.lexists(folder):
        files.require_own_dir(folder)
    return job_files.recorded_plan(folder)


def status(output: str | os.PathLike[str]) -> dict[str, Any]:
    """How far the job for ``output`` is, JSON-able: ``status`` is ``done`` or ``unfinished``; the latter has more to tell.

    Parameters
    ----------
    output : as ``convert`` was given it, ``{type}`` and ``{part}`` included

    Raises
    ------
    UsageError : no output can have this name
    InputMissing : there is neither such an output nor a job for it
    NoPermission : the job belongs to another user

    Notes
    -----
    Not checked: that a finished output is whole, or that an unfinished one holds what its index says; the next run does.
    """
    output = check_name(output)
    folder = job_folder(output)
    if not folder.is_dir() or job_files.is_foreign(folder):
        if not _is_there(output):
            raise InputMissing(
                f"{output}: no output and no unfinished job has this name", "Give the name that convert was given."
            )
        return {"status": "done", "resumable": False}
    record = recorded_plan(output)
    with suppress(FileNotFoundError):
        files.status_own(folder / "lock")  # a job that convert will not go on with
    found = read_progress(folder / "index.wal")
    total = record.get("output size")
    return {
        "status": "unfinished", "resumable": True, "done": found.n_bytes if found else 0,
        "total": total if isinstance(total, int) else 0, "chunks_done": len(found.done) if found else 0,
        "chunks": found.header.n_slots if found else 0,
        "source": record.get("source"), "type": record.get("type"), "job": str(folder),
    }  # fmt: skip


def _is_there(output: Path) -> bool:
    """Whether a finished output has this name: a file, the first of its shards, one of several, a folder of ours or of weights."""
    pieces = around_fields(output.stem)
    stem = "*".join(map(glob.escape, pieces))
    patterns = [first_parts(stem, output.suffix)] if output.suffix else []
    if record_path(output).is_file():  # of shards by what their names begin with
        patterns.append(first_parts(stem, GGUF.endings[0]))
    if len(pieces) > 1:
        patterns.append(stem + output.suffix)
    is_folder = output.is_dir() and (any(output.glob("*.safetensors")) or record_path(output).is_file())
    return output.is_file() or is_folder or any(any(output.parent.glob(p)) for p in patterns)
