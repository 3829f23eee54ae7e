"""Adds importance matrices up, or converts one to the other format; without a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..conversion import Options
from ..conversion.execution import carry_out, open_job
from ..conversion.overlap import refuse_overlap
from ..conversion.unfinished import check_name
from ..engine import budget as budgets
from ..engine import run as runs
from ..engine.plan import Plan
from ..engine.record import record_path
from ..errors import UsageError
from ..forward.chunks import N_CTX
from ..quant.imatrix_files import read_imatrix_file
from ..quant.imatrix_sums import MOST_TOKENS, Sums, chunk_size_of
from ..targets.imatrix import ImatrixLayout, layout
from .groups import Group, grouped
from .planning import UNKNOWN_JOB, any_changed, check_ending, make_plan
from .request import input_file


def open_sums(paths: Sequence[Path], chunk_size: int | None = None) -> Sums:
    """Importance matrices as one; with tokens per chunk as their files say unless they are given.

    Raises
    ------
    BadInput, InputMissing : one of them has another format, or cannot be read; or they are of different models
    """
    found = [read_imatrix_file(path) for path in paths]
    return Sums(found, chunk_size or chunk_size_of(found, N_CTX))


def encoded(group: Group, file: ImatrixLayout, sums: Sums) -> bytes:
    """The bytes of a group whose values are those of ``sums``."""
    parts = [file.encode(shape, sums.sums(shape.name), sums.counts[shape.name]) for shape in group.entries]
    return with_tail(group, file, b"".join(parts))


def with_tail(group: Group, file: ImatrixLayout, data: bytes) -> bytes:
    """``data``, and what lies behind the last entry of a file if that is of the ``group``."""
    return data + file.tail if group.offset + group.n_bytes == file.size else data


def prepare_sum(output: Path, before: Sequence[Path], chunk_size: int | None = None) -> tuple[Plan, Sums]:
    """Plan a file of all importance matrices ``before``.

    Parameters
    ----------
    chunk_size : tokens of a chunk; None: as the files say

    Raises
    ------
    UsageError, BadInput, InputMissing, NoPermission : what is wrong, before anything is written
    """
    output = check_ending(check_name(output))
    if chunk_size is not None and chunk_size >= MOST_TOKENS:
        raise UsageError(f"-c {chunk_size}: chunks have fewer than {MOST_TOKENS:,} tokens", f"Use -c {N_CTX}.")
    sums = open_sums(before, chunk_size)
    inputs = [input_file(path)[0] for path in before]
    shapes = [
        shape for name, shape in sums.shapes.items() if output.suffix == ".gguf" or sums.counts[name].any()
    ]  # the older format has no place for what was never reached
    lay_out = partial(layout, output, shapes, sums.datasets, sums.n_chunks, sums.chunk_size)
    blank = lay_out(UNKNOWN_JOB)
    groups = grouped(shapes, blank, make=lambda group: encoded(group, blank, sums))
    plan = make_plan(
        output, lay_out, groups, inputs, lambda: any_changed(inputs), {"kind": "sum", "chunk_size": sums.chunk_size},
        {"source": ", ".join(map(str, before))},
    )  # fmt: skip
    refuse_overlap([output, record_path(output)], [plan.job_dir], [], before, copied=False)
    return plan, sums


def write_sum(plan: Plan, options: Options, reporter: runs.Reporter) -> runs.Outcome | None:
    """Carry out such a plan; None when the file is there already."""
    stop = runs.StopRequest(options.stop_after_s)
    threads = budgets.default_threads() if options.threads is None else options.threads
    widest = max(item.row_bytes[0] for item, _ in plan.items)
    budget = budgets.share(options.ram, threads, 1, widest)
    return carry_out(
        plan, options, reporter, lambda: open_job(plan, options, reporter),
        lambda job: runs.run(job, budget, reporter, stop),
    )  # fmt: skip
