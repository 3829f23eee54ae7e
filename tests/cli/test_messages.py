"""What a person reads who mistypes something: what is wrong, where, and what to do next."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_reader
import pytest

from streamconv import progress

Here = Callable[..., Any]


def test_a_mistyped_option_is_told_with_the_one_that_was_meant(here: Here, small: Path, tmp_path: Path) -> None:
    result = here("convert", small, tmp_path / "x.gguf", "--tpye", "Q8_0")
    assert result.code == 64
    assert result.err == (
        "streamconv: convert: unknown argument --tpye, did you mean --type?\n"
        "  streamconv convert --help lists the arguments.\n"
    )


def test_an_option_like_no_other_is_told_alone(here: Here, small: Path, tmp_path: Path) -> None:
    assert "unknown argument --stop-after\n" in here("plan", small, tmp_path / "x.gguf", "--stop-after", "2h").err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_help_can_be_printed_in_every_encoding(run: Here, encoding: str) -> None:
    result = run("convert", "--help", env={"PYTHONIOENCODING": encoding})
    assert (result.code, result.err) == (0, "")


def test_a_name_that_is_no_text_can_be_printed(run: Here, small: Path, tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"x\xff.gguf")
    result = run("convert", small, out, "--type", "f32", env={"PYTHONIOENCODING": "utf-8"})  # no kernels to tell of
    assert result.code == 0, result.err
    assert all("'sliding_window' is 64" in line for line in result.err.splitlines())
    assert "x\\udcff.gguf: llama, F32" in result.out


def test_a_rule_that_matches_nothing_is_told(here: Here, small: Path, tmp_path: Path) -> None:
    rules = ["--tensor-type", "atn_v=F16", "--tensor-type", "ATTN_V=F16"]
    plan = here("plan", small, tmp_path / "x.gguf", "--type", "q4_0", *rules, "--json")
    told = [text for text in json.loads(plan.out)["warnings"] if "config.json" not in text]
    assert told == ["--tensor-type atn_v=F16: no tensor's name matches, so it has no effect"]


@pytest.mark.parametrize(
    ("option", "name"),
    [
        (["--tensor-type", "attn_v=F16"], "blk.1.attn_v.weight"),
        (["--token-embedding-type", "F16"], "token_embd.weight"),
    ],
)
def test_q8_0_takes_the_options_of_mixes(here: Here, small: Path, tmp_path: Path, option: list[str], name: str) -> None:
    out = tmp_path / "x.gguf"
    result = here("convert", small, out, "--type", "q8_0", *option)
    assert result.code == 0, result.err
    tensors = gguf_reader.read(out).tensors
    assert (tensors[name].type, tensors["blk.1.attn_q.weight"].type) == ("F16", "Q8_0")


def test_requantizing_a_gguf_file_says_what_it_costs(here: Here, small: Path, tmp_path: Path) -> None:
    once = tmp_path / "once.gguf"
    assert here("convert", small, once, "--type", "q8_0", "--quiet").code == 0
    result = here("convert", once, tmp_path / "twice.gguf", "--type", "q4_0", "--allow-requantize")
    assert "tensors are stored as Q8_0: quantizing them again adds to that loss" in result.err
    report = tmp_path / "report"
    told = here("convert", once, tmp_path / "3.gguf", "--type", "q4_0", "--allow-requantize", "--report", report)
    assert "added an RMSE of" in told.out
    copied = here("convert", once, tmp_path / "copied.gguf", "--type", "q8_0")
    assert (copied.code, copied.err) == (0, "")


def test_the_plan_tells_what_convert_will_refuse(here: Here, small: Path, tmp_path: Path) -> None:
    plan = here("plan", small, tmp_path / "absent" / "x.gguf", "--type", "f16")
    assert (plan.code, "convert will refuse this" in plan.out, "absent is not a folder" in plan.out) == (0, True, True)
    out = tmp_path / "x.gguf"
    out.write_text("dear diary")
    assert "already exists" in here("plan", small, out, "--type", "f16").out
    assert "refuse" not in here("convert", small, out, "--type", "f16", "--dry-run", "--force").out


def test_an_unknown_family_is_told_with_the_command_that_lists_those_that_are_known(
    here: Here, small: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(small, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NobodysModel"]}))
    result = here("convert", folder, tmp_path / "x.gguf")
    assert result.code == 65
    assert "'NobodysModel' is not supported" in result.err
    assert "`streamconv families` lists what is supported" in result.err
    assert "LlamaForCausalLM" in here("families").out


def test_an_adapter_is_no_model(here: Here, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    result = here("inspect", tmp_path)
    assert result.code == 66
    assert "LoRA adapter" in result.err


def test_what_is_not_there_could_have_been_many_things(here: Here, tmp_path: Path) -> None:
    error = here("inspect", tmp_path / "absent").err
    assert all(words in error for words in (".safetensors", ".pth", "recipe", "org/model"))


def test_a_report_that_cannot_be_written_is_refused_before_the_work(here: Here, small: Path, tmp_path: Path) -> None:
    result = here("convert", small, tmp_path / "x.gguf", "--type", "f16", "--report", tmp_path / "a" / "report")
    assert result.code == 73
    assert f"mkdir -p {tmp_path / 'a'}" in result.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("mode", "name"), [(os.W_OK | os.X_OK, "--report"), (os.R_OK, "--tensor-type-file")])
def test_a_small_file_that_may_not_be_used_ends_with_77(
    here: Here, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, name: str
) -> None:
    real = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == tmp_path / "file":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "access", lambda path, asked: asked != mode)
    monkeypatch.setattr(os, "open", refuse)
    result = here("convert", small, tmp_path / "x.gguf", "--type", "f16", name, tmp_path / "file")
    assert result.code == 77, result
    assert os.listdir(tmp_path) == []


def test_the_status_of_several_outputs_goes_by_their_common_name(here: Here, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x[1]-{type}.gguf"
    assert here("status", out).code == 66
    assert here("convert", small, out, "--type", "f16,q8_0", "--quiet").code == 0
    assert here("status", out).out == f"{out} is complete\n"


def test_a_recipe_is_inspected_without_quotes_for_files_it_has_not(here: Here, small: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yml"
    recipe.write_text(json.dumps({"merge_method": "passthrough", "models": [{"model": str(small)}]}))
    assert here("inspect", recipe).code == 0
    assert "''" not in here("inspect", recipe).out


def test_the_first_log_line_waits_from_the_start_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress.Lines(sys.stderr)
    lines._next = 0.0  # as if kernels had been compiled for long
    lines.start(1000, 0)
    lines.advance(10, "token_embd.weight")
    assert capsys.readouterr().err == ""


def test_rates_have_a_unit_that_fits(here: Here, small: Path, tmp_path: Path) -> None:
    out = here("convert", small, tmp_path / "x.gguf", "--type", "f16").out
    assert "iB/s of input" in out
    assert "0.00" not in out
