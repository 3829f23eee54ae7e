"""The list of types: a ``--tensor-type-file`` with the reasons in comments, and what it was made of.

A list says which inputs it was made of and has a digest of its rules, so a run that is repeated takes it as it is, and one that
was written by someone else, or changed by hand, is not replaced unasked.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..conversion import Options
from ..conversion.overlap import refuse_overlap
from ..conversion.type_rules import words
from ..engine import files
from ..engine.plan import job_folder
from ..errors import CannotCreate, UsageError
from ..quant import imatrix
from ..sources.checkpoint import MAX_TEXT_BYTES
from ..sources.small_files import read_small
from ..terminal import plain
from .planning import PlannedMix
from .pool import rule
from .result import Mix, MixSide

_FIRST = "# streamconv mix:"
_LINE = re.compile(r"# (inputs|rules|type) (\S+)")


@dataclass(frozen=True)
class Listed:
    """A list that is there: digest of what it was made of, and the file type to convert with."""

    inputs: str
    type: str


def _digest(rules: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(rules).encode(), digest_size=16).hexdigest()


def read_list(path: Path) -> Listed | None:
    """What the list ``path`` says of itself; None where it is no list of ours, or was changed."""
    if not path.is_file():
        return None
    text = read_small(path, MAX_TEXT_BYTES).decode(errors="replace")
    said = {found[1]: found[2] for line in text.splitlines() if (found := _LINE.fullmatch(line))}
    if (
        not text.startswith(_FIRST)
        or said.get("rules") != _digest(words(text))
        or not {"inputs", "type"} <= said.keys()
    ):
        return None
    return Listed(said["inputs"], said["type"])


def prepare_list(path: Path, plan: PlannedMix, options: Options, changed: str) -> Listed | None:
    """The list that is there already, made of the same as ``plan``; None where it is to be made.

    Parameters
    ----------
    changed : what to do about a file that is no list of ours, or was changed

    Raises
    ------
    UsageError : no file can have that name, or it is read
    CannotCreate : something else is there, and neither ``--force`` was given, nor ``--update`` where it is a list of ours
    """
    if path.name in ("", "..") or path.suffix == ".streamconv":
        raise UsageError(f"{path} is not a valid name for a list of types", "Name it, for example, mix.txt.")
    if not path.absolute().parent.is_dir():
        raise CannotCreate(f"{path}: its folder does not exist", f"Create it first: mkdir -p {path.absolute().parent}")
    given = [p for p in (options.tensor_type_file, plan.request.text.text, *options.imatrix) if p is not None]
    read = [*(f.path for f in plan.checkpoint.inputs), *given]
    refuse_overlap([path, job_folder(path)], [], plan.roots, read, copied=False)
    if not os.path.lexists(path):
        return None
    found = read_list(path)
    if path.is_symlink() or not path.is_file():
        raise CannotCreate(f"{path} is not a regular file, so no list can be written there", "Choose another name.")
    if found is not None and found.inputs == plan.inputs and not options.force:
        return found
    if found is None and not options.force:
        raise CannotCreate(
            f"{path} is there and is no list that streamconv made, or was changed since",
            changed,
        )
    if found is not None and not (options.force or options.update):
        raise CannotCreate(
            f"{path} is a list that was made of other inputs or options",
            "Use --update to make it again, or choose another name.",
        )
    return None


def write_list(path: Path, mix: Mix, plan: PlannedMix, options: Options) -> None:
    """Write ``mix`` as a list."""
    lines = map(plain, _lines(path, mix, plan, options))  # names of files may hold ends of lines
    files.write_atomically(path, "\n".join([*lines, ""]))


def _lines(path: Path, mix: Mix, plan: PlannedMix, options: Options) -> Iterator[str]:
    rules = [rule(t.name, t.type) for t in mix.tensors]
    yield f"{_FIRST} {mix.n_bytes:,} bytes of {mix.target:,}, {mix.bits_per_weight:.3f} bits per weight"
    yield f"# inputs {plan.inputs}"
    yield f"# rules {_digest(rules)}"
    yield f"# type {mix.type}"
    yield f"# to be used as: {shlex.join(_command(path, mix, options))}"
    yield f"# made of {mix.source}, plan {plan.pool.fingerprint}"
    if options.imatrix:
        digest = imatrix.load_imatrix(options.imatrix, options.include_weights, options.exclude_weights).digest
        yield f"# importance matrix {', '.join(map(str, options.imatrix))}, {digest}"
    text = hashlib.blake2b(b"".join(plan.request.text.read_text()[1:]), digest_size=16).hexdigest()
    yield f"# text {plan.request.text.text_name}, {text}"
    for side in (mix.own, mix.standard):
        if side is not None:
            yield f"# {told(side)}"
    yield f"# {verdict(mix)}"
    width = max((len(each) for each in rules), default=0)
    yield from (f"{each:{width}}  # {' '.join(t.reason.split())}" for each, t in zip(rules, mix.tensors, strict=True))


def _command(path: Path, mix: Mix, options: Options) -> list[str]:
    """What converts with the list ``path``: the options that change bytes are as they were for the mix."""
    words = ["streamconv", "convert", mix.source, "OUT.gguf", "--type", mix.type, "--tensor-type-file", str(path)]
    given = {
        "--imatrix": options.imatrix, "--include-weights": options.include_weights,
        "--exclude-weights": options.exclude_weights, "--override-kv": options.override_kv,
        "--pre": [options.pre] if options.pre else [], "--compat": ["ggml"] if options.compat else [],
    }  # fmt: skip
    words += [word for flag, values in given.items() for value in values for word in (flag, str(value))]
    return [*words, "--allow-requantize"] if options.allow_requantize else words


def told(side: MixSide) -> str:
    """Size and divergence of one of the two mixes, in a line."""
    measured = (
        ""
        if side.measured_kl is None
        else f", measured {side.measured_kl.value:.5f} ± {side.measured_kl.uncertainty:.5f}"
    )
    name = "mix by measured errors" if side.name == "measured" else f"standard mix {side.name}"
    return f"{name}: {side.n_bytes:,} bytes, KL divergence predicted {side.predicted_kl:.5f}{measured}"


def verdict(mix: Mix) -> str:
    """Which of the two it is, and why, in a line."""
    if mix.standard is None:
        return "no standard mix of these types is that small"
    if mix.difference is None:
        return (
            f"not compared with {mix.standard.name}"
            if not mix.standard_kept
            else f"standard mix kept: {mix.standard.name}"
        )
    d, u = mix.difference
    between = f"the difference of KL divergence is {d:+.5f} ± {u:.5f}"
    if mix.standard_kept:
        return f"standard mix kept: {mix.standard.name}, as the mix is not better by two standard deviations; {between}"
    return f"better than {mix.standard.name}: {between}"
