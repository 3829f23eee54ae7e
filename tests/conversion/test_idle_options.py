"""No option is silent: what the target or the source makes nothing of is refused or told, for every option that there is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import streamconv
from streamconv.cli import main, make_parser
from streamconv.conversion import TARGETS, Options
from streamconv.errors import UsageError
from streamconv.flags import ALL, FLAGS, JOBS, Flag, read_flags

FOLDER, GGUF = TARGETS["folder"], TARGETS["gguf"]
#: fields of Options without an option of the command line
FLAGLESS = {"measure", "own"}
SPECIAL = {flag.field: flag for flag in FLAGS if flag.special}
_WORDS = {"size": "5G", "positive": "3", "layers": "1", "path": "FILE"}


def words(flag: Flag) -> list[str]:
    """``flag`` as somebody would write it."""
    if flag.choices:
        return [flag.name, flag.choices[0]]
    return [flag.name, *([_WORDS.get(flag.kind, "word=Q8_0")] if flag.metavar else [])]


@pytest.fixture
def small(data: Path) -> Path:
    return data / "checkpoints" / "mistral-spm" / "hf"


@pytest.fixture
def gguf(small: Path, tmp_path: Path) -> Path:
    streamconv.convert(small, tmp_path / "in.gguf", type="f16", threads=1)
    return tmp_path / "in.gguf"


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Function that runs a command, which must end with 64, print nothing and leave nothing; what it says."""

    def call(*arguments: object) -> str:
        before = sorted(tmp_path.iterdir())
        assert main([str(a) for a in arguments]) == 64
        out, err = capfd.readouterr()
        assert (out, sorted(tmp_path.iterdir())) == ("", before)
        return err

    return call


def test_every_field_has_an_option_and_every_option_of_a_conversion_a_field() -> None:
    fields = {field.name for field in dataclasses.fields(Options)}
    assert {flag.field for flag in FLAGS if flag.field} == fields - FLAGLESS


def test_every_field_is_described_by_its_option() -> None:
    for field in dataclasses.fields(Options):
        assert f"    {field.name} : " in str(Options.__doc__)


def test_every_special_option_is_taken_by_some_target_and_no_target_takes_another() -> None:
    taken = {name for target in TARGETS.ours().values() for name in target.options}
    assert taken == set(SPECIAL)


def test_a_command_takes_exactly_the_options_that_the_table_gives_it() -> None:
    (chosen,) = (a for a in make_parser()._actions if a.dest == "command")
    assert chosen.choices is not None
    assert set(chosen.choices) == set(ALL)
    for name, parser in dict(chosen.choices).items():
        own = {n.replace("--no-distribute", "--distribute") for n in parser._option_string_actions} - {"-h", "--help"}
        assert own == {n for flag in FLAGS if name in flag.commands for n in flag.names.split()}


@pytest.mark.parametrize("field", sorted({*SPECIAL} - {*FOLDER.options}))
def test_a_folder_refuses_every_option_that_only_others_take(
    refused: Any, small: Path, tmp_path: Path, field: str
) -> None:
    rules = tmp_path / "FILE"
    rules.write_text("")  # no rule at all is as silent as a rule without effect
    flag = SPECIAL[field]
    said = refused("convert", small, tmp_path / "out", *(str(rules) if w == "FILE" else w for w in words(flag)))
    assert f"{flag.name} has no effect on a safetensors folder, only on a GGUF file" in said
    assert f"Name the output {tmp_path / 'out.gguf'}" in said


@pytest.mark.parametrize("command", JOBS[::2])
def test_a_gguf_file_refuses_the_size_of_other_shards_even_where_it_is_the_usual_one(
    refused: Any, small: Path, tmp_path: Path, command: str
) -> None:
    for size in ("5G", "64KiB"):
        said = refused(command, small, tmp_path / "x.gguf", "--max-shard-size", size)
        assert "--max-shard-size has no effect on a GGUF file, only on a safetensors folder" in said
        assert f"a folder such as {tmp_path / 'x'}" in said


