"""Tables that commands print."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

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
