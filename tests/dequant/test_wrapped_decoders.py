"""Decoders are seen under adapters, merges and stacks: their kernels, their notes, their types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fingerprint_cases import JOBS, QUERY, Job, adapter_gguf, encoding, gptq, nf4_folder, quantized_merge_gguf
from row_contract import values_of

from streamconv import conversion, dequant
from streamconv.conversion import Options, Prepared, execution
from streamconv.kernels import cache
from streamconv.kit import Stacked
from streamconv.progress import Silent
from streamconv.rows import merge_of


def planned(job: Job, **options: object) -> Prepared:
    return job.plan(Options(**{"type": "q8_0", **options}))  # type: ignore[arg-type]


def notes(prepared: Prepared) -> list[str]:
    return [text for text in prepared.warnings if "quantizing them again" in text]


@pytest.mark.parametrize("job", [adapter_gguf, quantized_merge_gguf])
def test_what_was_quantized_before_is_told_under_whatever_changes_it(
    job: Callable[[Path], Job], tmp_path: Path
) -> None:
    prepared = planned(job(tmp_path))
    (note,) = notes(prepared)
    assert note.startswith("1 tensors are stored as gptq-4bit")
    changed = next(t.item.rows for o in prepared.outputs for t in o.tensors if t.name == "blk.0.attn_q.weight")
    assert not isinstance(changed, dequant.DecodedRows)
    assert [d.name for d in dequant.decoders_of(changed)] == [f"{QUERY}.weight"]


def test_blocks_of_gguf_files_that_are_merged_are_told_too(tmp_path: Path) -> None:
    import streamconv

    base = JOBS["dense_gguf"](tmp_path)
    streamconv.convert(tmp_path / "m", tmp_path / "a.gguf", type="q8_0")
    streamconv.convert(tmp_path / "m", tmp_path / "b.gguf", type="q8_0")
    (tmp_path / "r.yml").write_text(
        "merge_method: linear\nmodels:\n"
        + "".join(f"- {{model: {tmp_path / n}.gguf, parameters: {{weight: 1}}}}\n" for n in "ab")
    )
    prepared = conversion.prepare(tmp_path / "r.yml", tmp_path / "x.gguf", Options(type="q4_0"))
    assert [text.partition(" tensors are ")[2][:14] for text in notes(prepared)] == ["stored as Q8_0"]
    assert not notes(base.plan(base.options))


def test_kernels_of_all_decoders_are_compiled_before_the_threads_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cache, "knows", lambda what, module: bool(asked.append(what)) or True)
    execution.warm_up(planned(adapter_gguf(tmp_path)).items, Silent())
    assert "gptq-4bit" in asked


def test_a_merge_in_a_stack_is_seen(tmp_path: Path) -> None:
    prepared = planned(quantized_merge_gguf(tmp_path))
    rows = next(t.item.rows for o in prepared.outputs for t in o.tensors if t.name == "blk.0.attn_q.weight")
    found = merge_of(Stacked([rows, rows], (2, *rows.shape)))
    assert found is not None
    assert found.method == "passthrough"


def test_an_adapter_leaves_all_tensors_of_a_folder_in_one_type(tmp_path: Path) -> None:
    adapter_gguf(tmp_path)
    prepared = conversion.prepare(tmp_path / "recipe.yml", tmp_path / "x", Options())
    types = {t.encoding.type.name for o in prepared.outputs for t in o.tensors}
    plain = conversion.prepare(gptq(tmp_path / "p"), tmp_path / "y", Options())
    assert types == {t.encoding.type.name for o in plain.outputs for t in o.tensors} == {"BF16"}


def test_merged_experts_lie_as_a_plain_folder_has_them(tmp_path: Path) -> None:
    job = encoding(tmp_path, "mxfp4.model")
    plain = {t.name: t.item.rows for o in job.plan(job.options).outputs for t in o.tensors}
    (tmp_path / "r.yml").write_text(
        f"merge_method: passthrough\nmodels: [{{model: {tmp_path / 'm'}, parameters: {{scale: 2.0}}}}]\n"
    )
    merged = conversion.prepare(tmp_path / "r.yml", tmp_path / "y", Options())
    for tensor in merged.outputs[0].tensors:
        assert tensor.item.rows.shape == plain[tensor.name].shape
        assert np.array_equal(values_of(tensor.item.rows), 2 * values_of(plain[tensor.name]))


def test_a_decoder_is_found_where_nothing_is_around_it(tmp_path: Path) -> None:
    job = nf4_folder(tmp_path)
    prepared = job.plan(job.options)
    assert sum(len(dequant.decoders_of(i.rows)) for i in prepared.items) == 7
