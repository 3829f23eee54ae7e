"""The Python functions: every option by name, with its type, its default and what it does."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import streamconv
from streamconv import cli, settings
from streamconv.conversion import Options
from streamconv.errors import UsageError

ROOT = str(Path(streamconv.__file__).parents[1])
PROGRAM = """\
from pathlib import Path
import streamconv
made: list[Path] = streamconv.convert("m", "x.gguf", type="Q8_0", ram="1GiB", threads=2, imatrix=["a.dat"], stop_after_s="2h")
facts = streamconv.plan(Path("m"), Path("x.gguf"), force=True)
print(made, facts["architecture"], streamconv.open("m")["a"].read(0, 1).shape)
"""


@pytest.mark.parametrize("function", [streamconv.convert, streamconv.plan])
def test_every_option_has_its_name_type_default_and_meaning_in_help(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    for option in fields(Options):
        if option.name not in ("type", "ram_bytes", "own"):
            assert parameters[option.name].default == option.default
            assert isinstance(parameters[option.name].annotation, str)
            assert f"    {option.name} : " in function.__doc__
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def test_type_checkers_know_the_options_that_there_are() -> None:
    named = {f.name for f in fields(Options)} - {"type", "ram_bytes", "own"}
    assert set(settings.Settings.__annotations__) == named


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("", "", "Success"),
        ("threads=2", "threds=2", "threds"),
        ("threads=2", "threads=[]", "threads"),
        ("force=True", "verify='some'", "verify"),
    ],
)
def test_a_program_is_checked_strictly(tmp_path: Path, old: str, new: str, says: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.replace(old, new) if old else PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "program.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"MYPYPATH": ROOT},
    )  # fmt: skip
    assert says in done.stdout, done.stdout
    assert (done.returncode == 0) == (not old)


def test_options_are_taken_in_the_forms_that_people_give_them() -> None:
    told = Options.of({
        "imatrix": "a.dat", "report": "r.jsonl", "stop_after_s": "1h30m", "split_max_bytes": "4GiB", "prune_layers": [1, 2],
        "tensor_types": "attn=Q8_0", "ram_bytes": "1GiB",
    })  # fmt: skip
    assert told == Options(
        imatrix=(Path("a.dat"),), report=Path("r.jsonl"), stop_after_s=5400.0, split_max_bytes=4 << 30, prune_layers=(1, 2),
        tensor_types=("attn=Q8_0",), ram_bytes=1 << 30,
    )  # fmt: skip
    for wrong in ({"stop_after_s": "soon"}, {"split_max_bytes": "lots"}):
        with pytest.raises(UsageError):
            Options.of(wrong)


def test_a_model_is_packed_and_unpacked(data: Path, tmp_path: Path) -> None:
    source = data / "checkpoints" / "mistral-spm" / "hf"
    packed = streamconv.pack(source, tmp_path / "p", threads=1)
    assert packed[0].name == "model.safetensors.scpack"
    assert packed == streamconv.pack(source, tmp_path / "p")
    plain = streamconv.unpack(tmp_path / "p", tmp_path / "u", ram="64MiB")
    assert {p.name: p.read_bytes() for p in plain} == {p.name: p.read_bytes() for p in source.iterdir()}


def test_tools_do_what_the_commands_do(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    streamconv.convert(data / "checkpoints" / "mistral-spm" / "hf", "m.gguf", type="F16")
    words = ("--general-name", "N", "--set", "x.y:u32[]=[1, 2]", "--set", "x.z:bool=true", "--remove-key", "general.file_type",
             "--rename-key", "general.type=x.type", "--special-token", "bos", "</s>", "--special-token-by-id", "eos", "1",
             "--chat-template", '[{"name": "default", "template": "a"}, {"name": "b", "template": "c"}]')  # fmt: skip
    assert cli.main(["edit", "m.gguf", "one.gguf", *words, "--quiet", "--force"]) == 0
    changes: dict[str, Any] = {
        "name": "N", "set": {"x.y:u32[]": [1, 2], "x.z:bool": True}, "remove": ["general.file_type"],
        "rename": {"general.type": "x.type"}, "special_tokens": {"bos": "</s>", "eos": 1},
        "chat_template": {"default": "a", "b": "c"},
    }  # fmt: skip
    assert streamconv.edit("m.gguf", "two.gguf", **changes, force=True) == [Path("two.gguf")]
    assert Path("two.gguf").read_bytes() == Path("one.gguf").read_bytes() != Path("m.gguf").read_bytes()
    shards = streamconv.split("two.gguf", "s", split_max_tensors=9)
    assert [p.name for p in shards] == [f"s-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert streamconv.join(shards[0], "three.gguf") == Path("three.gguf")
    digests = streamconv.hash("three.gguf", algorithms="sha1")
    assert [(d.digest, d.name.partition(":")[2]) for d in digests] == [
        (d.digest, d.name.partition(":")[2]) for d in streamconv.hash("m.gguf", algorithms=["sha1"])
    ]
    Path("manifest").write_text("\n".join(map(str, digests)))
    streamconv.edit("three.gguf", in_place=True, name="M")
    assert {d.verdict for d in streamconv.hash("three.gguf", manifest="manifest")} == {"Ok"}
    assert streamconv.edit("three.gguf", in_place=True, name="M") == [Path("three.gguf")]


def test_tools_refuse_what_they_do_not_know(tmp_path: Path) -> None:
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (streamconv.pack, {"type": "q8_0"}, "no option 'type'"),
        (streamconv.join, {"split_max_tensors": 3}, "no option 'split_max_tensors'"),
        (streamconv.edit, {"in_place": True}, "either out or in_place"),
    ]
    for function, wrong, says in refused:
        with pytest.raises(UsageError, match=says):
            function(tmp_path / "x.gguf", tmp_path / "y.gguf", **wrong)
    with pytest.raises(UsageError, match="either out or in_place"):
        streamconv.edit(tmp_path / "x.gguf", name="N")
    with pytest.raises(UsageError, match="'md5' is no digest"):
        streamconv.hash(tmp_path / "x.gguf", algorithms=["md5"])
