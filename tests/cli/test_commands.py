"""Each command: what it prints, what it leaves on disk, and that it explains itself."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf_reader
import pytest

import streamconv

COMMANDS = [
    "convert",
    "merge",
    "extract-lora",
    "plan",
    "edit",
    "split",
    "join",
    "hash",
    "fetch",
    "status",
    "verify",
    "inspect",
    "check",
    "imatrix",
    "compare",
    "perplexity",
    "mix",
    "families",
    "bench",
]
DOCS = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def subcommands() -> dict[str, Any]:
    from streamconv.cli import make_parser

    (chosen,) = (a for a in make_parser()._actions if a.dest == "command")
    assert isinstance(chosen.choices, dict)
    return chosen.choices


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_these_are_all_the_commands() -> None:
    assert list(subcommands()) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help_and_is_documented(command: str) -> None:
    if not DOCS.exists():
        pytest.skip("docs/cli.md is not here")
    text = DOCS.read_text().partition(f"## streamconv {command}")[2].partition("\n## ")[0]
    assert text, f"{command} is missing in docs/cli.md"
    for action in subcommands()[command]._actions:
        if action.option_strings:
            assert action.help, action.option_strings
            assert action.option_strings[-1] in text, action.option_strings


def test_the_module_runs_from_another_folder(run: Any, tmp_path: Path) -> None:
    result = run("--help", cwd=tmp_path)
    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)
    assert "exit codes" in result.out


def test_the_version_is_that_of_the_package(here: Any) -> None:
    from importlib.metadata import version

    assert here("--version").out.strip() == version("streamconv")


def test_without_a_command_the_help_is_shown(here: Any) -> None:
    result = here()
    assert result.code == 64
    assert "usage: streamconv" in result.out


def test_convert_says_what_it_made_and_then_that_it_is_made(here: Any, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    first = here("convert", small, out, "--type", "f16")
    assert first.code == 0
    assert f"{out}: llama, F16" in first.out
    assert "bits per weight" in first.out
    assert sorted(os.listdir(tmp_path)) == [".x.gguf.streamconv", "x.gguf"], "no job folder is left"
    before = out.stat()
    again = here("convert", small, out, "--type", "f16")
    assert again.code == 0
    assert "already complete" in again.out
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_quiet_says_nothing(run: Any, small: Path, tmp_path: Path) -> None:
    for _ in range(2):  # made, and made already
        result = run("convert", small, tmp_path / "x.gguf", "--type", "f16", "--quiet")
        assert (result.code, result.out, result.err) == (0, "", "")


def test_json_ends_with_a_record_of_the_result(here: Any, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    first, again = (here("convert", small, out, "--type", "f16", "--json") for _ in range(2))
    last = first.events[-1]
    assert {"status", "resumable", "done", "total", "bytes", "next"} <= set(last)
    assert (last["status"], last["resumable"], last["files"]) == ("done", False, [str(out)])
    assert last["done"] == last["total"] == out.stat().st_size
    assert 0 < last["bytes"] <= last["total"]
    assert not last["already"]
    assert {"start", "progress"} <= {e["event"] for e in first.events}
    assert again.events[-1]["already"]
    assert again.events[-1]["bytes"] == 0


def test_json_tells_an_error_the_same_way(here: Any, tmp_path: Path) -> None:
    result = here("convert", tmp_path / "nothing", tmp_path / "x.gguf", "--json")
    last = result.events[-1]
    assert {"status", "resumable", "done", "total", "bytes", "next", "message"} <= set(last)
    assert (last["status"], last["resumable"], last["exit_code"]) == ("InputMissing", False, 66)
    assert result.code == 66


def test_plan_writes_nothing_and_gives_a_reason_for_every_type(here: Any, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    result = here("plan", small, out, "--type", "q8_0", "--json")
    assert result.code == 0
    assert os.listdir(tmp_path) == []
    facts = json.loads(result.out)
    assert facts["files"] == [str(out)]
    assert all(t["reason"] and t["source_type"] == "BF16" for t in facts["tensors"])
    assert here("convert", small, out, "--type", "q8_0", "--quiet").code == 0
    made = gguf_reader.read(out)
    assert facts["output_bytes"] == out.stat().st_size
    planned = [(t["name"], tuple(t["shape"][::-1]), t["type"], t["bytes"]) for t in facts["tensors"]]
    assert planned == [(name, t.ne, t.type, len(t.data)) for name, t in made.tensors.items()]


def test_a_dry_run_is_a_plan(here: Any, small: Path, tmp_path: Path) -> None:
    planned = here("plan", small, tmp_path / "x.gguf", "--type", "q8_0")
    dry = here("convert", small, tmp_path / "x.gguf", "--type", "q8_0", "--dry-run")
    assert (dry.code, dry.out) == (planned.code, planned.out)
    assert "token_embd.weight" in dry.out
    assert os.listdir(tmp_path) == []


def test_status_of_nothing_of_an_unfinished_and_of_a_finished_job(
    here: Any, unfinished: Path, tiny_model: Path, tmp_path: Path
) -> None:
    assert here("status", tmp_path / "other.gguf").code == 66
    result = here("status", unfinished, "--json")
    (facts,) = result.events
    assert (result.code, facts["status"], facts["resumable"]) == (0, "unfinished", True)
    assert 0 < facts["done"] < facts["total"]
    assert facts["source"] == str(tiny_model)
    assert "run the same command again" in here("status", unfinished).out
    finished = here("convert", tiny_model, unfinished, "--type", "q8_0")
    assert finished.code == 0
    assert "were finished by earlier runs" in finished.out
    assert here("status", unfinished, "--json").events[0]["status"] == "done"
    assert here("status", unfinished).out == f"{unfinished} is complete\n"


def test_status_of_shards_knows_them(here: Any, small: Path, tmp_path: Path) -> None:
    here("convert", small, tmp_path / "x.gguf", "--type", "f16", "--split-max-tensors", "9", "--quiet")
    assert here("status", tmp_path / "x.gguf").code == 0


def test_status_of_a_finished_folder_knows_it(here: Any, small: Path, tmp_path: Path) -> None:
    assert here("convert", small, tmp_path / "out", "--type", "bf16", "--quiet").code == 0
    assert here("status", tmp_path / "out").out == f"{tmp_path / 'out'} is complete\n"


def test_the_report_tells_hash_and_error_of_every_tensor(here: Any, small: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "x.gguf", tmp_path / "report.jsonl"
    assert here("convert", small, out, "--type", "q8_0", "--report", report, "--quiet").code == 0
    records = {r["name"]: r for r in map(json.loads, report.read_text().splitlines())}
    made = gguf_reader.read(out)
    assert list(records) == list(made.tensors)
    for name, tensor in made.tensors.items():
        r = records[name]
        assert (r["type"], r["sha256"], r["bytes"]) == (tensor.type, tensor.sha256, len(tensor.data))
        if tensor.type == "Q8_0":
            assert 0 < r["rmse"] < r["max_error"] < 0.1
        else:
            assert r["rmse"] == r["max_error"] == 0, name


def test_a_finished_output_is_reported_without_the_errors_nobody_measured(
    here: Any, small: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "x.gguf", tmp_path / "r.jsonl"
    assert here("convert", small, out, "--type", "f16", "--quiet").code == 0
    assert here("convert", small, out, "--type", "f16", "--report", report, "--quiet").code == 0
    records = [json.loads(line) for line in report.read_text().splitlines()]
    tensors = gguf_reader.read(out).tensors
    assert [(r["name"], r["sha256"]) for r in records] == [(name, t.sha256) for name, t in tensors.items()]
    assert {(r["rmse"], r["max_error"], r["nonfinite"]) for r in records} == {(None, None, None)}


def test_a_report_that_cannot_be_written_is_told_before_the_work(here: Any, small: Path, tmp_path: Path) -> None:
    result = here("convert", small, tmp_path / "x.gguf", "--type", "f16", "--report", tmp_path / "none" / "r.jsonl")
    assert result.code == 73
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "options",
    [
        ["--threads", "1"], ["--threads", "2"], ["--ram", "32MiB"], ["--ram", "1GiB"], ["--io", "pread"],
        ["--io", "mmap"],
    ],
    ids=lambda o: " ".join(o),
)  # fmt: skip
def test_no_way_of_running_changes_the_file(here: Any, tiny_model: Path, tmp_path: Path, options: list[str]) -> None:
    assert here("convert", tiny_model, tmp_path / "x.gguf", "--type", "q8_0", "--quiet").code == 0
    assert here("convert", tiny_model, tmp_path / "y.gguf", "--type", "q8_0", "--quiet", *options).code == 0
    assert sha256(tmp_path / "x.gguf") == sha256(tmp_path / "y.gguf")


def test_the_chunk_size_changes_no_tensor(here: Any, tiny_model: Path, tmp_path: Path) -> None:
    for name, size in {"a": "64KiB", "b": "1MiB", "c": "16MiB"}.items():
        out = tmp_path / f"{name}.gguf"
        assert here("convert", tiny_model, out, "--type", "q8_0", "--quiet", "--chunk-size", size).code == 0
    a, b, c = (gguf_reader.read(tmp_path / f"{name}.gguf").tensors for name in "abc")
    assert a == b == c


def test_inspect_lists_a_folder_and_a_file(here: Any, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    here("convert", small, out, "--type", "f16", "--quiet")
    for source, name in ((small, "model.embed_tokens.weight"), (out, "token_embd.weight")):
        assert name in here("inspect", source).out
        assert name in json.dumps(json.loads(here("inspect", source, "--json").out))


def test_check_accepts_what_convert_makes(here: Any, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    here("convert", small, out, "--type", "q8_0", "--quiet")
    result = here("check", out)
    assert result.code == 0
    assert "no errors" in result.out
    assert not [f for f in json.loads(here("check", out, "--json").out) if f["severity"] == "error"]
    raw = out.read_bytes()
    out.write_bytes(raw.replace(b"blk.0.attn_k.weight", b"blk.0.attn_x.weight"))
    broken = here("check", out)
    assert broken.code == 65
    assert "blk.0.attn_k.weight" in broken.out


def test_the_python_functions_do_the_same(here: Any, small: Path, tmp_path: Path) -> None:
    here("convert", small, tmp_path / "a.gguf", "--type", "q8_0", "--quiet")
    streamconv.convert(small, tmp_path / "b.gguf", type="Q8_0", ram="64MiB", threads=1)
    assert sha256(tmp_path / "a.gguf") == sha256(tmp_path / "b.gguf")


@pytest.mark.skipif(os.name != "posix", reason="descriptors are closed as a shell does it")
@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_streams_harm_nothing(small: Path, tmp_path: Path, closed: str) -> None:
    out = tmp_path / "x.gguf"
    command = f"{sys.executable} -m streamconv convert {small} {out} --type f16 {closed}"
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 0
    gguf_reader.read(out)


def test_a_reader_that_leaves_is_no_error(small: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m streamconv plan {small} {tmp_path / 'x.gguf'} --json; echo $? >&2"
    done = subprocess.run(["sh", "-c", f"({command}) | true"], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "0"
