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
from streamconv import api
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
    assert set(api.Settings.__annotations__) == named


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
