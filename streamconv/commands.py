"""What each command does and prints. stdout carries the result, stderr progress and messages."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from . import cluster, conversion, progress
from .engine.budget import default_ram, default_threads
from .engine.run import Outcome
from .errors import UsageError
from .file_names import RECIPES
from .flags import FLAGS, Flag
from .planned import plan_facts, plan_lines, tensor_lines
from .progress import count, duration
from .terminal import say, say_json
from .units import size


def added() -> list[Flag]:
    """The options that targets add, ours and those of other packages."""
    return [flag for target in conversion.TARGETS.there() for flag in target.flags]


def _options(a: argparse.Namespace) -> conversion.Options:
    """The options of a conversion from parsed arguments, those that a target adds included."""
    flags = [flag for flag in (*FLAGS, *getattr(a, "added", ())) if flag.field and a.command in flag.commands]
    return conversion.Options.of({flag.field: getattr(a, flag.dest) for flag in flags if hasattr(a, flag.dest)})


def convert(a: argparse.Namespace) -> int:
    """``streamconv convert``."""
    options = _options(a)
    if any(getattr(a, name, None) for name in ("size", "bpw", "types", "no_check", "thorough", "same_types", "text")):
        from . import sized

        options = sized.with_list(a, options)
    prepare = partial(conversion.prepare, a.source, a.output, options)
    return _show(a, prepare(), options) if a.dry_run else _run(a, _prepared(a, prepare, options), options)


def _prepared(
    a: argparse.Namespace, prepare: Callable[[], conversion.Prepared], options: conversion.Options
) -> conversion.Prepared:
    """What ``prepare`` plans; with --keep-packed, from what was fetched and packed before."""
    if not options.keep_packed:
        return prepare()
    from . import packs

    return packs.kept(a, prepare, options)


def _run(
    a: argparse.Namespace,
    prepared: conversion.Prepared,
    options: conversion.Options,
    execute: Callable[[conversion.Options, progress.Silent], Outcome | None] | None = None,
) -> int:
    """Carry out what is planned, by ``execute`` where that is given, and say how it went."""
    began = time.monotonic()
    reporter = progress.reporter(quiet=a.quiet, as_json=a.json)
    for text in prepared.warnings:
        reporter.message(f"note: {text}")
    with progress.told_in_errors(reporter):
        outcome = execute(options, reporter) if execute else cluster.execute(prepared, options, reporter)
    run = conversion.Run(time.monotonic() - began, reporter.peak_memory, reporter.points)
    conversion.write_report(prepared, outcome, run, options)
    if a.json:
        say_json(_final(prepared, outcome))
    elif not a.quiet:
        say(*_summary(prepared, outcome, run))
    return 0


def merge(a: argparse.Namespace) -> int:
    """``streamconv merge``: ``convert`` for a recipe."""
    if Path(a.source).suffix not in RECIPES:
        raise UsageError(f"{a.source} is not a merge recipe", "Give a RECIPE.yml, or use streamconv convert.")
    return convert(a)


def extract_lora(a: argparse.Namespace) -> int:
    """``streamconv extract-lora``."""
    from .merging.extraction import Extraction, ModuleChoice

    choice = ModuleChoice(
        rank=a.rank,
        embed_lora=a.embed_lora,
        save=tuple(a.save_module),
        include=a.include_regex,
        exclude=a.exclude_regex,
        skip_undecomposable=a.skip_undecomposable,
    )
    options = _options(a)
    extraction = Extraction(choice, a.distribute_scale, a.sv_epsilon)
    prepare = partial(conversion.prepare_adapter, a.base, a.tuned, a.output, extraction, options)
    return _show(a, prepare(), options) if a.dry_run else _run(a, _prepared(a, prepare, options), options)


def split(a: argparse.Namespace) -> int:
    """``streamconv split``."""
    from . import toolbox

    options = _options(a)
    return (_show_files if a.dry_run else _run)(a, toolbox.prepare_split(a.source, a.output, options), options)


def join(a: argparse.Namespace) -> int:
    """``streamconv join``."""
    from . import toolbox

    options = _options(a)
    return (_show_files if a.dry_run else _run)(a, toolbox.prepare_join(a.source, a.output, options), options)


def _show_files(a: argparse.Namespace, prepared: conversion.Prepared, options: conversion.Options) -> int:
    """Print which files there would be."""
    p = prepared.plan
    n_tensors = Counter(place.file for place in p.placements)
    if a.json:
        say_json(
            [{"path": str(f.path), "tensors": n_tensors[k], "bytes": f.size} for k, f in enumerate(p.files)], indent=1
        )
    elif not a.quiet:
        say(*(f"{f.path}: {n_tensors[k]} tensors, {size(f.size)}" for k, f in enumerate(p.files)))
    return 0


def edit(a: argparse.Namespace) -> int:
    """``streamconv edit``."""
    from . import toolbox

    if bool(a.output) == a.in_place:
        raise UsageError(
            "edit: give either OUT or --in-place", "streamconv edit IN OUT …, or streamconv edit FILE --in-place …"
        )
    options = _options(a)
    changes = toolbox.Changes(
        a.remove_key, a.rename_key, a.set, a.general_name, a.general_description, a.pre_tokenizer, a.chat_template,
        a.chat_template_file, a.chat_template_config, a.special_token, a.special_token_by_id,
    )  # fmt: skip
    if a.in_place and not a.dry_run:
        toolbox.settle(a.source)
    found = toolbox.prepare_edit(a.source, a.output, changes, options)
    if a.dry_run or found.is_nothing or found.is_patch:
        if not a.dry_run:
            toolbox.carry_out_in_place(found, options, progress.reporter(quiet=a.quiet, as_json=a.json))
        if a.json:
            say_json(found.facts() if a.dry_run else {"event": "done", "status": "done", **found.facts()})
        elif not a.quiet:
            say(*found.lines(), *(f"note: {text}" for text in found.notes))
        return 0
    return _run(a, found.prepared, options, partial(toolbox.carry_out_in_place, found) if found.in_place else None)


def hash(a: argparse.Namespace) -> int:
    """``streamconv hash``: 0 when all digests are computed, or are those of the manifest; 65 when not."""
    from . import toolbox

    manifest = toolbox.read_manifest(a.check) if a.check else None
    asked = [name for name in toolbox.ALGORITHMS if getattr(a, name) or (a.all and name != "uuid")]
    algorithms = toolbox.chosen(asked, manifest)
    if manifest is not None and not (a.json or a.quiet):
        there = {algorithm for algorithm, _ in manifest}
        say(f"manifest  {a.check}" + "".join(f"  {name}" for name in toolbox.IN_MANIFESTS if name in there))
    # Lines of tensors tell the progress themselves.
    options, reporter, found = _options(a), progress.reporter(quiet=a.quiet or not a.no_layer, as_json=a.json), []
    with progress.told_in_errors(reporter):
        for each in toolbox.hash_file(
            a.source, algorithms, per_tensor=not a.no_layer, manifest=manifest, io=options.io,
            n_threads=options.threads or default_threads(), start=lambda n: reporter.start(n, 0), advance=reporter.advance,
        ):  # fmt: skip
            found.append(each)
            if not (a.json or a.quiet):
                say(str(each))
        reporter.finish()
    verdict = toolbox.verdict(found) if manifest is not None else ""
    if a.json:
        say_json({"event": "done", "status": verdict or "done", "digests": [each._asdict() for each in found]})
    elif manifest is not None and not a.quiet:
        say("", f"Verification results for {a.check} - {verdict}")
    return 0 if verdict in ("", "Success") else 65


def _final(prepared: conversion.Prepared, outcome: Outcome | None) -> dict[str, Any]:
    """The last line of ``--json``."""
    return {
        "event": "done", "status": "done", "resumable": False, "done": prepared.plan.total_bytes,
        "total": prepared.plan.total_bytes, "bytes": outcome.made_bytes if outcome else 0,
        "copied": outcome.copied_bytes if outcome else 0,
        "files": [str(f.path) for f in prepared.plan.files], "already": outcome is None, "next": "",
    }  # fmt: skip


def _file_names(prepared: conversion.Prepared, output: conversion.Output) -> str:
    """The files of one output in a few words."""
    if prepared.plan.folder is not None:
        return f"{output.path}/ ({len(output.files)} files)"
    names = [str(prepared.plan.files[k].path) for k in output.files]
    return ", ".join(names[:3]) + (f", … ({len(names)} files)" if len(names) > 3 else "")


def _summary(prepared: conversion.Prepared, outcome: Outcome | None, run: conversion.Run) -> list[str]:
    """What was made, in a few lines."""
    p = prepared.plan
    names = ", ".join(_file_names(prepared, o) for o in prepared.outputs)
    if outcome is None:
        types = ", ".join(o.type for o in prepared.outputs)
        return [f"{names} is already complete ({size(p.total_bytes)}, {types}); nothing to do"]
    read = sum(i["size"] for i in p.inputs)
    lines = [
        f"{_file_names(prepared, o)}: {o.arch}, {o.type}, {count(o.n_params)} weights in {len(o.tensors)} tensors,"
        f" {o.bits_per_weight:.2f} bits per weight"
        for o in prepared.outputs
    ]
    rate = "" if outcome.copied_bytes else f" {size(read / max(run.seconds, 1e-9))}/s of input,"
    lines += [
        conversion.told_of_copies(outcome) or f"  {size(read)} read, {size(p.total_bytes)} written",
        f"  {duration(run.seconds)},{rate} peak {size(run.peak_bytes)} RAM",
    ]
    if outcome.resumed_bytes:
        lines.append(f"  {size(outcome.resumed_bytes)} were finished by earlier runs")
    nonfinite = {name: q.nonfinite for (name, _), q in outcome.quality.items() if q.nonfinite}
    lines += [f"  note: {text}" for text in (*outcome.notes, *conversion.measured(prepared, outcome))]
    lines += [f"  note: {n} NaN or Inf values in {name}" for name, n in nonfinite.items()]
    return lines


def plan(a: argparse.Namespace) -> int:
    """``streamconv plan``."""
    options = _options(a)
    return _show(a, conversion.prepare(a.source, a.output, options), options)


def _show(a: argparse.Namespace, prepared: conversion.Prepared, options: conversion.Options) -> int:
    """Print what would be done."""
    try:
        facts = plan_facts(prepared, options)
    finally:
        prepared.close()
    if a.json:
        say_json(facts, indent=1)
    elif not a.quiet:
        say(*tensor_lines(facts), *plan_lines(facts))
    return 0


def fetch(a: argparse.Namespace) -> int:
    """``streamconv fetch``."""
    reporter, options = progress.reporter(quiet=a.quiet, as_json=a.json), _options(a)
    keep = None
    if options.keep_packed:
        from .packing import Keeper

        keep = Keeper(options, reporter)
    with progress.told_in_errors(reporter):
        found = conversion.fetch(
            a.source, reporter, everything=a.all, offline=options.offline, refresh=options.refresh, verify=a.verify,
            stop_after_s=a.stop_after, mistral_format=options.mistral_format, keep=keep,
        )  # fmt: skip
    name = f"{found.model.repo}@{found.model.commit}"
    if a.json:
        facts = {
            "event": "done", "status": "done", "resumable": False, "done": found.total_bytes, "total": found.total_bytes,
            "bytes": found.fetched_bytes, "model": name, "folder": str(found.folder), "files": found.n_files,
            "already": not found.fetched_bytes, "next": "",
        }  # fmt: skip
        say_json(facts)
    elif not a.quiet:
        came = f"{size(found.fetched_bytes)} fetched" if found.fetched_bytes else "already complete; nothing to do"
        say(f"{name}: {found.n_files} files, {size(found.total_bytes)}, {came}", f"  {found.folder}")
    return 0


def pack(a: argparse.Namespace) -> int:
    """``streamconv pack``."""
    from . import packs

    return packs.pack(a, _options(a))


def unpack(a: argparse.Namespace) -> int:
    """``streamconv unpack``."""
    from . import packs

    return packs.unpack(a, _options(a))


def status(a: argparse.Namespace) -> int:
    """``streamconv status``."""
    facts = conversion.status(a.output)
    if a.json:
        say_json(facts)
    elif facts["status"] == "done":
        say(f"{a.output} is complete")
    else:
        told, done, total = f"{facts['chunks_done']} of {facts['chunks']} chunks", facts["done"], facts["total"]
        if total:
            told = f"{100 * done / total:.0f} % ({size(done)} of {size(total)}, {told})"
        say(
            f"{a.output} is unfinished: {told}",
            f"  {facts['type']} from {facts['source']}; run the same command again to resume",
        )
    return 0


def verify(a: argparse.Namespace) -> int:
    """``streamconv verify``: 0 when every byte is as it was made or fetched, 65 when not."""
    if a.store == bool(a.output) or (a.stop_after and not a.store):
        raise UsageError("verify: give either OUT or --store", "streamconv verify OUT, or streamconv verify --store")
    reporter = progress.reporter(quiet=a.quiet, as_json=a.json)
    if a.store:
        store = conversion.verify_store(reporter, stop_after_s=a.stop_after)
        name, n_files, n_bytes, notes = str(store.root), store.n_files + store.n_parts, store.total_bytes, []
        damages = [(d.path, d.start, d.stop - d.start, d.name, d.reason, str(d)) for d in store.damaged]
    else:
        found = conversion.verify(a.output, reporter)
        name, n_files, n_bytes, notes = a.output, found.n_files, found.n_bytes, found.notes
        damages = [(d.path, d.offset, d.length, d.tensor, d.what, str(d)) for d in found.damages]
    if a.json:
        keys = ("path", "offset", "length", "name", "what")
        facts = {
            "event": "done", "status": "damaged" if damages else "intact", "files": n_files, "bytes": n_bytes,
            "damages": [dict(zip(keys, (str(d[0]), *d[1:5]), strict=True)) for d in damages], "notes": notes,
        }  # fmt: skip
        say_json(facts)
    elif not a.quiet:
        verdict = f"{len(damages)} ranges are damaged" if damages else "intact"
        told = [*(d[5] for d in damages), *(f"note: {text}" for text in notes)]
        say(*told, f"{name}: {n_files} files, {size(n_bytes)}: {verdict}")
    return 65 if damages else 0


def inspect(a: argparse.Namespace) -> int:
    """``streamconv inspect``."""
    from . import inspect as inspection

    facts = inspection.describe(conversion.Opener(_options(a)).open_stored(a.source))
    if a.json:
        say_json(facts, indent=1)
    else:
        say(*inspection.lines(facts))
    return 0


def check(a: argparse.Namespace) -> int:
    """``streamconv check``: 0 when a loader will take the file, 65 when not."""
    from .check import check_file

    findings = check_file(Path(a.source), scan=not a.no_scan, cache_bytes=default_ram() // 2)
    errors = [f for f in findings if f.severity == "error"]
    if a.json:
        say_json([vars(f) for f in findings], indent=1)
    elif not a.quiet:
        plural = "s" if len(errors) > 1 else ""
        verdict = (
            f"{len(errors)} error{plural}: a loader will refuse it" if errors else "no errors: loaders should accept it"
        )
        say(*(f"{f.severity}: {f.message}" for f in findings), f"{a.source}: {verdict}")
    return 65 if errors else 0


def imatrix(a: argparse.Namespace) -> int:
    """``streamconv imatrix``, ``compare`` and ``perplexity``: the function of that name."""
    from . import evaluating

    return int(getattr(evaluating, a.command)(a, _options(a)))


compare = perplexity = imatrix


def mix(a: argparse.Namespace) -> int:
    """``streamconv mix``."""
    from . import sized

    return sized.mix(a, _options(a))


def families(a: argparse.Namespace) -> int:
    """``streamconv families``."""
    from .models.supported import supported

    found = supported()
    if a.json:
        say_json([each._asdict() for each in found], indent=1)
    elif not a.quiet:
        rows = [
            ("architecture in config.json", "in GGUF", "kind", "vocabularies", "described in"),
            *(
                (f.architecture, f.gguf or "(that of the text model)", f.kind, " or ".join(f.tokenizers), f.file)
                for f in found
            ),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        say(*("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows))
    return 0


def bench(a: argparse.Namespace) -> int:
    """``streamconv bench``."""
    from . import benching

    return benching.bench(a, default_threads())