def test_functions_refuse_what_commands_refuse(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--max-shard-size has no effect"):
        streamconv.plan(small, tmp_path / "x.gguf", max_shard_bytes=1 << 20)
    with pytest.raises(UsageError, match="--pure has no effect"):
        streamconv.convert(small, tmp_path / "x", pure=True)
    with pytest.raises(UsageError, match="there is no option 'threds'") as caught:
        streamconv.convert(small, tmp_path / "x.gguf", threds=1)
    assert caught.value.hint == "Did you mean threads?"


def test_an_adapter_refuses_as_a_folder_does(small: Path, refused: Any, tmp_path: Path) -> None:
    assert "cannot hold Q8_0" in refused("extract-lora", small, small, tmp_path / "out", "--type", "q8_0")
    assert "2 types need as many output names" in refused(
        "extract-lora", small, small, tmp_path / "out", "--type", "f16,bf16"
    )


@pytest.mark.parametrize("flag", ["--include-weights", "--exclude-weights"])
def test_a_choice_among_importance_weights_needs_them(refused: Any, small: Path, tmp_path: Path, flag: str) -> None:
    assert f"{flag} has no effect without --imatrix" in refused("plan", small, tmp_path / "x.gguf", flag, "ffn")


@pytest.mark.parametrize("field", sorted(f for f in SPECIAL if SPECIAL[f].source == "gguf"))
def test_what_works_on_gguf_files_is_refused_for_others(refused: Any, small: Path, tmp_path: Path, field: str) -> None:
    said = refused("plan", small, tmp_path / "x.gguf", *words(SPECIAL[field]))
    assert f"{SPECIAL[field].name}: works on GGUF files only" in said


@pytest.mark.parametrize("field", sorted(f for f in SPECIAL if SPECIAL[f].source == "checkpoint"))
def test_what_is_decided_when_a_gguf_file_is_made_is_refused_for_one(
    refused: Any, gguf: Path, tmp_path: Path, field: str
) -> None:
    said = refused("convert", gguf, tmp_path / "x.gguf", "--type", "q8_0", *words(SPECIAL[field]))
    assert f"{SPECIAL[field].name}: no effect on {gguf}, which is already GGUF" in said


def test_two_ways_to_cut_an_output_exclude_each_other(refused: Any, gguf: Path, tmp_path: Path) -> None:
    assert "--keep-split" in refused(
        "plan", gguf, tmp_path / "x.gguf", "--copy", "--keep-split", "--split-max-tensors", "3"
    )


def notes(source: Path, output: Path, options: Sequence[str], capfd: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["plan", str(source), str(output), "--json", *options]) == 0
    return [text for text in json.loads(capfd.readouterr().out)["warnings"] if "has no effect" in text]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--seed", "3"], "--seed has no effect: SRC is not a merge recipe"),
        (["--lenient"], "--lenient has no effect: SRC is not a merge recipe"),
        (["--allow-crimes"], "--allow-crimes has no effect: SRC is not a merge recipe"),
        (["--evict"], "--evict has no effect: SRC does not come from the hub"),
        (["--refresh"], "--refresh has no effect: SRC does not come from the hub"),
    ],
)
@pytest.mark.parametrize("output", ["x.gguf", "x"])
def test_what_a_source_makes_no_use_of_is_told(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], why: str, output: str
) -> None:
    assert notes(small, tmp_path / output, options, capfd) == [why.replace("SRC", str(small))]
    assert notes(small, tmp_path / output, ["--offline"], capfd) == []


def test_a_type_beside_copy_is_told(gguf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = notes(gguf, tmp_path / "x.gguf", ["--copy", "--type", "Q4_K_M"], capfd)
    assert told == ["--type Q4_K_M has no effect, as --copy keeps the type of every tensor"]
    assert notes(gguf, tmp_path / "x.gguf", ["--copy"], capfd) == []


def test_the_report_of_the_function_is_written(small: Path, tmp_path: Path) -> None:
    streamconv.convert(small, tmp_path / "x.gguf", type="q8_0", threads=1, report=tmp_path / "r.jsonl")
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert {"F32", "Q8_0"} <= {record["type"] for record in records}
    assert all(0 < record["rmse"] < 0.1 for record in records if record["type"] == "Q8_0")


def test_options_of_a_target_are_read_from_its_file_as_they_are() -> None:
    text = 'import numpy\nX = Flag("--x-size", "a size", "SIZE", "x_size", kind="size", default=7)\nY = f(Flag("--y", "b"))\n'
    assert read_flags(text) == [Flag("--x-size", "a size", "SIZE", "x_size", kind="size", default=7), Flag("--y", "b")]
    for target in TARGETS.ours().values():
        assert (
            tuple(read_flags(Path(str(__import__(target.choose.__module__, fromlist=["x"]).__file__)).read_text()))
            == target.flags
        )


def test_an_option_that_decides_no_type_is_told(gguf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def told(*options: str) -> list[str]:
        return notes(gguf, tmp_path / "x.gguf", options, capfd)

    deciders = {
        "--pure": [],
        "--leave-output-tensor": [],
        "--output-tensor-type": ["q8_0"],
        "--token-embedding-type": ["f16"],
    }
    for name, value in deciders.items():
        assert told("--type", "q4_0", name, *value) == []
        assert told("--copy", name, *value) == [f"{name} matches no tensor whose type is open, so it has no effect"]
    assert told("--type", "f32", "--pure") == ["--pure matches no tensor whose type is open, so it has no effect"]
    assert told("--type", "q4_0", "--tensor-type", "attn_q=q8_0") == []
    assert told("--type", "q4_0", "--tensor-type", "Attn_Q=q8_0", "--tensor-type", "attn_q=f16") == [
        "--tensor-type attn_q=f16: other options decide the types of the tensors that it matches, so it has no effect"
    ]
    assert told("--copy", "--tensor-type", "attn_x=q8_0") == [
        "--tensor-type attn_x=q8_0: no tensor's name matches, so it has no effect"
    ]
