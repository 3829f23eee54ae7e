"""Are the tensors there that a loader asks for, in the shapes it asks for, and no others?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..sources.naming import shown, shown_list
from .finding import Finding
from .subject import Subject
from .table import Names, Wanted, architecture

#: encoders that never look for output.weight
_WITHOUT_LOGITS = ("bert",)
_FUSED = "blk.*.attn_qkv.weight"
#: tensors that may stand beside any weight: scales of NVFP4 and of some quantized checkpoints
_COMPANIONS = (".scale", ".input_scale")


def check(subject: Subject) -> Iterator[Finding]:
    """Compare the tensors with the table of the architecture."""
    known = architecture(subject.arch)
    if known is None or not subject.is_text_model:
        return
    asked: set[str] = set()
    layers = [subject.names(i) for i in range(max(1, subject.n_blocks))]
    for wanted in known.tensors:
        yield from _check_one(subject, wanted, layers, asked)
    if known.qkv:
        yield from _check_qkv(subject, known.qkv, layers, asked)
    yield from _output(subject, known.tensors)
    yield from _nobody_asks(subject, asked | {"output.weight"})


def _check_one(subject: Subject, wanted: Wanted, layers: Sequence[Names], asked: set[str]) -> Iterator[Finding]:
    """One row of the table, over all layers; findings of many layers are told together."""
    missing, misshapen = [], []
    for names in layers if wanted.per_layer else layers[:1]:
        name = wanted.name.replace("*", str(names["i"]))
        applies = wanted.applies(names)
        if applies is False:
            continue
        asked.add(name)
        info = subject.tensors.get(name)
        if info is None:
            # Layers behind the last one (next-token prediction) may be left out whole.
            if applies and not wanted.optional and not _behind(names, subject):
                missing.append(name)
            continue
        found, right = tuple(reversed(info.shape)), wanted.shape(names)
        if not _fits(found, right):
            misshapen.append((name, found, right))
    if missing and wanted.name != "output.weight":  # which has words of its own
        yield Finding(
            "error", f'{_these(missing, subject)} missing: the loader stops with "missing tensor"', missing[0]
        )
    if misshapen:
        name, found, right = misshapen[0]
        yield Finding(
            "error",
            f"{_these([m[0] for m in misshapen], subject)} of wrong shape: the file has {list(found)}, the loader wants"
            f" {[size if size is not None else '?' for size in right]} ({', '.join(wanted.sizes)}; fastest first)",
            name,
        )


def _check_qkv(subject: Subject, rows: tuple[str, ...], layers: Sequence[Names], asked: set[str]) -> Iterator[Finding]:
    """The projections stand apart, or as one: the loader takes ``attn_qkv`` where the layer has it."""
    fused = [names for names in layers if _FUSED.replace("*", str(names["i"])) in subject.tensors]
    apart = [names for names in layers if names not in fused]
    parts = {f"blk.*.attn_{which}": size for which, size in zip("qkv", rows, strict=True)}
    for some, table in ((fused, {"blk.*.attn_qkv": " + ".join(rows)}), (apart, parts)):
        for stem, size in table.items():
            yield from _check_one(subject, Wanted(f"{stem}.weight", ("n_embd", size)), some, asked)
            yield from _check_one(subject, Wanted(f"{stem}.bias", (size,), optional=True), some, asked)


def _output(subject: Subject, tensors: tuple[Wanted, ...]) -> Iterator[Finding]:
    """Where the logits come from, said plainly, because it is what goes wrong most often."""
    if subject.arch in _WITHOUT_LOGITS and "output.weight" not in subject.tensors:
        return
    wanted = next((w for w in tensors if w.name == "output.weight"), None)
    if "output.weight" in subject.tensors:
        if wanted is None:
            yield Finding(
                "error",
                f"output.weight is there, but for {subject.arch} the loader always reuses token_embd.weight: it stops with"
                ' "wrong number of tensors"',
                "output.weight",
            )
    elif wanted is None or wanted.optional:
        yield Finding("note", "output.weight is absent: the loader reuses token_embd.weight (tied)", "output.weight")
    else:
        yield Finding(
            "error",
            f"output.weight is absent, and for {subject.arch} the loader does not fall back to token_embd.weight",
            "output.weight",
        )


def _nobody_asks(subject: Subject, asked: set[str]) -> Iterator[Finding]:
    extra = [name for name in subject.tensors if name not in asked]
    extra = [name for name in extra if not _is_companion(name, asked)]
    if extra:
        yield Finding(
            "error",
            f'the loader does not look for {shown_list(extra)}: it stops with "wrong number of tensors"',
            extra[0],
        )


def _is_companion(name: str, asked: set[str]) -> bool:
    return any(name.endswith(end) and f"{name.removesuffix(end)}.weight" in asked for end in _COMPANIONS)


def _behind(names: Names, subject: Subject) -> bool:
    i, n_layer = names["i"], names["n_layer"]
    return i is not None and n_layer is not None and subject.n_blocks > 0 and i >= n_layer


def _fits(found: tuple[int, ...], right: tuple[int | None, ...]) -> bool:
    """Equal, where known; dimensions of 1 at the end do not count."""
    n = max(len(found), len(right))
    padded = zip(found + (1,) * (n - len(found)), right + (1,) * (n - len(right)), strict=True)
    return all(size is None or size == have for have, size in padded)


def _these(names: list[str], subject: Subject) -> str:
    """Names of one table row: itself, or how many layers are concerned."""
    if len(names) == 1:
        return f"{shown(names[0])} is"
    return f"{shown(names[0])} and {len(names) - 1} more of {subject.n_blocks} layers are"
