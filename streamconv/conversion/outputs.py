"""From what a user names to a plan: pick the target, open the source, choose, lay out. Rows of several outputs are one item."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .. import found
from ..engine.record import record_path
from ..errors import CannotCreate, UsageError
from ..file_names import PART_FIELD, output_name
from ..quant.base import has_codec
from ..quant.encode import EncodedRows, Encoding, mark_read_again
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from .applying import applied, opened_adapter
from .fitting import idle_notes, pick, refuse_idle, refuse_source
from .hub_models import HubModels
from .layout import Content, make_plan
from .opening import Opener
from .options import Options
from .overlap import refuse_overlap
from .prepared import OutputTensor, Prepared
from .recipe import Recipe
from .report_page import is_page_name, refuse_page
from .reports import check_report
from .requantizing import notes
from .reuse import refuse_missing
from .target import Chosen, Draft, Target
from .unfinished import check_name, recorded_plan

#: what Linux takes, where the file system does not say
_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 4095
#: of a projector that is made beside its text model
_PROJECTOR_TYPE = "F16"


def prepare(source: str | os.PathLike[str], output: str | os.PathLike[str], options: Options) -> Prepared:
    """Plan a conversion: reads headers, configuration and tokenizer, writes nothing.

    Raises
    ------
    UsageError, BadInput, InputMissing, NoPermission : what is wrong, before anything is written
    """
    if not os.fspath(source):
        raise UsageError("a file name is empty")
    output = check_name(output)
    recipe = Recipe((os.fspath(source),), os.fspath(output), options)
    if PART_FIELD in output.name:
        options = replace(options, mmproj_type=options.mmproj_type or _PROJECTOR_TYPE)
    with found.recorded() as plugins:
        target = pick(output, options)
        with opening(output, options, target) as opener:
            takes_modules = "dense_modules" in target.options and not (options.vocab_only or options.mmproj)
            opens = opener.open_with_modules if takes_modules or options.dense_modules else opener.open
            is_adapter = not target.is_folder and opener.is_adapter(source)
            checkpoint = opened_adapter(source, opener, options) if is_adapter else opens(source, target.as_saved)
            checkpoint = applied(checkpoint, opener, options, target) if options.lora else checkpoint
            if options.target_model:
                refuse_source(checkpoint, options, output)
                checkpoint = replace(checkpoint, target=opener.open_side_files(options.target_model))
            prepared = planned(checkpoint, opener, output, options, target, plugins)
    idle = idle_notes(source, options, from_hub=prepared.hub is not None)
    return replace(prepared, warnings=[*prepared.warnings, *idle], recipe=recipe)


@contextmanager
def opening(output: Path, options: Options, target: Target) -> Iterator[Opener]:
    """Opens the inputs of a job for ``output``; what it fetches by stays open unless the job is refused.

    Raises
    ------
    UsageError : an option has no effect
    """
    refuse_idle(options, target, output)
    hub = HubModels(
        output.parent, evict=options.evict, offline=options.offline, refresh=options.refresh,
        pins={} if options.force else pins_of(output),
    )  # fmt: skip
    try:
        yield Opener(options, hub)
    except BaseException:
        hub.close()
        raise


def planned(
    checkpoint: Checkpoint, opener: Opener, output: Path, options: Options, target: Target, plugins: set[str]
) -> Prepared:
    """The plan of what ``opener`` opened as ``checkpoint``.

    Parameters
    ----------
    plugins : what other packages have a part in it, known when all is chosen

    Raises
    ------
    UsageError, BadInput : options do not fit the checkpoint, or the output is among the inputs
    """
    refuse_source(checkpoint, options, output)
    drafts = target.choose(checkpoint, options)
    hub = opener.hub if opener.hub.models else None
    prepared = _laid_out(checkpoint, output, target, drafts, options, sorted(plugins), hub)
    refuse_long_names(prepared)
    refuse_inputs(checkpoint, prepared, opener.roots, options)
    if options.report:
        check_report(options.report, prepared.plan, options.force)
        refuse_page(options, prepared)
    refuse_missing(options.reuse, is_begun=bool(recorded_plan(output)))
    return prepared


def pins_of(output: Path) -> dict[str, str]:
    """The commits that an unfinished job for ``output`` was planned with, by reference."""
    revisions = recorded_plan(output).get("revisions")
    if not isinstance(revisions, dict):
        return {}  # none of them is from the hub, or the file is damaged: what is remembered decides
    return {str(name): str(commit) for name, commit in revisions.items()}


def _laid_out(
    checkpoint: Checkpoint,
    output: Path,
    target: Target,
    drafts: Sequence[Draft],
    options: Options,
    plugins: list[str],
    hub: HubModels | None,
) -> Prepared:
    by_name = {
        output if target.is_folder else output.with_name(output_name(output.name, d.type, d.part)): d for d in drafts
    }
    if len(by_name) < len(drafts):
        raise UsageError(
            f"--type {options.type} names one type twice: two outputs would be {next(iter(by_name))}",
            "Here auto stands for one of the other types.",
        )
    items: dict[Rows, EncodedRows] = {}
    names: set[str] = set()
    contents = [Content(p, d, [_tensor(t, items, names, options) for t in d.tensors]) for p, d in by_name.items()]
    mark_read_again([*items.values()])
    plan, outputs = make_plan(checkpoint, output, target, contents, options, plugins, hub.revisions if hub else {})
    warnings = [*dict.fromkeys(text for draft in drafts for text in draft.warnings), *notes(outputs)]
    left_out = {name: why for name, why in drafts[0].left_out.items() if all(name in d.left_out for d in drafts)}
    return Prepared(checkpoint.path, plan, drafts[0].arch, outputs, left_out, warnings, hub)


def _tensor(chosen: Chosen, items: dict[Rows, EncodedRows], names: set[str], options: Options) -> OutputTensor:
    """``chosen`` as a part of an item: the same rows in several outputs are one of ``items``, with an encoding for each.

    ``names`` are those of the items, by which results are told: other rows of the same name are called by their type too.
    """
    rows, type_ = chosen.rows, chosen.type
    if type_.name != rows.dtype and chosen.codec is None and not has_codec(type_.name):
        raise UsageError(f"{chosen.name}: this version cannot write {type_.name}", "Choose another type.")
    if rows not in items:
        name = f"{chosen.name} as {type_.name}" if chosen.name in names else chosen.name
        names.add(name)
        items[rows] = EncodedRows(name, rows, (), options.allow_nonfinite, number=len(items))
    part = items[rows].add(
        Encoding(
            rows, type_, weights=chosen.weights, allow_nonfinite=options.allow_nonfinite,
            measure=options.measure or (options.report is not None and not is_page_name(options.report)), compat=options.compat,
            own_codec=chosen.codec,
        )
    )  # fmt: skip
    return OutputTensor(chosen.name, items[rows], part, chosen.reason, chosen.is_listed)


def refuse_long_names(prepared: Prepared) -> None:
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


def refuse_inputs(checkpoint: Checkpoint, prepared: Prepared, roots: Sequence[Path], options: Options) -> None:
    """Refuse to write over, around or into what is read."""
    plan, report = prepared.plan, options.report
    given = [path for path in (options.tensor_type_file, options.metadata) if path]
    writes = [*(f.path for f in plan.files), *map(record_path, plan.outputs), *([report] if report else [])]
    folders = [plan.job_dir, *([plan.folder] if plan.folder else [])]
    read = [*(f.path for f in checkpoint.inputs), *options.imatrix, *given]
    refuse_overlap(writes, folders, roots, read, copied=plan.folder is not None)
