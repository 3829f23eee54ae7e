"""Several outputs from one read, folders of safetensors, and outputs cut like their input."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import gguf_reader
import numpy as np
import pytest

import streamconv

TYPES = ["Q4_K_M", "Q8_0", "BF16"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensors(path: Path) -> dict[str, tuple[str, str]]:
    return {name: (t.type, t.sha256) for name, t in gguf_reader.read(path).tensors.items()}


def test_several_types_have_the_tensors_of_each_alone(here: Any, tiny_model: Path, tmp_path: Path) -> None:
    result = here("convert", tiny_model, tmp_path / "m-{type}.gguf", "--type", ",".join(TYPES))
    assert result.code == 0, result.err
    assert sorted(p.name for p in tmp_path.glob("m*")) == sorted(f"m-{t}.gguf" for t in TYPES)
    for t in TYPES:
        assert f"m-{t}.gguf: gemma3, {t}," in result.out
        assert here("convert", tiny_model, tmp_path / "alone.gguf", "--type", t, "--force").code == 0
        assert tensors(tmp_path / f"m-{t}.gguf") == tensors(tmp_path / "alone.gguf")
    assert "already complete" in here(
        "convert", tiny_model, tmp_path / "m-{type}.gguf", "--type", ",".join(TYPES)
    ).out  # fmt: skip


def test_several_types_stop_and_go_on_together(here: Any, tiny_model: Path, tmp_path: Path) -> None:
    command = ["convert", tiny_model, tmp_path / "m-{type}.gguf", "--type", "Q8_0,F16,Q4_0", "--threads", "1"]
    done = [0]
    for _ in range(4):
        result = here(*command, "--stop-after", "0s", "--json")
        assert result.code == 75
        assert [p.name for p in tmp_path.iterdir()] == ["m-{type}.gguf.streamconv"]
        done.append(result.events[-1]["done"])
    assert sorted(set(done)) == done, "every run brings it forward"
    last = here(*command, "--json").events[-1]
    assert last["bytes"] == last["total"] - done[-1], "nothing is made again"
    (tmp_path / "whole").mkdir()
    assert here(*command[:2], tmp_path / "whole" / "m-{type}.gguf", *command[3:]).code == 0
    for path in sorted((tmp_path / "whole").glob("m*")):
        assert sha256(path) == sha256(tmp_path / path.name)


def test_several_types_need_several_names(here: Any, small: Path, tmp_path: Path) -> None:
    result = here("convert", small, tmp_path / "x.gguf", "--type", "Q8_0,F16")
    assert result.code == 64
    assert "{type}" in result.err


def test_the_plan_lists_every_output(here: Any, small: Path, tmp_path: Path) -> None:
    facts = json.loads(here("plan", small, tmp_path / "x-{type}.gguf", "--type", "q8_0,f16", "--json").out)
    assert [(o["type"], o["path"]) for o in facts["outputs"]] == [
        ("Q8_0", str(tmp_path / "x-Q8_0.gguf")),
        ("F16", str(tmp_path / "x-F16.gguf")),
    ]
    assert len({t["output"] for t in facts["tensors"]}) == 2


def test_a_folder_holds_the_same_weights_and_every_side_file(here: Any, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    assert here("convert", tiny_model, out).code == 0
    before, after = streamconv.open(tiny_model), streamconv.open(out)
    assert dict.fromkeys(before) == dict.fromkeys(after)
    for name, rows in before.items():
        n = int(np.prod(rows.shape[:-1]))
        assert (rows.shape, rows.dtype) == (after[name].shape, after[name].dtype)
        assert np.array_equal(rows.read(0, n), after[name].read(0, n))
    side = {p.name for p in tiny_model.iterdir() if p.suffix != ".safetensors" and "index" not in p.name}
    assert all((out / name).read_bytes() == (tiny_model / name).read_bytes() for name in side)
    assert "already complete" in here("convert", tiny_model, out).out


def test_a_folder_is_cut_into_shards_and_written_in_the_precision_asked_for(
    here: Any, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "f32"
    assert here("convert", tiny_model, out, "--type", "F32", "--max-shard-size", "4MB").code == 0
    index = json.loads((out / "model.safetensors.index.json").read_text())
    shards = sorted(out.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert set(index["weight_map"].values()) == {p.name for p in shards}
    found = streamconv.open(out)
    assert {rows.dtype for rows in found.values()} == {"F32"}
    assert index["metadata"]["total_size"] == sum(4 * int(np.prod(r.shape)) for r in found.values())
    config = json.loads((out / "config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype")) == "float32"


@pytest.mark.parametrize("named", [{"x": 1}, 5, [], [[]], ""])
def test_a_folder_needs_no_word_of_its_configuration(here: Any, small: Path, tmp_path: Path, named: object) -> None:
    odd = shutil.copytree(small, tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text()) | {"architectures": named}
    (odd / "config.json").write_text(json.dumps(config))
    assert here("convert", odd, tmp_path / "copy").code == 0
    assert json.loads((tmp_path / "copy" / "config.json").read_text()) == config


@pytest.mark.parametrize(
    ("options", "word"),
    [(["--type", "Q4_K_M"], "cannot hold Q4_K_M"), (["--pure"], "--pure"), (["--vocab-only"], "--vocab-only")],
)
def test_a_folder_refuses_what_only_gguf_has(
    here: Any, small: Path, tmp_path: Path, options: list[str], word: str
) -> None:
    result = here("convert", small, tmp_path / "out", *options)
    assert (result.code, list(tmp_path.iterdir())) == (64, [])
    assert word in result.err


def test_a_gguf_file_cannot_become_a_folder(here: Any, small: Path, tmp_path: Path) -> None:
    assert here("convert", small, tmp_path / "x.gguf", "--quiet").code == 0
    assert here("convert", tmp_path / "x.gguf", tmp_path / "out").code == 64


def test_keep_split_cuts_where_the_input_is_cut(here: Any, small: Path, tmp_path: Path) -> None:
    assert here("convert", small, tmp_path / "a.gguf", "--type", "F32", "--split-max-tensors", "5").code == 0
    first = sorted(tmp_path.glob("a-*.gguf"))
    assert len(first) > 2
    assert here("convert", first[0], tmp_path / "b.gguf", "--type", "Q8_0", "--keep-split").code == 0
    second = sorted(tmp_path.glob("b-*.gguf"))
    assert [sorted(tensors(p)) for p in first] == [sorted(tensors(p)) for p in second]
    assert here("convert", small, tmp_path / "c.gguf", "--keep-split").code == 64


def test_rules_for_types_can_come_from_a_file(here: Any, small: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.txt"
    rules.write_text("attn_v=Q8_0\nffn_down=F16\n")
    flags = ["--tensor-type", "attn_v=Q8_0", "--tensor-type", "ffn_down=F16"]
    assert here("convert", small, tmp_path / "a.gguf", "--type", "Q5_0", "--tensor-type-file", rules).code == 0
    assert here("convert", small, tmp_path / "b.gguf", "--type", "Q5_0", *flags).code == 0
    assert sha256(tmp_path / "a.gguf") == sha256(tmp_path / "b.gguf")
    assert here("convert", small, tmp_path / "c.gguf", "--tensor-type-file", tmp_path / "none").code == 66


def test_empty_names_are_refused(here: Any, small: Path, tmp_path: Path) -> None:
    assert here("plan", "", tmp_path / "x.gguf").code == 64
    assert here("plan", small, "").code == 64
    assert here("status", "").code == 64


@pytest.mark.parametrize("name", [".", "./"])
def test_a_folder_without_a_name_is_no_output(
    here: Any, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["convert", small, name], ["convert", small, name, "--force"], ["status", name]):
        result = here(*command)
        assert result.code == 64, result.err
        assert f"{name} is not a valid output name" in result.err
    assert here("status", "/").code == 64
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_job_of_a_folder_is_repaired(here: Any, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["convert", tiny_model, out, "--type", "F16", "--threads", "1"]
    assert here(*command, "--stop-after", "0s").code == 75
    staged = tmp_path / "out.streamconv" / "out"
    assert (staged / "model.safetensors").read_bytes()[:4] == b"SCVP"
    shutil.rmtree(staged)
    assert here(*command).code == 0
    assert here("convert", tiny_model, tmp_path / "whole", "--type", "F16").code == 0
    for path in (tmp_path / "whole").glob("[!.]*"):
        assert sha256(path) == sha256(out / path.name)
