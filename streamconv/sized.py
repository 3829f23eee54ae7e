"""Types that fit a size: the command ``mix``, and what ``convert --size`` does first."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from . import progress, sizing
from .conversion import Options
from .errors import UsageError
from .evaluation import Request
from .forward.chunks import N_CTX
from .sizing import Listed, Mix, MixRequest
from .terminal import say, say_json
from .units import size

#: what to do about a list that is not ours, where it is what is made, and where it lies beside what is made
_CHANGED = "Choose another name, or use --force."
_CHANGED_BESIDE = "Convert with it: --tensor-type-file in place of the size. Or move it away, and it is made again."


def mix(a: argparse.Namespace, options: Options) -> int:
    """``streamconv mix``."""
    text = Request(a.text, a.ctx_size or N_CTX, a.chunks, a.from_chunk, a.parse_special)
    path = Path(a.output)
    if options.report:
        sizing.require_page_name(options.report)
    made = _made(a, path, path.with_name(f"{path.name}.gguf"), text, options, options)
    if isinstance(made, Mix):
        if a.json:
            say_json({"event": "done", "status": "done", "list": str(path), "already": False, **sizing.as_json(made)})
        elif not a.quiet:
            say(f"{path}: types for {size(made.n_bytes)}, {made.bits_per_weight:.2f} bits per weight", *_lines(made))
    elif a.json:
        say_json({"event": "done", "status": "done", "list": str(path), "already": True, "type": made.type})
    elif not a.quiet:
        say(f"{path} is already complete; nothing to do")
    return 0


def with_list(a: argparse.Namespace, options: Options) -> Options:
    """``options`` of a conversion with the list that ``--size`` asks for, beside OUT; it is made first where it is not there."""
    if a.size is None and a.bpw is None:
        given = {"--types": a.types, "--no-check": a.no_check, "--text": a.text}
        flag = next(flag for flag, value in given.items() if value)
        raise UsageError(f"{flag} has no effect without --size or --bpw", "Add one of them, or leave it out.")
    output = Path(a.output)
    path = output.with_name(f"{output.name}.types")
    # a finished list is taken as it is, even where the output is to be replaced
    renewing = replace(options, force=False, update=options.update or options.force)
    if options.force:  # which allows a report to replace any file
        renewing = replace(renewing, report=None)
    made = _made(a, path, output, Request(a.text), renewing, options)
    if isinstance(made, Mix):
        if a.json:
            say_json({"event": "mix", "list": str(path), **sizing.as_json(made)})
        elif not a.quiet:
            say(f"{path}: types for {size(made.n_bytes)}", *_lines(made))
    return replace(options, type=made.type, tensor_type_file=path)


def _made(
    a: argparse.Namespace, path: Path, output: Path, text: Request, options: Options, given: Options
) -> Mix | Listed:
    """The list ``path``: one that is there already, or a new one, by ``options``; with its page, where that was ``given``."""
    page = given.report if a.command == "mix" else None  # else it is that of the conversion
    request = MixRequest(a.size, a.bpw, a.types, not a.no_check, text)
    reporter = progress.reporter(quiet=a.quiet, as_json=a.json)
    plan = sizing.prepare_mix(str(a.source), output, request, options)
    try:
        found = sizing.prepare_list(path, plan, options, _CHANGED if a.command == "mix" else _CHANGED_BESIDE)
        if given.report:
            sizing.refuse_report(given.report, path, plan, given)
        if found is not None:
            if page:
                sizing.require_page(page, path, plan)
            sizing.forget_measured(plan, path, options)
            return found
        if getattr(a, "dry_run", False):
            raise UsageError(
                "--dry-run: the types are not known before they are measured",
                "Run streamconv mix first, and give its list with --tensor-type-file.",
            )
        for note in plan.notes:
            reporter.message(f"note: {note}")

        def write(made: Mix) -> None:
            if page:  # before the list, which says that all is done
                sizing.write_page(page, made, plan, options)
            sizing.write_list(path, made, plan, options)

        with progress.told_in_errors(reporter):
            return sizing.make_mix(plan, path, options, reporter, write)
    finally:
        plan.close()


def _lines(made: Mix) -> Iterator[str]:
    """What was found, in a few lines."""
    yield from (f"  {sizing.told(side)}" for side in (made.own, made.standard) if side is not None)
    yield f"  {sizing.verdict(made)}"
    counts = Counter(t.type for t in made.tensors)
    yield f"  {', '.join(f'{n} {name}' for name, n in counts.most_common())}"
