"""Which target an output is for, and which options have no effect on it: those are refused, or told where they forbid nothing."""

from __future__ import annotations

import os
from dataclasses import fields
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import NoReturn

from ..errors import UsageError
from ..file_names import PART_FIELD, RECIPES, TYPE_FIELD
from ..flags import FLAGS, Flag
from ..sources.checkpoint import Checkpoint
from .options import Options
from .target import FOLDER, Target
from .targets import TARGETS


def pick(output: Path, options: Options) -> Target:
    """The target that ``output`` fits; of several the one that has the file types asked for.

    Raises
    ------
    UsageError : none fits, or two have these types
    """
    fitting = [TARGETS[name] for name in _names(output)]
    taking = [target for target in fitting if target.takes(options.types)]
    if len(taking) > 1:
        both = " and ".join(f"{target.title} ({target.name})" for target in taking)
        raise UsageError(f"{output}: both {both} have the type {options.type}", "Give a --type that one of them has.")
    return (taking or fitting)[0]


def _names(output: Path) -> list[str]:
    """The names of the targets that ``output`` fits, by its ending or as a folder."""
    shapes = {name: name.partition(".")[0] for name in TARGETS}
    ending = output.suffix[1:]
    endings = sorted({*shapes.values()} - {FOLDER})
    # merged-v0.3 and Llama-3.1-8B-merged are folders: a digit behind the dot is of a name, not of a kind of file
    if ending not in endings and ending and not ending[0].isdigit() and not output.is_dir():
        known = " or ".join(f"something.{name}" for name in endings)
        raise UsageError(
            f"{output}: the ending {output.suffix!r} is not a known output format",
            f"Name the output {known}, or give a folder for safetensors.",
        )
    return [name for name, shape in shapes.items() if shape == (ending if ending in endings else FOLDER)]


def refuse_idle(options: Options, target: Target, output: Path) -> None:
    """Refuse what ``target`` does not take, and what is of no use without another option.

    Raises
    ------
    UsageError : names the option and the targets that take it, or the type and those that there are
    """
    if PART_FIELD in output.name and "mmproj_type" not in target.options:
        raise UsageError(
            f"{output}: {PART_FIELD} has no meaning for {target.title}",
            "Leave it out, or name the output 'x-{part}.gguf'.",
        )
    given = options.given()
    idle = [flag for flag in given if flag.special and flag.field not in target.options]
    for flag in [*idle, *(flag for flag in _own(options) if flag not in target.flags)]:
        taking = [t for t in TARGETS.there() if flag.field in t.options or flag in t.flags]
        raise UsageError(
            f"{flag.name} has no effect on {target.title}, only on {' and '.join(each.title for each in taking)}",
            f"Name the output {' or '.join(each.fitting(output) for each in taking)}.",
        )
    for flag in given:
        needs = flag.needs.split()
        if needs and not any(getattr(options, field) for field in needs):
            needed = " or ".join(other.name for other in FLAGS if other.field in needs)
            raise UsageError(f"{flag.name} has no effect without {needed}", f"Add {needed}, or leave it out.")
    for one, other in combinations(given, 2):
        if one.alternative and one.alternative == other.alternative:
            raise UsageError(f"{one.name} and {other.name} exclude each other", "Use one of them.")
    if not target.takes(options.types):
        _refuse_types(options, target, output)
    if PART_FIELD in output.name and options.mmproj:
        raise UsageError(f"{output}: {PART_FIELD} stands for both parts, --mmproj for one", "Leave one of them out.")
    if len(options.types) > 1 and (target.is_folder or TYPE_FIELD not in output.name):
        raise UsageError(
            f"{len(options.types)} types need as many output names, {output} is one", "Name them 'model-{type}.gguf'."
        )


def _own(options: Options) -> list[Flag]:
    """The options of targets that are set (UsageError: no target has one)."""
    added = {flag.field: flag for target in TARGETS.there() for flag in target.flags} if options.own else {}
    for name in options.own:
        if name not in added:
            known = {*added, *(field.name for field in fields(options))}
            near = get_close_matches(name, known, n=1)
            raise UsageError(f"there is no option {name!r}", f"Did you mean {near[0]}?" if near else "")
    return [added[name] for name in options.own]


def _refuse_types(options: Options, target: Target, output: Path) -> NoReturn:
    """Refuse file types that neither ``target`` nor another one that fits the same has."""
    alike = [other for other in TARGETS.there() if other.shape == target.shape]
    known = [*dict.fromkeys(name for each in alike for name in each.types)]
    wrong = next((name for name in options.types if name not in known), options.type)
    others = [t for t in TARGETS.ours().values() if t.shape != target.shape and t.takes([wrong])]
    named = "".join(f", or name it {other.fitting(output)}" for other in others[:1])
    raise UsageError(f"{target.title} cannot hold {wrong}", f"Use --type {', '.join(known)}{named}.")


def refuse_source(checkpoint: Checkpoint, options: Options, output: Path) -> None:
    """Refuse options that have no effect on such a source (UsageError)."""
    is_gguf = checkpoint.metadata is not None
    if is_gguf and PART_FIELD in output.name:
        raise UsageError(
            f"{output}: {checkpoint.path} is already GGUF and has one part", f"Leave {PART_FIELD} out of the name."
        )
    if not is_gguf and options.mmproj_type and PART_FIELD not in output.name:
        raise UsageError(
            "--mmproj-type has no effect on one output: --type is that of the file",
            "Name the outputs 'x-{part}.gguf' for the text model and its projector.",
        )
    idle = [f.name for f in options.given() if f.source == ("checkpoint" if is_gguf else "gguf")]
    if idle and is_gguf:
        raise UsageError(
            f"{', '.join(idle)}: no effect on {checkpoint.path}, which is already GGUF",
            "Give the checkpoint that it was converted from; --override-kv changes keys of a GGUF file.",
        )
    if idle:
        raise UsageError(
            f"{', '.join(idle)}: works on GGUF files only, {checkpoint.path} is not one", "Convert to GGUF first."
        )


def idle_notes(source: str | os.PathLike[str], options: Options, from_hub: bool) -> list[str]:
    """For the plan: options that have no effect on such a source and do no harm."""
    kinds = {"recipe": Path(source).suffix in RECIPES, "hub": from_hub}
    said = {"recipe": "is not a merge recipe", "hub": "does not come from the hub"}
    return [
        f"{flag.name} has no effect: {os.fspath(source)} {said[flag.source]}"
        for flag in options.given()
        if not kinds.get(flag.source, True)
    ]
