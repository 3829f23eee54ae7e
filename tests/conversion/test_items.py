"""Rows become items: each is read once, whatever outputs and names it goes to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from streamconv import conversion
from streamconv.conversion import Chosen, Options, outputs
from streamconv.conversion.layout import Content, make_plan
from streamconv.conversion.target import Draft
from streamconv.conversion.targets.folder import TARGET, choose
from streamconv.quant.encode import EncodedRows
from streamconv.quant.types import TYPES
from streamconv.rows import Rows


def test_several_types_are_made_of_one_item_a_tensor(tiny_model: Path, tmp_path: Path) -> None:
    prepared = conversion.prepare(tiny_model, tmp_path / "x-{type}.gguf", Options(type="Q8_0,F16"))
    assert [item.number for item in prepared.items] == list(range(len(prepared.items)))
    assert [o.files for o in prepared.outputs] == [range(1), range(1, 2)]
    for first, second in pairs(prepared):
        assert first.item is second.item
        assert (first.part, second.part) == (0, 1)
    chunks = prepared.plan.chunks()
    assert {(c.item.number, c.part) for c in chunks} == {(i.number, part) for i in prepared.items for part in (0, 1)}


def pairs(prepared: conversion.Prepared) -> Iterator[tuple[conversion.OutputTensor, conversion.OutputTensor]]:
    one, other = prepared.outputs
    for number, tensor in enumerate(one.tensors):
        yield tensor, other.tensors[number]


def test_rows_that_two_tensors_of_an_output_share_are_one_item_with_two_places(
    tiny_model: Path, tmp_path: Path
) -> None:
    options = Options(type="F32")
    checkpoint = conversion.Opener(options).open(tiny_model)
    (draft,) = choose(checkpoint, options)
    rows = draft.tensors[0].rows
    twins = [Chosen(name, rows, TYPES["F32"], "asked for") for name in ("a", "b")]
    items: dict[Rows, EncodedRows] = {}
    tensors = [outputs._tensor(twin, items, set(), options) for twin in twins]
    content = Content(tmp_path / "x", Draft("F32", "any", twins, draft.head), tensors)
    plan, (output,) = make_plan(checkpoint, tmp_path / "x", TARGET, [content], options)
    assert output.files == range(len(plan.files))
    ((item, places),) = plan.items
    assert item is items[rows]
    assert [p.part for p in places] == [0, 1]
    outs = [np.empty((item.n_rows, n), np.uint8) for n in item.row_bytes]
    item.fill(0, item.n_rows, outs, np.empty(1 << 16, np.float32))
    assert outs[0].tobytes() == outs[1].tobytes()
