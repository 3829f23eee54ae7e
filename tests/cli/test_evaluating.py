"""The commands that run a model over a text, as a user sees them."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamconv.quant.imatrix_files import read_imatrix_file
from streamconv.text import default_text


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of about 2000 tokens."""
    rng = random.Random(1)
    words = ["model", "matters", "the", "of", "a column", "layer", "much", "how"]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(rng.choice(words) for _ in range(400)))
    return path


def test_a_matrix_is_made_told_and_used_by_a_conversion(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    made = here("imatrix", small, out, "--text", text, "-c", "32", "--chunks", "36")
    assert made.code == 0, made.err
    assert re.search(r"\[36\]\d+\.\d{4},\nFinal estimate: PPL = \d+\.\d{4} \+/- \d+\.\d{5}\n", made.out)
    assert "36 chunks of 32 tokens" in made.out
    assert "halves of the text differ by" in made.out
    found = read_imatrix_file(out)
    assert (found.datasets, found.chunks, found.chunk_size) == ([str(text)], 36, 32)
    names = [f"blk.{i}.{n}.weight" for i in range(2) for n in (
        "attn_k", "attn_output", "attn_q", "attn_v", "ffn_down", "ffn_gate", "ffn_up")]  # fmt: skip
    assert list(found.entries) == names
    assert {float(c) for e in found.entries.values() for c in e.counts} == {36 * 32}
    assert here("imatrix", small, out, "--text", text, "-c", "32", "--chunks", "36").out.startswith(f"{out} is already")
    planned = here("plan", small, tmp_path / "q.gguf", "--type", "Q4_K_M", "--imatrix", out)
    assert planned.code == 0, planned.err
    assert "imatrix" not in planned.err


def test_without_a_text_the_bundled_one_is_taken_and_the_run_says_so(here: Any, small: Path, tmp_path: Path) -> None:
    out, own, other = tmp_path / "m.gguf", tmp_path / "text.txt", tmp_path / "n.gguf"
    how = ("-c", "32", "--chunks", "3")
    made = here("imatrix", small, out, *how)
    assert made.code == 0, made.err
    assert "note: calibrating with streamconv's own calibration text" in made.err + made.out
    assert "give --text for your own domain" in made.err + made.out
    found = read_imatrix_file(out)
    assert found.datasets == ["streamconv's own calibration text"]
    assert "already" in here("imatrix", small, out, *how).out
    own.write_bytes(default_text())
    assert here("imatrix", small, other, "--text", own, *how).code == 0
    same = read_imatrix_file(other)
    assert all(np.array_equal(entry.sums, same.entries[name].sums) for name, entry in found.entries.items())


def test_another_bundled_text_is_another_job(
    here: Any, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, how = tmp_path / "m.gguf", ("-c", "32", "--chunks", "3")
    assert here("imatrix", small, out, *how).code == 0
    changed = default_text() + b"One more line.\n"
    monkeypatch.setattr("streamconv.evaluation.request.default_text", lambda: changed)
    assert "is already complete" not in here("imatrix", small, out, *how).out


@pytest.mark.parametrize("command", ["compare", "perplexity"])
def test_what_judges_a_model_takes_no_text_of_its_own(here: Any, small: Path, command: str) -> None:
    found = here(command, *[small] * (2 if command == "compare" else 1))
    assert found.code == 64
    assert "--text is missing" in found.err


def test_neither_threads_nor_memory_change_a_bit(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    made = set()
    for n, options in enumerate((["--threads", "1"], ["--threads", "3", "--io", "pread"], ["--ram", "70MiB"])):
        out = tmp_path / f"{n}" / "m.gguf"
        out.parent.mkdir()
        assert here("imatrix", small, out, "--text", text, "-c", "32", "--chunks", "36", "--quiet", *options).code == 0
        made.add(out.read_bytes())
    assert len(made) == 1


def test_a_run_that_is_stopped_goes_on(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    arguments = ("--text", text, "-c", "32", "--chunks", "20")
    out, other = tmp_path / "m.gguf", tmp_path / "x" / "m.gguf"
    other.parent.mkdir()
    assert here("imatrix", small, other, *arguments, "--quiet").code == 0
    stopped = here("imatrix", small, out, *arguments, "--stop-after", "0.001s")
    assert (stopped.code, out.exists()) == (75, False)
    status = here("status", out, "--json").events[0]
    assert (status["type"], status["chunks_done"]) == ("imatrix", 1)
    assert here("imatrix", small, out, *arguments, "--chunks", "21", "--quiet").code == 78
    assert here("imatrix", small, out, *arguments, "--quiet").code == 0
    assert out.read_bytes() == other.read_bytes()


def test_another_text_is_another_matrix(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    changing = tmp_path / "text.txt"
    for ending in ("gguf", "dat"):
        changing.write_bytes(text.read_bytes())
        out = tmp_path / f"m.{ending}"
        arguments = ("imatrix", small, out, "--text", changing, "-c", "32", "--chunks", "4", "--no-ppl", "--quiet")
        assert here(*arguments).code == 0
        before = out.read_bytes()
        changing.write_bytes(text.read_bytes().replace(b"much", b"most"))
        assert here(*arguments).code == 73
        assert out.read_bytes() == before
        assert here(*arguments, "--update").code == 0
        assert out.read_bytes() != before
        assert here("verify", out).code == 0


def test_matrices_are_added_up_and_converted_without_a_model(
    here: Any, small: Path, text: Path, tmp_path: Path
) -> None:
    one, more, both = tmp_path / "1.gguf", tmp_path / "2.gguf", tmp_path / "3.gguf"
    here("imatrix", small, one, "--text", text, "-c", "32", "--chunks", "8", "--no-ppl")
    here("imatrix", small, more, "--text", text, "-c", "32", "--chunks", "8", "--from-chunk", "8", "--no-ppl")
    counted = here(
        "imatrix", small, both, "--text", text, "-c", "32", "--chunks", "8", "--from-chunk", "8", "--in-file", one
    )
    assert counted.code == 0, counted.err
    added = here("imatrix", tmp_path / "sum.gguf", "--in-file", one, "--in-file", more)
    assert added.out == f"{tmp_path / 'sum.gguf'}: 14 entries, 16 chunks of 32 tokens\n"
    a, b, s, c = (read_imatrix_file(path) for path in (one, more, tmp_path / "sum.gguf", both))
    for name, entry in s.entries.items():
        assert np.allclose(entry.sums, a.entries[name].sums + b.entries[name].sums, rtol=1e-6)
        assert np.allclose(entry.sums, c.entries[name].sums, rtol=1e-6)
        assert entry.counts.tolist() == c.entries[name].counts.tolist() == [512]
    assert (c.chunks, c.datasets) == (16, [str(text), str(text)])
    for source, made in ((one, "x.dat"), (tmp_path / "x.dat", "y.gguf")):
        assert here("imatrix", tmp_path / made, "--in-file", source, "-c", "32", "--quiet").code == 0
    back = read_imatrix_file(tmp_path / "y.gguf")
    assert np.allclose(back.entries["blk.0.attn_q.weight"].sums, a.entries["blk.0.attn_q.weight"].sums, rtol=1e-6)
    shown = here("imatrix", "--in-file", one, "--show-statistics")
    assert "CosSim" in shown.out
    assert len(shown.out.splitlines()) == 1 + 1 + 14 + 1 + 1 + 2
    assert len(here("imatrix", "--in-file", one, "--show-statistics", "--json").events[0]["tensors"]) == 14


def test_the_heads_entry_is_there_when_it_is_asked_for(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    assert (
        here("imatrix", small, out, "--text", text, "-c", "32", "--chunks", "4", "--process-output", "--quiet").code
        == 0
    )
    entry = read_imatrix_file(out).entries["output.weight"]
    assert entry.counts.tolist() == read_imatrix_file(out).entries["blk.0.attn_q.weight"].counts.tolist()
    assert (entry.sums > 0).all()


def test_a_model_without_a_head_of_its_own_has_no_entry_for_it(
    here: Any, data: Path, text: Path, tmp_path: Path
) -> None:
    tied, out = data / "checkpoints" / "gemma1" / "hf", tmp_path / "m.gguf"
    made = here("imatrix", tied, out, "--text", text, "-c", "32", "--chunks", "4", "--process-output", "--no-ppl")
    assert "note: --process-output: the model has no output.weight of its own" in made.err
    assert not any(name.startswith("output") for name in read_imatrix_file(out).entries)


def test_a_model_is_exactly_itself_and_others_are_told_as_llama_perplexity_does(
    here: Any, small: Path, text: Path, tmp_path: Path
) -> None:
    q = tmp_path / "q.gguf"
    assert here("convert", small, q, "--type", "Q8_0", "--quiet").code == 0
    arguments = ("--text", text, "-c", "32", "--chunks", "8")
    same, other = json.loads(here("compare", small, small, q, *arguments, "--json").out)
    assert [each["model"] for each in (same, other)] == [str(small), str(q)]
    assert set(same["kl_divergence"].values()) == {0.0}
    assert other["kl_divergence"]["mean"] > 0
    one = json.loads(here("compare", small, q, *arguments, "--json").out)
    assert one == other
    alone = json.loads(here("perplexity", q, *arguments, "--json").out)
    assert alone["n"] == 8 * 15
    assert alone["mean_ppl"] == pytest.approx(one["perplexity"]["mean_ppl_q"], rel=1e-12)
    assert "--pre has no effect" in here("perplexity", q, *arguments, "--pre", "llama-bpe").err
    told = here("compare", small, q, *arguments).out
    for label in ("Mean PPL(Q)                   :", "Mean    KLD:", "99.9%   KLD:", "RMS Δp    :", "Same top p:"):
        assert label in told
    assert "Final estimate: PPL = " in here("perplexity", q, *arguments).out


def test_models_of_another_vocabulary_are_refused(here: Any, small: Path, data: Path, text: Path) -> None:
    found = here("compare", small, data / "checkpoints" / "gemma1" / "hf", "--text", text, "-c", "32")
    assert found.code == 65
    assert "vocabulary" in found.err or "other tokens" in found.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{model}", "m.bin", "--text", "{text}"], 64, "a .gguf or a .dat file"),
        (["{model}", "--text", "{text}"], 64, "SRC and OUT are needed"),
        (["m.gguf"], 64, "there is nothing to do"),
        (["--in-file", "{text}"], 64, "OUT is missing"),
        (["m.gguf", "--in-file", "{text}", "-c", "2147483648"], 64, "-c 2147483648: chunks have fewer"),
        (["m.gguf", "--in-file", "{text}", "--chunks", "3"], 64, "--chunks has no effect without a model"),
        (["m.gguf", "--in-file", "{text}", "--pre", "gpt-2"], 64, "--pre has no effect without a model"),
        (["--in-file", "{text}", "--show-statistics", "--no-ppl"], 64, "--no-ppl has no effect without a model"),
        (["{model}", "m.gguf", "--text", "{text}", "-c", "2"], 64, "at least 4 tokens"),
        (["{model}", "m.gguf", "--text", "{text}", "--chunks", "0"], 64, "no number of chunks"),
        (["{model}", "m.gguf", "--text", "{text}", "--from-chunk", "-1"], 64, "no number of chunks"),
        (["{model}", "m.gguf", "--text", "{text}", "--ram", "16MiB"], 64, "--ram 16 MiB is too little"),
        (["{model}", "m.gguf", "--text", "nowhere.txt"], 66, "nowhere.txt"),
        (["{model}", "m.gguf", "--text", "{text}", "-c", "20000"], 65, "need at least 40000"),
        (["{model}", "m.gguf", "--text", "{text}", "--in-file", "{text}"], 65, "is damaged at byte"),
        (["{model}", "{text}.dat", "--text", "{text}", "--in-file", "{text}.dat"], 66, ".dat"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_and_nothing_is_written(
    here: Any, small: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found = here("imatrix", *(a.format(model=small, text=text) for a in arguments))
    assert (found.code, list(tmp_path.iterdir())) == (code, [])
    assert message in found.err


def test_a_full_disk_is_found_before_anything_is_written(
    here: Any, small: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamconv.engine import files

    monkeypatch.setattr(files, "free_bytes", lambda folder: (64 << 20) + 100_000)
    out = tmp_path / "m.gguf"
    made = here("imatrix", small, out, "--text", text, "-c", "32")
    assert (made.code, list(tmp_path.iterdir())) == (74, [])
    assert "bytes are needed" in made.err
    monkeypatch.setattr(files, "free_bytes", lambda folder: 64 << 20)
    compared = here("compare", small, small, "--text", text, "-c", "32")
    assert compared.code == 74
    assert "TMPDIR" in compared.err


def test_a_comparison_that_is_stopped_tells_how_far_it_was_and_that_nothing_is_kept(
    here: Any, small: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamconv.evaluation.walk import Walk

    def look(walk: Walk) -> None:
        if walk.made == 2:
            walk.stop.signum = 15
            raise walk.stopped()

    monkeypatch.setattr(Walk, "look", look)
    monkeypatch.setattr("streamconv.cli._die_of", lambda signum: 128 + signum)
    stopped = here("compare", small, small, "--text", text, "-c", "32", "--chunks", "4", "--json")
    assert stopped.code == 128 + 15
    (told,) = stopped.events
    assert (told["status"], told["resumable"]) == ("Interrupted", False)
    assert 0 < told["done"] < told["total"]
    assert "Nothing is kept" in told["next"]


def test_a_model_that_was_touched_is_gone_on_with_and_one_that_was_changed_is_not(
    here: Any, small: Path, text: Path, tmp_path: Path
) -> None:
    model, out, fresh = tmp_path / "model", tmp_path / "m.gguf", tmp_path / "fresh.gguf"
    shutil.copytree(small, model)
    weights = model / "model.safetensors"
    weights.chmod(0o644)
    arguments = ("--text", text, "-c", "32", "--chunks", "8", "--no-ppl")

    def stop() -> None:
        assert here("imatrix", model, out, *arguments, "--stop-after", "0.001s", "--force").code == 75

    stop()
    os.utime(weights, ns=(1, 1))
    made = here("imatrix", model, out, *arguments)
    assert (made.code, "but the same contents" in made.out) == (0, True), made.err
    assert here("imatrix", model, fresh, *arguments).code == 0
    as_it_was = read_imatrix_file(fresh).entries
    assert all((e.sums == as_it_was[n].sums).all() for n, e in read_imatrix_file(out).entries.items())
    out.unlink()
    stop()
    changed = bytearray(weights.read_bytes())
    changed[-40:] = bytes(40)
    weights.write_bytes(changed)
    refused = here("imatrix", model, out, *arguments)
    assert (refused.code, out.exists()) == (65, False)
    assert "was changed after the unfinished job" in refused.err
    assert here("imatrix", model, out, *arguments, "--update").code == 0
    assert here("imatrix", model, fresh, *arguments, "--update").code == 0
    now = read_imatrix_file(fresh).entries
    assert all((e.sums == now[n].sums).all() for n, e in read_imatrix_file(out).entries.items())
