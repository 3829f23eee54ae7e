"""Types that fit a size: the command ``mix``, and what ``convert --size`` does first."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from . import progress, sizing
from .conversion import Options
from .errors import UsageError
from .evaluation import Request
from .file_names import TYPE_FIELD
from .forward.chunks import N_CTX
from .sizing import Mix, MixRequest
from .terminal import say, say_json
from .units import size

#: what to do about a list that is not ours and lies beside what is made
_CHANGED = "Convert with it: --tensor-type-file in place of the size. Or move it away, and it is made again."
#: options that say how a size is met, as arguments are called
_HOW = ("types", "no_check", "thorough", "same_types", "text")


def mix(a: argparse.Namespace, options: Options) -> int:
    """``streamconv mix``."""
    text = Request(a.text, a.ctx_size or N_CTX, a.chunks, a.from_chunk, a.parse_special)
    path = Path(a.output)
    if options.report:
        sizing.require_page_name(options.report)
    reporter = progress.reporter(quiet=a.quiet, as_json=a.json)
    with progress.told_in_errors(reporter):
        made = sizing.make_list(
            str(a.source), path, path.with_name(f"{path.name}.gguf"), _request(a, text), options, reporter
        )  # fmt: skip
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
        flag = next(name for name in _HOW if getattr(a, name)).replace("_", "-")
        raise UsageError(f"--{flag} has no effect without --size or --bpw", "Add one of them, or leave it out.")
    output = Path(a.output)
    path = output.with_name(f"{_without_type(output.name)}.types")
    # a finished list is taken as it is, even where the output is to be replaced
    renewing = replace(options, force=False, update=options.update or options.force)
    if options.force:  # which allows a report to replace any file
        renewing = replace(renewing, report=None)
    reporter = progress.reporter(quiet=a.quiet, as_json=a.json)
    with progress.told_in_errors(reporter):
        made = sizing.make_list(
            str(a.source), path, output, _request(a, Request(a.text)), renewing, reporter, given=options,
            changed=_CHANGED, is_dry=a.dry_run,
        )  # fmt: skip
    if isinstance(made, Mix):
        if a.json:
            say_json({"event": "mix", "list": str(path), **sizing.as_json(made)})
        elif not a.quiet:
            say(f"{path}: types for {size(made.n_bytes)}", *_lines(made))
    return replace(options, type=made.type, tensor_type_file=path)


def _request(a: argparse.Namespace, text: Request) -> MixRequest:
    return MixRequest(a.size, a.bpw, a.types, not a.no_check, text, a.thorough, a.same_types)


def _without_type(name: str) -> str:
    """``name`` of an output without what stands for its type, which is not known before the list is there.

    >>> _without_type("model-{type}.gguf"), _without_type("{type}.gguf")
    ('model.gguf', 'mix.gguf')
    """
    found = re.sub(rf"[-_.]?{re.escape(TYPE_FIELD)}", "", name)
    return f"mix{found}" if found.startswith(".") else found


def _lines(made: Mix) -> Iterator[str]:
    """What was found, in a few lines."""
    yield from (f"  {sizing.told(side)}" for side in (made.own, made.standard) if side is not None)
    yield f"  {sizing.verdict(made)}"
    counts = Counter(t.type for t in made.tensors)
    yield f"  {', '.join(f'{n} {name}' for name, n in counts.most_common())}"
