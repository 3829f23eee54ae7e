"""Tables that commands print."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from .engine.budget import default_threads
from .errors import UsageError
from .terminal import say, say_json


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
    from .quant import speed
    from .quant.base import has_codec

    names = [name for text in a.type or (",".join(speed.USUAL),) for name in text.upper().split(",")]
    for name in names:
        if not has_codec(name):
            raise UsageError(
                f"--type {name}: there is no tensor type of that name to make", "Types are such as Q4_K or Q8_0."
            )
    processor, bits, threads = speed.processor(), speed.vector_bits(), default_threads()
    found = []
    if not (a.json or a.quiet):
        say(f"{processor}, vectors of {bits} bits; nanoseconds per weight on one core, without and with --imatrix")
    for each in speed.speeds(names):
        found.append(each._asdict())
        if not (a.json or a.quiet):
            say(f"{each.type:8}" + "".join(f" {'-' if ns is None else f'{ns:.2f}':>8}" for ns in each[1:]))
    if a.json:
        say_json({"processor": processor, "vector_bits": bits, "cores": threads, "types": found}, indent=1)
    elif not a.quiet:
        say(f"A billion weights at 1 ns take {1 / threads:.2g} s on {threads} cores.")
    return 0


def tensor_lines(facts: dict[str, Any]) -> Iterator[str]:
    """A line for every tensor of a plan."""
    path = facts["outputs"][0]["path"] if len(facts["outputs"]) == 1 else ""
    for t in facts["tensors"]:
        if t["output"] != path:
            path = t["output"]
            yield f"-- {path}"
        shape = " x ".join(map(str, t["shape"]))
        merged = f"; {t['method']} of {t['merged']}" if "method" in t else ""
        yield (
            f"{t['name']:40} {shape:>16} {t['source_type']:>5} -> {t['type']:8} {t['bytes']:>14,}  {t['reason']}{merged}"
        )
