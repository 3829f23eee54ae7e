"""What ``streamconv bench`` prints."""

from __future__ import annotations

import argparse

from .errors import UsageError
from .quant import speed
from .quant.base import has_codec
from .terminal import say, say_json


def bench(a: argparse.Namespace, threads: int) -> int:
    """``streamconv bench``."""
    names = [name for text in a.type or (",".join(speed.USUAL),) for name in text.upper().split(",")]
    for name in names:
        if not has_codec(name):
            raise UsageError(
                f"--type {name}: there is no tensor type of that name to make", "Types are such as Q4_K or Q8_0."
            )
    processor, bits = speed.processor(), speed.vector_bits()
    found = []
    if not (a.json or a.quiet):
        say(f"{processor}, vectors of {bits} bits; nanoseconds per weight on one core, without and with --imatrix")
    for each in speed.speeds(names):
        found.append(each)
        if not (a.json or a.quiet):
            say(f"{each.type:8}" + "".join(f" {'-' if ns is None else f'{ns:.2f}':>8}" for ns in each[1:]))
    speed.remember(found)
    if a.json:
        types = [each._asdict() for each in found]
        say_json({"processor": processor, "vector_bits": bits, "cores": threads, "types": types}, indent=1)
    elif not a.quiet:
        say(f"A billion weights at 1 ns take {1 / threads:.2g} s on {threads} cores.")
        say("streamconv plan estimates with these numbers from now on.")
    return 0
