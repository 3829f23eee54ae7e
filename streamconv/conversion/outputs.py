"""From what a user names to a plan: pick the target, open the source, choose, lay out. Rows of several outputs are one item."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .. import found
from ..engine.record import record_path
from ..errors import CannotCreate, UsageError
from ..quant.base import has_codec
from ..quant.encode import EncodedRows, Encoding
from ..sources.checkpoint import Checkpoint
from .fitting import idle_notes, pick, refuse_idle, refuse_source
from .opening import open_source
from .options import Options
from .overlap import refuse_overlap
from .planning import make_plan
from .prepared import Output, OutputTensor, Prepared
from .reports import check_report
from .requantizing import notes
from .supply import Supply
from .target import Draft, Target
from .unfinished import check_name, recorded_plan

#: what Linux takes, where the file system does not say
_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 4095


def prepare(source: str | os.PathLike[str], output: str | os.PathLike[str], options: Options) -> Prepared:
    """Plan a conversion: reads headers, configuration and tokenizer, writes nothing.

    Raises
    ------
    UsageError, BadInput, InputMissing, NoPermission : what is wrong, before anything is written
    """
    if not os.fspath(source):
        raise UsageError("a file name is empty")
    output = check_name(output)
    with found.recorded() as plugins:
        target = pick(output, options)
        prepared = planned(
            output, options, target, lambda supply: open_source(source, options, supply, target.as_saved), plugins
        )
    idle = idle_notes(source, options, from_hub=prepared.supply is not None)
    return replace(prepared, warnings=[*prepared.warnings, *idle])


def planned(
    output: Path,
    options: Options,
    target: Target,
    open_: Callable[[Supply], Checkpoint],
    plugins: set[str],
) -> Prepared:
    """The plan of what ``open_`` opens for ``output``, with the downloads that provide its inputs.

    Parameters
    ----------
    open_ : given where models of the hub come from
    plugins : what other packages have a part in it, known when all is chosen

    Raises
    ------
    UsageError : an option has no effect, or the output is among the inputs
    """
    refuse_idle(options, target, output)
    supply = Supply(
        output.parent, evict=options.evict, offline=options.offline, refresh=options.refresh,
        pins={} if options.force else _pins(output),
    )  # fmt: skip
    try:
        checkpoint = open_(supply)
        refuse_source(checkpoint, options)
        drafts = target.choose(checkpoint, options)
        prepared = _laid_out(checkpoint, output, target, drafts, options, sorted(plugins))
        _refuse_long_names(prepared)
        _refuse_overlap(checkpoint, prepared, supply, options)
        if options.report:
            check_report(options.report, prepared.plan, options.force)
    except BaseException:
        supply.close()
        raise
    if not supply.models:
        return prepared
    description = {**prepared.plan.description, "revisions": supply.revisions}
    return replace(prepared, plan=replace(prepared.plan, description=description), supply=supply)


def _pins(output: Path) -> dict[str, str]:
    """The commits that an unfinished job for ``output`` was planned with, by reference."""
    revisions = recorded_plan(output).get("revisions")
    if not isinstance(revisions, dict):
        return {}  # none of them is from the hub, or the file is damaged: what is remembered decides
    return {str(name): str(commit) for name, commit in revisions.items()}


def _laid_out(
    checkpoint: Checkpoint, output: Path, target: Target, drafts: Sequence[Draft], options: Options, plugins: list[str]
) -> Prepared:
    names = [output if target.is_folder else output.with_name(output.name.replace("{type}", d.type)) for d in drafts]
    if len(set(names)) < len(names):
        raise UsageError(
            f"--type {options.type} names one type twice: two outputs would be {names[0]}",
            "Here auto stands for one of the other types.",
        )
    tensors = _items(drafts, options)
    plan, files = make_plan(
        checkpoint, output, target, list(zip(names, drafts, tensors, strict=True)), options, plugins
    )
    outputs = [Output(*each) for each in zip(names, [d.type for d in drafts], tensors, files, strict=True)]
    warnings = [*dict.fromkeys(text for draft in drafts for text in draft.warnings), *notes(outputs)]
    return Prepared(checkpoint.path, plan, drafts[0].arch, outputs, drafts[0].left_out, warnings)


def _items(drafts: Sequence[Draft], options: Options) -> list[list[OutputTensor]]:
    """The tensors of every output; the same rows in several of them are one item, with an encoding for each."""
    measure = options.measure or options.report is not None
    parts: dict[int, list[Encoding]] = {}
    for tensor in (t for draft in drafts for t in draft.tensors):
        if tensor.type.name != tensor.rows.dtype and not has_codec(tensor.type.name):
            raise UsageError(f"{tensor.name}: this version cannot write {tensor.type.name}", "Choose another type.")
        parts.setdefault(id(tensor.rows), []).append(
            Encoding(
                tensor.rows, tensor.type, weights=tensor.weights, allow_nonfinite=options.allow_nonfinite, measure=measure,
                compat=options.compat,
            )
        )  # fmt: skip
    items = {
        id(t.rows): EncodedRows(t.name, t.rows, parts[id(t.rows)], options.allow_nonfinite)
        for draft in drafts
        for t in draft.tensors
    }
    numbers = {rows: iter(range(len(own))) for rows, own in parts.items()}
    return [
        [OutputTensor(t.name, items[id(t.rows)], next(numbers[id(t.rows)]), t.reason) for t in draft.tensors]
        for draft in drafts
    ]


def _refuse_long_names(prepared: Prepared) -> None:
    """CannotCreate for a name that the file system of the output would not take, before anything is made for it."""
    for path in (prepared.plan.output, *(f.path for f in prepared.plan.files)):
        try:
            most = os.pathconf(path.parent, "PC_NAME_MAX")
        except OSError:  # a folder that is not there yet
            most = _MAX_NAME_BYTES
        size, whole = len(os.fsencode(path.name)), len(os.fsencode(path.absolute()))
        if size > most or whole > _MAX_PATH_BYTES:
            what, n, most = ("name", size, most) if size > most else ("path", whole, _MAX_PATH_BYTES)
            raise CannotCreate(
                f"{path}: the {what} is too long: it has {n} bytes, the file system allows at most {most}",
                "Choose a shorter one.",
            )


def _refuse_overlap(checkpoint: Checkpoint, prepared: Prepared, supply: Supply, options: Options) -> None:
    """Refuse to write over, around or into what is read."""
    plan, report, rules = prepared.plan, options.report, options.tensor_type_file
    writes = [*(f.path for f in plan.files), *map(record_path, plan.outputs), *([report] if report else [])]
    folders = [plan.job_dir, *([plan.folder] if plan.folder else [])]
    read = [*(f.path for f in checkpoint.inputs), *options.imatrix, *([rules] if rules else [])]
    refuse_overlap(writes, folders, supply.roots, read, copied=plan.folder is not None)
