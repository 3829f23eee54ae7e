"""Are the tensors there that a loader asks for, in the shapes it asks for, and no others?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..sources.naming import shown, shown_list
from .finding import Finding
from .names import Scope
from .subject import MAX_LAYERS, Subject
from .table import Architecture, Wanted

#: tensors that may stand beside any weight: scales of NVFP4 and of some quantized checkpoints
_COMPANIONS = (".scale", ".input_scale")
#: without it a file that has layers for next-token prediction is taken to have no others
_FIRST_NORM = "blk.0.attn_norm.weight"

Shape = tuple["int | None", ...]


@dataclass
class _Asked:
    """What came of asking for everything in the table.

    Attributes
    ----------
    names : tensors that the loader looks for
    unfit : absent key -> tensors whose shape would be right only with it
    """

    names: set[str] = field(default_factory=set)
    unfit: dict[str, list[str]] = field(default_factory=dict)


def check(subject: Subject) -> Iterator[Finding]:
    """Compare the tensors with the table of the architecture."""
    known = subject.known
    if known is None:
        return
    asked = _Asked()
    layers = [subject.scope(i) for i in range(_n_layers(subject, known))]
    for wanted in known.tensors:
        yield from _check_one(subject, known, wanted, layers, asked)
    for key, names in asked.unfit.items():
        more = f" (and {len(names) - 1} more tensors)" if names[1:] else ""
        message = f"key {key} is missing: the loader uses 0, which does not fit the shape of {shown(names[0])}{more}"
        yield Finding("error", message, key, "missing")
    if layers[0].evaluated("mtp_only"):
        yield Finding(
            "warning",
            f"{_FIRST_NORM} is absent: the loader treats the file as next-token-prediction layers only",
            _FIRST_NORM,
        )
    yield from _output(subject, known, asked)
    yield from _unexpected(subject, known, asked.names)


def _n_layers(subject: Subject, known: Architecture) -> int:
    """How many layers to ask for: those that the file states, never more than the loader takes."""
    stated = subject.scope().evaluated(known.layers)
    return max(1, min(MAX_LAYERS, stated if stated is not None else subject.n_blocks))


def _is_left_out(subject: Subject, wanted: Wanted, names: Scope, known: Architecture) -> bool:
    """Whether it is of a layer that a file of layers for next-token prediction alone lacks; of such there are no others."""
    if not (known.drafts_alone and wanted.per_layer and names.evaluated("mtp_only")) or subject.has_first_block:
        return False
    return bool(names.evaluated("i < n_layer"))


def _check_one(
    subject: Subject, known: Architecture, wanted: Wanted, layers: Sequence[Scope], asked: _Asked
) -> Iterator[Finding]:
    """One row of the table, over all layers; findings of many layers are told together."""
    missing, misshapen = [], []
    for names in layers if wanted.per_layer else _asking(wanted, layers):
        name = wanted.name.replace("*", str(names.layer))
        applies = wanted.applies(names)
        if applies is False:
            continue
        asked.names.add(name)
        info = subject.tensors.get(name)
        if info is None:
            if applies and wanted.required(names) and not _is_left_out(subject, wanted, names, known):
                missing.append(name)
            continue
        found, right = tuple(reversed(info.shape)), wanted.shape(names)
        if not _fits(found, right) and not _for_want_of_a_key(name, wanted, names, asked):
            misshapen.append((name, found, right))
    if missing and wanted.name != "output.weight":  # which has words of its own
        message = f'{_these(missing, subject)} missing: the loader fails with "missing tensor"'
        yield Finding("error", message, missing[0], "missing", tuple(missing[1:]))
    if misshapen:
        name, found, right = misshapen[0]
        yield Finding(
            "error",
            f"{_these([m[0] for m in misshapen], subject)} of wrong shape: the file has {list(found)}, the loader expects"
            f" {[size if size is not None else '?' for size in right]} ({', '.join(wanted.sizes)}; fastest first)",
            name,
            "shape",
            tuple(m[0] for m in misshapen[1:]),
            (found[::-1], right[::-1]),
        )


def _asking(wanted: Wanted, layers: Sequence[Scope]) -> list[Scope]:
    """The layer that asks for a tensor of the whole model: the first that does."""
    return [next((names for names in layers if wanted.applies(names)), layers[0])]


def _for_want_of_a_key(name: str, wanted: Wanted, names: Scope, asked: _Asked) -> bool:
    """A wrong shape that comes of an absent key is told of the key."""
    keys = {key for size in wanted.sizes if size != "any" for key in names.missing_keys(size)}
    for key in keys:
        asked.unfit.setdefault(key, []).append(name)
    return bool(keys)


def _output(subject: Subject, known: Architecture, asked: _Asked) -> Iterator[Finding]:
    """Where the logits come from, said plainly, because it is what goes wrong most often."""
    wanted = next((w for w in known.tensors if w.name == "output.weight"), None)
    there = "output.weight" in subject.tensors
    if known.tied and there:
        asked.names.add("output.weight")
        yield Finding(
            "error",
            f"output.weight is present, but for {subject.arch} the loader always reuses token_embd.weight: it fails with"
            ' "wrong number of tensors"',
            "output.weight",
        )
    elif not there and (known.tied or (wanted is not None and wanted.optional)):
        yield Finding("note", "output.weight is absent: the loader reuses token_embd.weight (tied)", "output.weight")
    elif not there and wanted is not None and wanted.applies(subject.scope()) and wanted.required(subject.scope()):
        yield Finding(
            "error",
            f"output.weight is absent, and for {subject.arch} the loader does not fall back to token_embd.weight",
            "output.weight",
            "missing",
        )


def _unexpected(subject: Subject, known: Architecture, asked: set[str]) -> Iterator[Finding]:
    extra = [name for name in subject.tensors if name not in asked]
    extra = [name for name in extra if not _is_companion(name, asked)]
    if extra:
        yield Finding(
            "error",
            f'the loader does not look for {shown_list(extra)}: it fails with "wrong number of tensors"',
            extra[0],
        )


def _is_companion(name: str, asked: set[str]) -> bool:
    return any(name.endswith(end) and f"{name.removesuffix(end)}.weight" in asked for end in _COMPANIONS)


def _fits(found: tuple[int, ...], right: Shape) -> bool:
    """Equal, where known; dimensions of 1 at the end do not count."""
    if right == (None,):
        return True
    n = max(len(found), len(right))
    padded = zip(found + (1,) * (n - len(found)), right + (1,) * (n - len(right)), strict=True)
    return all(size is None or size == have for have, size in padded)


def _these(names: list[str], subject: Subject) -> str:
    """Names of one table row: itself, or how many layers are concerned."""
    if len(names) == 1:
        return f"{shown(names[0])} is"
    return f"{shown(names[0])} and {len(names) - 1} more of {subject.n_blocks} layers are"
