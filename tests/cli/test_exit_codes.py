"""Every way to fail ends with its exit code and a message that says what, where, and what to do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_reader
import numpy as np
import pytest
from small_models import Tensors, changed

from streamconv import cli
from streamconv.conversion import execution

Here = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convert"], "the following arguments are required"),
        (["convert", "SRC", "OUT", "--nonsense"], "--nonsense"),
        (["frobnicate"], "invalid choice"),
        (["convert", "SRC", "OUT", "--type", "Q4_K_XXL"], "Q4_K_XXL"),
        (["convert", "SRC", "OUT", "--tensor-type", "attn_v=Q9"], "Q9"),
        (["convert", "SRC", "OUT", "--tensor-type", "(=Q8_0"], "("),
        (["convert", "SRC", "OUT", "--ram", "lots"], "lots"),
        (["convert", "SRC", "OUT", "--ram", "-1"], "-1"),
        (["convert", "SRC", "OUT", "--threads", "0"], "'0' is not a positive whole number"),
        (["convert", "SRC", "OUT", "--stop-after", "soon"], "'soon' is not a duration"),
        (["convert", "SRC", "OUT", "--io", "tape"], "tape"),
        (["convert", "SRC", "OUT", "--copy"], "--copy"),
        (["convert", "SRC", "x.bin"], "not a known output format"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_makes_no_sense_ends_with_64(
    here: Here, small: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    names = {"SRC": str(small), "OUT": str(tmp_path / "x.gguf")}
    result = here(*(names.get(a, a) for a in arguments))
    assert result.code == 64, result
    assert words in result.err
    assert result.out == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["convert", "plan"])
def test_a_missing_source_ends_with_66(here: Here, tmp_path: Path, command: str) -> None:
    result = here(command, tmp_path / "no-such-model", tmp_path / "x.gguf")
    assert result.code == 66
    assert "no-such-model" in result.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["inspect", "check", "status"])
def test_looking_at_what_is_not_there_ends_with_66(here: Here, tmp_path: Path, command: str) -> None:
    assert here(command, tmp_path / "absent.gguf").code == 66


def test_a_truncated_shard_ends_with_65_and_names_it(here: Here, small: Path, tmp_path: Path) -> None:
    source = changed(small, tmp_path / "hf")
    shard = source / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])
    result = here("convert", source, tmp_path / "x.gguf", "--type", "q8_0")
    assert result.code == 65
    assert f"{shard} is truncated" in result.err
    assert "1000 are missing" in result.err
    assert not (tmp_path / "x.gguf").exists()


@pytest.fixture
def with_nan(small: Path, tmp_path: Path) -> Path:
    """A checkpoint with NaN at row 5, column 7 of one matrix."""

    def spoil(tensors: Tensors) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][1][5, 7] = np.uint16(0x7FC0)

    return changed(small, tmp_path / "hf", spoil)


@pytest.mark.parametrize("type_name", ["q8_0", "f16", "bf16", "f32", "q4_0"])
def test_nan_ends_with_65_and_tells_tensor_row_and_column(
    here: Here, with_nan: Path, tmp_path: Path, type_name: str
) -> None:
    result = here("convert", with_nan, tmp_path / "x.gguf", "--type", type_name)
    assert result.code == 65
    assert "blk.1.ffn_up.weight" in result.err
    assert "row 5" in result.err
    assert "column 7" in result.err
    assert "--allow-nonfinite" in result.err
    assert not (tmp_path / "x.gguf").exists()


def test_nan_is_converted_when_asked_for(here: Here, with_nan: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    result = here("convert", with_nan, out, "--type", "f32", "--allow-nonfinite")
    assert result.code == 0
    assert "1 NaN or Inf values in blk.1.ffn_up.weight" in result.out
    values = np.frombuffer(gguf_reader.read(out).tensors["blk.1.ffn_up.weight"].data, "<f4").reshape(-1, 64)
    assert np.argwhere(np.isnan(values)).tolist() == [[5, 7]]
    checked = here("check", out)
    assert "blk.1.ffn_up.weight" in checked.out
    assert "NaN" in here("check", out).out
    assert "NaN" not in here("check", out, "--no-scan").out


def test_a_folder_in_the_output_s_place_ends_with_73(here: Here, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    out.mkdir()
    result = here("convert", small, out, "--type", "f16")
    assert result.code == 73
    assert f"{out} is a folder" in result.err
    assert os.listdir(tmp_path) == ["x.gguf"]


def test_a_foreign_file_in_the_output_s_place_ends_with_73_and_is_kept(here: Here, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    out.write_text("dear diary")
    result = here("convert", small, out, "--type", "f16")
    assert result.code == 73
    assert "--force" in result.err
    assert out.read_text() == "dear diary"
    assert here("convert", small, out, "--type", "f16", "--force", "--quiet").code == 0
    assert out.read_bytes()[:4] == b"GGUF"


def test_an_output_of_another_type_is_foreign(here: Here, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    assert here("convert", small, out, "--type", "f16", "--quiet").code == 0
    assert here("convert", small, out, "--type", "q8_0", "--quiet").code == 73
    assert here("convert", small, out, "--type", "q8_0", "--quiet", "--force").code == 0
    assert gguf_reader.read(out).keys["general.file_type"][1] == 7


def test_a_missing_output_folder_ends_with_73_and_tells_how_to_make_it(here: Here, small: Path, tmp_path: Path) -> None:
    result = here("convert", small, tmp_path / "a" / "x.gguf", "--type", "f16")
    assert result.code == 73
    assert f"mkdir -p {tmp_path / 'a'}" in result.err


def test_stopping_ends_with_75_and_the_same_command_finishes(here: Here, tiny_model: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "x.gguf", tmp_path / "whole.gguf"
    command = ["convert", tiny_model, out, "--type", "q8_0"]
    stopped = here(*command, "--stop-after", "0s", "--json")
    assert stopped.code == 75
    assert stopped.events[-1]["status"] == "Stopped"
    assert stopped.events[-1]["resumable"]
    assert not out.exists()
    assert here(*command).code == 0
    assert here("convert", tiny_model, whole, "--type", "q8_0", "--quiet").code == 0
    assert out.read_bytes() == whole.read_bytes()


def test_resuming_says_how_much_it_reads_back_where_that_takes_long(
    here: Here, unfinished: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = ["convert", tiny_model, unfinished, "--type", "q8_0"]
    monkeypatch.setattr(execution, "_LONG_BYTES", 1)
    result = here(*again)
    assert (result.code, result.err.count("note: reading back ")) == (0, 1)


def test_a_stop_that_was_asked_for_is_no_error_that_quiet_lets_through(
    here: Here, tiny_model: Path, tmp_path: Path
) -> None:
    command = ["convert", tiny_model, tmp_path / "x.gguf", "--type", "q8_0", "--stop-after", "0s"]
    quiet = here(*command, "--quiet")
    assert (quiet.code, quiet.out + quiet.err) == (75, ""), "cron mails whatever is printed"
    assert "stopped as requested" in here(*command).err


def test_another_type_over_an_unfinished_job_ends_with_78(here: Here, unfinished: Path, tiny_model: Path) -> None:
    result = here("convert", tiny_model, unfinished, "--type", "q4_0")
    assert result.code == 78
    assert "planned differently" in result.err
    assert "--force" in result.err
    assert here("status", unfinished).code == 0, "the unfinished job is still there"
    assert here("convert", tiny_model, unfinished, "--type", "q4_0", "--force", "--quiet").code == 0
    assert gguf_reader.read(unfinished).keys["general.file_type"][1] == 2


def test_an_input_changed_under_an_unfinished_job_ends_with_65(
    here: Here, unfinished: Path, tiny_model: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "model"
    shutil.copytree(tiny_model, moved)
    out = tmp_path / "y.gguf"
    command = ["convert", moved, out, "--type", "q8_0"]
    assert here(*command, "--stop-after", "0s").code == 75
    weights = moved / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-(len(raw) // 3) :] = bytes(len(raw) // 3)
    weights.write_bytes(raw)
    result = here(*command)
    assert result.code == 65
    assert "model.safetensors" in result.err
    assert here(*command, "--force", "--quiet").code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_may_not_be_written_ends_with_77(here: Here, small: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert here("convert", small, locked / "x.gguf", "--type", "f16").code == 77


def test_converting_a_file_onto_itself_ends_with_64(here: Here, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    assert here("convert", small, out, "--type", "f16", "--quiet").code == 0
    before = out.read_bytes()
    assert here("convert", out, out, "--type", "q8_0", "--force").code == 64
    assert out.read_bytes() == before


def test_a_traceback_that_was_asked_for_changes_no_exit_code(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    convert = ["convert", str(tiny_model), str(tmp_path / "x.gguf"), "--type", "q8_0", "--debug"]
    assert cli.main([*convert, "--stop-after", "0s"]) == 75
    assert cli.main(["convert", str(tmp_path / "absent"), *convert[2:]]) == 66
    err = capfd.readouterr().err
    assert err.count("Traceback") == 2
    assert f"streamconv: {tmp_path}/absent does not exist" in err


def test_status_of_a_job_that_cannot_be_gone_on_with_says_why(here: Here, unfinished: Path, tmp_path: Path) -> None:
    lock = unfinished.with_name(f"{unfinished.name}.streamconv") / "lock"
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    for command in (["status", unfinished], ["convert", tmp_path, unfinished, "--type", "q8_0"]):
        result = here(*command)
        assert result.code in (66, 77)
    assert here("status", unfinished).code == 77
