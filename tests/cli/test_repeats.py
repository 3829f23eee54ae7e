"""Commands that are given again, or things named twice: nothing is counted twice, nothing made twice, nothing refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import gguf_reader
import pytest

import streamconv
from streamconv.cli import make_parser


def test_types_named_twice_are_made_once(here: Any, small: Path, tmp_path: Path) -> None:
    result = here("convert", small, tmp_path / "x-{type}.gguf", "--type", "F16, f16,BF16")
    assert result.code == 0, result.err
    assert sorted(p.name for p in tmp_path.glob("x*")) == ["x-BF16.gguf", "x-F16.gguf"]
    assert result.out.count("llama, F16,") == 1
    one = here("convert", small, tmp_path / "one.gguf", "--type", "F16,f16", "--json")
    assert (one.code, one.events[-1]["files"]) == (0, [str(tmp_path / "one.gguf")])


@pytest.mark.parametrize("layers", [(1, 1), [1]])
def test_blocks_named_twice_are_left_out_once(here: Any, small: Path, tmp_path: Path, layers: Any) -> None:
    streamconv.convert(small, tmp_path / "whole.gguf", type="f16")
    flag = ",".join(map(str, layers))
    assert here("convert", tmp_path / "whole.gguf", tmp_path / "x.gguf", "--copy", "--prune-layers", flag).code == 0
    streamconv.convert(tmp_path / "whole.gguf", tmp_path / "y.gguf", type="copy", prune_layers=layers)
    for name in ("x", "y"):
        found = gguf_reader.read(tmp_path / f"{name}.gguf")
        blocks = {t.split(".")[1] for t in found.tensors if t.startswith("blk.")}
        assert (blocks, found.keys["llama.block_count"][1]) == ({"0"}, 1)


def test_an_error_tells_the_bytes_of_its_own_run(here: Any, tiny_model: Path, tmp_path: Path) -> None:
    command = ["convert", tiny_model, tmp_path / "x.gguf", "--type", "f16", "--threads", "1", "--json"]
    before = 0
    for _ in range(3):
        result = here(*command, "--stop-after", "0s", "--chunk-size", "1MiB")
        (error,) = [e for e in result.events if e["event"] == "error"]
        assert (result.code, error["exit_code"], error["resumable"]) == (75, 75, True)
        assert error["bytes"] == error["done"] - before > 0
        before = error["done"]
    done = here(*command, "--chunk-size", "1MiB").events[-1]
    assert done["bytes"] == error["total"] - before


def test_a_dry_run_of_an_update_does_not_predict_a_refusal(here: Any, small: Path, tmp_path: Path) -> None:
    streamconv.convert(small, tmp_path / "x.gguf", type="f16")
    command = ["convert", small, tmp_path / "x.gguf", "--type", "bf16", "--dry-run"]
    assert "convert will refuse this" in here(*command).out
    for flag in ("--update", "--force"):
        assert "refuse" not in here(*command, flag).out
    assert here(*command[:-1], "--update").code == 0


def test_a_quiet_plan_says_nothing_and_a_refused_one_its_error(here: Any, small: Path, tmp_path: Path) -> None:
    result = here("plan", small, tmp_path / "x.gguf", "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")
    refused = here("plan", small, tmp_path / "x.gguf", "--quiet", "--type", "Q4_X")
    assert (refused.code, refused.out) == (64, "")
    assert "Q4_X" in refused.err


def test_status_takes_a_name_as_it_is(here: Any, small: Path, tmp_path: Path) -> None:
    (tmp_path / "x1-00001-of-00002.gguf").write_bytes(b"of another model")
    assert here("status", tmp_path / "x[12].gguf").code == 66
    assert here("status", tmp_path / "x?.gguf").code == 66
    streamconv.convert(small, tmp_path / "x[12].gguf", type="f16", split_max_tensors=9)
    assert here("status", tmp_path / "x[12].gguf").code == 0
    (tmp_path / "merged-v0-00001-of-00002.gguf").write_bytes(b"of another model")
    assert here("status", tmp_path / "merged-v0.3").code == 66, "it would be a folder"


@pytest.mark.parametrize("options", [["--split-max-tensors", "5"], []], ids=["shards", "types"])
def test_a_report_reads_each_tensor_from_its_own_file(
    here: Any, small: Path, tmp_path: Path, options: list[str]
) -> None:
    types = "F16" if options else "F16,BF16"
    report, out = tmp_path / "report.jsonl", tmp_path / "x-{type}.gguf"
    assert here("convert", small, out, "--type", types, *options, "--report", report, "--quiet").code == 0
    made: dict[tuple[str, str], str] = {}
    for path in tmp_path.glob("x-*.gguf"):
        kind = path.name.split("-")[1].removesuffix(".gguf")
        found = gguf_reader.read(path).tensors
        made |= {(kind, name): hashlib.sha256(t.data).hexdigest() for name, t in found.items()}
    told: dict[tuple[str, str], str] = {}
    for record in map(json.loads, report.read_text().splitlines()):
        kind = Path(record["output"]).stem.split("-")[1] if "output" in record else "F16"
        told[kind, record["name"]] = record["sha256"]
    assert told == made
    assert len(list(tmp_path.glob("x-*.gguf"))) > 1


def test_no_output_of_several_may_be_the_input(here: Any, small: Path, tmp_path: Path) -> None:
    streamconv.convert(small, tmp_path / "m-F16.gguf", type="f16")
    before = (tmp_path / "m-F16.gguf").read_bytes()
    flags = ["--type", "BF16,F16", "--force"]
    result = here("convert", tmp_path / "m-F16.gguf", tmp_path / "m-{type}.gguf", *flags)
    assert result.code == 64
    assert "is the input itself" in result.err
    assert [p.name for p in tmp_path.glob("m*")] == ["m-F16.gguf"]
    assert (tmp_path / "m-F16.gguf").read_bytes() == before


def test_the_type_of_a_folder_is_told_wherever_its_config_speaks_of_it(here: Any, small: Path, tmp_path: Path) -> None:
    source = shutil.copytree(small, tmp_path / "model")
    (source / "config.json").chmod(0o644)
    config = json.loads((source / "config.json").read_text())
    config["text_config"] = {"torch_dtype": "bfloat16", "rope_theta": 5.0}
    config["vision_config"] = {"dtype": "bfloat16"}
    (source / "config.json").write_text(json.dumps(config))
    assert here("convert", source, tmp_path / "out", "--type", "F32", "--quiet").code == 0
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert found["text_config"] == {"torch_dtype": "float32", "rope_theta": 5.0}
    assert found["vision_config"] == {"dtype": "float32"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("15m", 900), ("2h", 7200), ("1h30m", 5400), (" 1H2M3S ", 3723)]
)
def test_a_duration_is_the_sum_of_its_parts(text: str, seconds: float) -> None:
    assert make_parser().parse_args(["convert", "a", "b", "--stop-after", text]).stop_after == seconds
