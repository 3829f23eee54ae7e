"""What a plan amounts to, as facts and as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from . import cluster, conversion
from .progress import count, duration
from .units import size


def plan_facts(prepared: conversion.Prepared, options: conversion.Options) -> dict[str, Any]:
    """See ``conversion.describe``; with what a cluster would do, and the disk space that packing takes what is fetched."""
    facts = conversion.describe(prepared, options)
    if options.cluster:
        facts["cluster"] = cluster.payoff(prepared, options)
    if prepared.hub is not None:
        from .packing import disk_bytes

        facts["fetch"]["disk_bytes_keep_packed"] = disk_bytes(prepared.hub, options)
    return facts


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


def plan_lines(facts: dict[str, Any]) -> Iterator[str]:
    """What a plan amounts to."""
    for o in facts["outputs"]:
        n_tensors = sum(t["output"] == o["path"] for t in facts["tensors"])
        yield (
            f"{facts['architecture']}, {o['type']}: {count(o['parameters'])} weights in {n_tensors} tensors,"
            f" {o['bits_per_weight']:.2f} bits per weight"
        )
    first = [t for t in facts["tensors"] if t["output"] == facts["outputs"][0]["path"]]  # every output has the same
    methods = Counter(f"{t['method']} of {t['merged']}" for t in first if "method" in t)
    if methods:
        others = len(first) - methods.total()
        told = [f"{n} tensors by {method}" for method, n in methods.items()]
        yield f"merges {', '.join(told)}{f'; {others} are copied' if others else ''}"
    packed = facts["packed"]
    what = "packed file" if packed["files"] == 1 else "packed files"
    held = f" ({packed['files']} {what} of {size(packed['bytes'])} that hold {size(packed['content_bytes'])})"
    yield (
        f"reads {size(facts['input_bytes'])}{held if packed['files'] else ''}, writes {size(facts['output_bytes'])} to"
        f" {', '.join(facts['files'])}"
    )
    yield (
        f"disk: {size(facts['disk_bytes'])} while it runs; memory: {size(facts['ram_bytes'])} budget,"
        f" {facts['threads']} threads, {facts['chunks']} chunks"
    )
    yield from conversion.planned_copies(facts)
    fetched = " once it is fetched" if facts["fetch"] and facts["fetch"]["missing_bytes"] else ""
    yield f"time: roughly {duration(facts['estimated_s'])}{fetched}, if the disk reads and writes 0.5 GB/s"
    yield from cluster.planned_tasks(facts)
    if facts["fetch"] is not None:
        fetch = facts["fetch"]
        yield (
            f"fetches {size(fetch['missing_bytes'])} of {', '.join(fetch['models'])}: needs {size(fetch['disk_bytes_keep'])}"
            f" of disk space, with --evict at most {size(fetch['disk_bytes_evict'])} at a time, with --keep-packed"
            f" {size(fetch['disk_bytes_keep_packed'])}"
        )
        if left := fetch["left_out"]:
            names = f"{', '.join(left[:3])}{f' and {len(left) - 3} more' if len(left) > 3 else ''}"
            yield f"skips {size(fetch['left_out_bytes'])} that are not needed: {names}"
    yield from (f"note: {text}" for text in facts["warnings"])
    if facts["left_out"]:
        yield f"note: {len(facts['left_out'])} tensors are left out, such as {next(iter(facts['left_out']))}"
