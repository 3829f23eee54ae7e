"""--report FILE.html from the command line to the numbers on the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_reader import facts, read_page, rows, value

import streamconv
from streamconv.conversion import sampled_errors
from streamconv.quant.imatrix_files import read_imatrix_file

ALL = "Every tensor, in the order of the file"


def table(path: Path) -> dict[str, dict[str, str]]:
    """The rows of every tensor on a page, by name."""
    return {row["Tensor"]: row for row in rows(read_page(path.read_text()), ALL)}


def values(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a model as they are, decoded."""
    return {name: rows.read(0, int(np.prod(rows.shape[:-1]))) for name, rows in streamconv.open(path).items()}


def relative(got: np.ndarray, want: np.ndarray, weights: np.ndarray | float = 1.0) -> float:
    x = want.astype(np.float64)
    error = weights * (got - x) ** 2
    return float(np.sqrt(error.sum() / (weights * x**2).sum()))


@pytest.fixture(scope="module")
def exact(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The weights of ``small`` under the names, and in the order of rows, that GGUF has."""
    out = tmp_path_factory.mktemp("exact") / "f32.gguf"
    streamconv.convert(data / "checkpoints" / "mistral-spm" / "hf", out, type="F32")
    return values(out)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("how much a column of the model matters " * 60)
    return path


def test_the_page_tells_type_and_error_of_every_tensor(
    here: Any, small: Path, tmp_path: Path, exact: dict[str, np.ndarray]
) -> None:
    out, page, lines = tmp_path / "x.gguf", tmp_path / "r.html", tmp_path / "r.jsonl"
    assert here("convert", small, out, "--type", "q4_0", "--report", page, "--quiet").code == 0
    made, found = values(out), table(page)
    assert here("convert", small, tmp_path / "y.gguf", "--type", "q4_0", "--report", lines, "--quiet").code == 0
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [*found] == [t["name"] for t in told] == [*made]
    for t in told:
        row, name = found[t["name"]], t["name"]
        assert (row["Written as"], row["Bytes"]) == (t["type"], f"{t['bytes']:,}")
        assert row["Shape"] == " × ".join(map(str, t["shape"]))
        want = relative(made[name], exact[name])
        assert value(row["Error"]) / 100 == pytest.approx(want, rel=0.006)
        assert want == pytest.approx(t["rmse"] / np.sqrt(np.mean(exact[name].astype(np.float64) ** 2)), rel=1e-4)
    assert sum(value(row["Error"]) > 0 for row in found.values()) >= 14


def test_with_an_importance_matrix_errors_are_weighted_too(
    here: Any, small: Path, tmp_path: Path, text: Path, exact: dict[str, np.ndarray]
) -> None:
    out, page, matrix = tmp_path / "x.gguf", tmp_path / "r.html", tmp_path / "i.gguf"
    assert here("imatrix", small, matrix, "--text", text, "-c", "32", "--chunks", "2", "--quiet").code == 0
    options = ["--type", "q4_0", "--imatrix", matrix, "--report", page, "--quiet"]
    assert here("convert", small, out, *options).code == 0
    made, found, entries = values(out), table(page), read_imatrix_file(matrix).entries
    weighted = {name: e for name, e in entries.items() if found[name]["Written as"] == "Q4_0"}
    assert len(weighted) == 12
    for name, entry in weighted.items():
        want = relative(made[name], exact[name], entry.sums.reshape(1, -1).astype(np.float64))
        assert value(found[name]["Weighted error"]) / 100 == pytest.approx(want, rel=0.006)
        assert found[name]["Weighted error"] != found[name]["Error"]
    assert found["token_embd.weight"]["Weighted error"] == "–"
    assert matrix.name in page.read_text()


def test_a_sample_of_rows_tells_nearly_the_error_of_all(
    here: Any, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, sampled = tmp_path / "whole.html", tmp_path / "sampled.html"
    assert here("convert", small, tmp_path / "x.gguf", "--type", "q4_0", "--report", whole, "--quiet").code == 0
    monkeypatch.setattr(sampled_errors, "SAMPLE_WEIGHTS", 1500)
    assert here("convert", small, tmp_path / "x.gguf", "--type", "q4_0", "--report", sampled, "--quiet").code == 0
    want, got = table(whole), table(sampled)
    assert {n: r["Error"] for n, r in want.items()} != {n: r["Error"] for n, r in got.items()}
    for name, row in got.items():
        assert value(row["Error"]) == pytest.approx(value(want[name]["Error"]), rel=0.1)


@pytest.mark.parametrize(("n_rows", "n_cols"), [(1, 10**6), (7, 100_000), (32_000, 4096), (10**6, 64), (5, 0), (0, 64)])
def test_sampled_rows_are_rows_of_the_tensor_and_each_once(n_rows: int, n_cols: int) -> None:
    found = [row for part in sampled_errors.sampled_rows(n_rows, n_cols) for row in part]
    assert found == sorted(set(found))
    assert all(0 <= row < n_rows for row in found)
    assert len(found) * n_cols <= max(sampled_errors.SAMPLE_WEIGHTS, n_cols)
    assert len(found) >= min(n_rows, 1)


def test_a_resumed_job_and_a_finished_output_have_the_same_page_as_one_run(
    here: Any, small: Path, tmp_path: Path
) -> None:
    command = ["--type", "q8_0", "--quiet", "--chunk-size", "4KiB"]
    pages = [tmp_path / f"{n}.html" for n in ("once", "resumed", "finished")]
    assert here("convert", small, tmp_path / "once.gguf", *command, "--report", pages[0]).code == 0
    out = tmp_path / "twice.gguf"
    assert here("convert", small, out, *command, "--stop-after", "0s").code == 75
    assert here("convert", small, out, *command, "--report", pages[1]).code == 0
    assert here("convert", small, out, *command, "--report", pages[2]).code == 0
    once, resumed, finished = map(table, pages)
    assert once == resumed == finished
    assert "by earlier runs" in pages[1].read_text()
    assert "the output was complete already" in pages[2].read_text()


def test_several_types_and_shards_are_on_one_page(
    here: Any, small: Path, tmp_path: Path, exact: dict[str, np.ndarray]
) -> None:
    page = tmp_path / "r.html"
    options = ["--type", "q8_0,q4_0", "--split-max-tensors", "9", "--report", page, "--quiet"]
    assert here("convert", small, tmp_path / "x-{type}.gguf", *options).code == 0
    body = read_page(page.read_text())
    found = rows(body, "Size and error of every output")
    assert [(row["Output"], row["Type"]) for row in found] == [("x-Q8_0.gguf", "Q8_0"), ("x-Q4_0.gguf", "Q4_0")]
    assert value(found[0]["Median error"]) < value(found[1]["Median error"]) / 4
    names = [row["Tensor"] for row in rows(body, ALL)]
    assert sorted(names) == sorted(2 * [*exact])


@pytest.mark.slow
def test_a_merge_has_a_page_of_what_encoding_it_changed(here: Any, small: Path, tmp_path: Path) -> None:
    recipe, page, other = tmp_path / "recipe.yml", tmp_path / "r.html", tmp_path / "other"
    shutil.copytree(small, other)
    recipe.write_text(
        f"merge_method: linear\nmodels:\n- model: {small}\n  parameters: {{weight: 1}}\n- model: {other}\n"
        "  parameters: {weight: 3}\ndtype: bfloat16\n"
    )
    assert here("merge", recipe, tmp_path / "merged.gguf", "--type", "q8_0", "--report", page, "--quiet").code == 0
    assert value(table(page)["blk.0.attn_q.weight"]["Error"]) == pytest.approx(0.6, abs=0.3)


def test_folders_and_copies_have_pages(here: Any, small: Path, tmp_path: Path) -> None:
    page, once = tmp_path / "r.html", tmp_path / "once.gguf"
    assert here("convert", small, tmp_path / "folder", "--type", "f16", "--report", page, "--quiet").code == 0
    assert "model.layers.0.self_attn.q_proj.weight" in table(page)
    assert here("convert", small, once, "--type", "q8_0", "--quiet").code == 0
    assert here("convert", once, tmp_path / "copy.gguf", "--copy", "--report", page, "--quiet").code == 0
    assert {row["Error"] for row in table(page).values()} == {"0 %"}
    assert "holds exactly the values of the source" in page.read_text()


def test_names_of_files_are_escaped(here: Any, small: Path, tmp_path: Path) -> None:
    name = '<img src=x onerror=alert(1)>&".gguf'
    assert (
        here("convert", small, tmp_path / name, "--type", "f16", "--report", tmp_path / "r.html", "--quiet").code == 0
    )
    body = read_page((tmp_path / "r.html").read_text())
    assert body.all("h1")[0].text == name


def test_a_page_replaces_a_report_and_nothing_else(here: Any, small: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "x.gguf", tmp_path / "r.html"
    command = ["convert", small, out, "--type", "f16", "--quiet", "--report", page]
    page.write_text('<!doctype html>\n<html lang="en"><p>my own page</p>')
    assert here(*command).code == 73
    assert not out.exists()
    assert "my own page" in page.read_text()
    page.unlink()
    assert here(*command).code == 0
    first = page.read_text()
    assert here(*command).code == 0
    assert table(page)
    assert page.read_text() != first  # it tells that nothing was to be done
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


def test_what_has_no_page_is_refused_before_the_work(here: Any, small: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.HTML"
    empty = here("convert", small, tmp_path / "x.gguf", "--vocab-only", "--report", page)
    assert (empty.code, "no tensors" in empty.err) == (64, True)
    adapter = here("extract-lora", small, small, tmp_path / "adapter", "--report", page)
    assert (adapter.code, "there is no page for an adapter" in adapter.err) == (64, True)
    assert [*tmp_path.iterdir()] == []


def test_a_comparison_has_a_page_with_the_numbers_of_its_json(
    here: Any, small: Path, tmp_path: Path, text: Path
) -> None:
    models = [tmp_path / "q4.gguf", tmp_path / "q8.gguf"]
    for path in models:
        assert here("convert", small, path, "--type", f"{path.stem}_0", "--quiet").code == 0
    page = tmp_path / "r.html"
    command = ["compare", small, *models, small, "--text", text, "-c", "32", "--chunks", "4"]
    told = here(*command, "--report", page, "--json", "--quiet")
    assert told.code == 0, told.err
    facts_of = json.loads(told.out)
    body = read_page(page.read_text())
    found = rows(body, "All models on the same text")
    for row, fact in zip(found, facts_of, strict=True):
        assert row["Model"] == Path(fact["model"]).name
        kl = fact["kl_divergence"]
        assert value(row["Mean KL divergence, nats"]) == pytest.approx(kl["mean"], rel=0.05)
        assert value(row["99 % below"]) == pytest.approx(kl["p99"], rel=0.005)
        assert value(row["Perplexity"]) == pytest.approx(fact["perplexity"]["mean_ppl_q"], rel=0.001)
    percentiles = rows(body, "Percentiles of the KL divergence, in nats")
    assert [value(r["KL divergence"]) for r in percentiles if r[""] == "Median"] == pytest.approx(
        [fact["kl_divergence"]["median"] for fact in facts_of], rel=0.005
    )
    assert "the divergence is 0 everywhere" in body.text  # the model and itself
    first = page.read_bytes()
    assert here(*command, "--report", page, "--quiet").code == 0
    assert page.read_bytes() == first
    assert facts(body)["Same first choice"]


def test_the_page_of_a_comparison_is_refused_before_it_runs(here: Any, small: Path, tmp_path: Path, text: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(small, model)
    own, words = tmp_path / "own.html", tmp_path / "text.html"
    own.write_text("mine")
    words.write_text(text.read_text())
    cases = [
        (tmp_path / "r.jsonl", 64), (model / "config.json", 64), (words, 64), (own, 73), (tmp_path / "none" / "r.html", 73),
        (model, 64),
    ]  # fmt: skip
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for path, code in cases:
        refused = here("compare", model, model, "--text", words, "-c", "32", "--chunks", "2", "--report", path)
        assert (refused.code, refused.out) == (code, ""), (path, refused.err)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_what_was_compared_is_printed_even_if_the_page_cannot_be_written(
    here: Any, small: Path, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamconv import evaluation

    page, real = tmp_path / "r.html", evaluation.write_page

    def write(*args: Any) -> None:
        page.write_text("mine")
        real(*args)

    monkeypatch.setattr(evaluation, "write_page", write)
    told = here("compare", small, small, "--text", text, "-c", "32", "--chunks", "2", "--report", page)
    assert (told.code, page.read_text()) == (73, "mine")
    assert "Mean    KLD:   0.000000" in told.out


@pytest.mark.slow
def test_a_mix_has_a_page_with_the_numbers_of_its_json(here: Any, small: Path, tmp_path: Path, text: Path) -> None:
    made, page = tmp_path / "mix.txt", tmp_path / "r.html"
    command = [
        "mix",
        small,
        made,
        "--bpw",
        "6.5",
        "--types",
        "Q4_0,Q5_0,Q8_0",
        "--text",
        text,
        "-c",
        "32",
        "--chunks",
        "8",
    ]
    told = here(*command, "--report", page, "--json", "--quiet")
    assert told.code == 0, told.err
    fact = told.events[-1]
    body = read_page(page.read_text())
    sides = rows(body, "The mix and standard mixes")
    assert [row["Bytes"] for row in sides] == [f"{fact[s]['bytes']:,}" for s in ("mix", "standard") if fact[s]]
    assert value(sides[0]["Predicted"]) == pytest.approx(fact["mix"]["predicted_kl"], rel=0.005)
    listed = rows(body, "Every tensor")
    assert [(row["Tensor"], row["Type"]) for row in listed] == [(t["name"], t["type"]) for t in fact["tensors"]]
    assert facts(body)["Bits per weight"].startswith(f"{fact['bits_per_weight']:.2f}")
    first = page.read_bytes()
    assert here(*command, "--report", page, "--quiet").code == 0
    assert page.read_bytes() == first
    page.unlink()
    gone = here(*command, "--report", page)
    assert (gone.code, "is not kept for a page" in gone.err) == (73, True)


def test_the_page_of_a_mix_is_refused_before_it_is_measured(here: Any, small: Path, tmp_path: Path, text: Path) -> None:
    own, words, made = tmp_path / "own.html", tmp_path / "text.html", tmp_path / "mix.html"
    own.write_text("mine")
    words.write_text(text.read_text())
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    command = ["mix", small, made, "--bpw", "6.5", "--types", "Q4_0,Q8_0", "--text", words, "-c", "32", "--chunks", "8"]
    for path, code, *flags in [
        (tmp_path / "r.jsonl", 64), (words, 73), (words, 64, "--force"), (made, 64), (own, 73), (tmp_path / "no" / "r.html", 73),
    ]:  # fmt: skip
        refused = here(*command, "--report", path, *flags)
        assert (refused.code, refused.out) == (code, ""), (path, refused.err)
    out = tmp_path / "x.gguf"
    sized = ["convert", small, out, *command[3:9]]
    for path, code, *flags in [
        (words, 64, "--force"), (own, 73), (tmp_path / "x.gguf.types", 64), (out, 64), (out, 64, "--force"),
    ]:  # fmt: skip
        assert here(*sized, "--report", path, *flags).code == code, path
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_the_report_of_a_conversion_for_a_size_is_that_of_the_conversion(
    here: Any, small: Path, tmp_path: Path, text: Path
) -> None:
    page = tmp_path / "own.html"
    page.write_text("mine")
    command = [
        "convert",
        small,
        tmp_path / "x.gguf",
        "--bpw",
        "6.5",
        "--types",
        "Q4_0,Q5_0,Q8_0",
        "--text",
        text,
        "--no-check",
    ]
    made = here(*command, "--report", page, "--force", "--quiet")
    assert made.code == 0, made.err
    assert {row["Written as"] for row in table(page).values()} >= {"Q4_0", "Q8_0", "F32"}
