"""Compressed inputs: the output of the plain files, byte for byte, in bounded memory, whatever the source is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from combined import combined
from peak_memory import peak_memory
from quantized_files import llama
from small_models import gemma2, read_safetensors, write_safetensors
from zstd_files import KINDS, pack, seekable

import streamconv
from streamconv.errors import BadInput, InputChanged, Stopped

#: what is converted, how, and the name of the output
Case = tuple[Path, dict[str, Any], str]


def folder(root: Path) -> Case:
    return gemma2(root / "m"), {"type": "Q8_0"}, "x.gguf"


def single(root: Path) -> Case:
    return gemma2(root / "m") / "model.safetensors", {"type": "Q4_0"}, "x.gguf"


def shards(root: Path) -> Case:
    streamconv.convert(gemma2(root / "one"), root / "m", type="F32", max_shard_bytes=60_000)
    (root / "m" / ".streamconv").unlink(missing_ok=True)
    return root / "m", {"type": "BF16"}, "x"


def bitsandbytes(root: Path) -> Case:
    return llama(root / "m")[0], {"type": "BF16"}, "x"


def gguf(root: Path) -> Case:
    streamconv.convert(gemma2(root / "one"), root / "m.gguf", type="Q8_0")
    return root / "m.gguf", {"type": "Q4_0", "allow_requantize": True}, "x.gguf"


def split_gguf(root: Path) -> Case:
    streamconv.convert(gemma2(root / "one"), root / "m.gguf", type="Q8_0", split_max_tensors=7)
    first = next(root.glob("m-00001-of-*.gguf"))
    return first, {"type": "Q4_0", "allow_requantize": True, "keep_split": True}, "x.gguf"


def merge(root: Path) -> Case:
    for seed, name in enumerate("abc"):
        gemma2(root / name, seed)
    (root / "recipe.yml").write_text(
        f"merge_method: dare_ties\nbase_model: {root}/a\ndtype: bfloat16\nmodels:\n"
        f"- {{model: {root}/b, parameters: {{weight: 0.5, density: 0.4}}}}\n"
        f"- {{model: {root}/c, parameters: {{weight: 0.7, density: 0.6}}}}\n"
    )
    return root / "recipe.yml", {"seed": 3}, "x"


CASES: dict[str, Callable[[Path], Case]] = {
    make.__name__: make for make in (folder, single, shards, bitsandbytes, gguf, split_gguf, merge)
}


def weights(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.suffix in (".safetensors", ".gguf") and "one" not in p.parts)


def contents(path: Path) -> dict[str, bytes]:
    """All files of an output, records of where it came from aside."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name[0] != "."}


def packed_name(source: Path) -> Path:
    return source if source.exists() else source.with_name(f"{source.name}.zst")


@pytest.mark.parametrize(("io", "kind", "case"), combined(["mmap", "pread"], KINDS, CASES))
def test_the_output_is_that_of_the_plain_files(tmp_path: Path, case: str, kind: str, io: str) -> None:
    source, options, name = CASES[case](tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    streamconv.convert(source, out / name, **options)
    expected = contents(out)
    assert expected
    shutil.rmtree(out)
    out.mkdir()
    for path in weights(tmp_path):
        pack(path, kind, 7000)
    streamconv.convert(packed_name(source), out / name, **options, io=io, threads=3, ram="8MiB")
    assert contents(out) == expected
    assert not any(b".zst" in data for data in expected.values())


def test_a_job_goes_on_when_its_input_was_compressed_meanwhile(tmp_path: Path) -> None:
    source = gemma2(tmp_path / "m")
    streamconv.convert(source, tmp_path / "x.gguf", type="Q8_0", chunk_bytes=4096)
    outcome = None
    for step in range(200):
        try:
            streamconv.convert(
                source, tmp_path / "y.gguf", type="Q8_0", stop_after_s=0 if step < 20 else None, threads=1, chunk_bytes=4096
            )  # fmt: skip
        except Stopped:
            outcome = step
            for path in [*source.glob("*.safetensors")]:
                pack(path)
        else:
            break
    assert outcome is not None
    assert (tmp_path / "y.gguf").read_bytes() == (tmp_path / "x.gguf").read_bytes()


def test_an_output_is_known_to_be_complete_and_other_contents_are_noticed(tmp_path: Path) -> None:
    source, out = gemma2(tmp_path / "m"), tmp_path / "x.gguf"
    tensors = read_safetensors(source / "model.safetensors")
    pack(source / "model.safetensors")
    streamconv.convert(source, out, type="Q8_0")
    made = out.stat().st_ino
    streamconv.convert(source, out, type="Q8_0")
    assert out.stat().st_ino == made
    tensors["model.norm.weight"][1][:] = 3
    pack(write_safetensors(source / "model.safetensors", tensors))
    with pytest.raises(streamconv.StreamconvError, match=r"x\.gguf"):
        streamconv.convert(source, out, type="Q8_0")
    streamconv.convert(source, out, type="Q8_0", update=True)
    write_safetensors(source / "model.safetensors", tensors)
    streamconv.convert(source, tmp_path / "y.gguf", type="Q8_0")
    assert out.read_bytes() == (tmp_path / "y.gguf").read_bytes()


def test_a_damaged_frame_ends_the_job_with_its_name_and_the_job_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    source = gemma2(tmp_path / "m")
    packed = pack(source / "model.safetensors")
    good = packed.read_bytes()
    streamconv.convert(source, tmp_path / "x.gguf", type="Q8_0")
    times = packed.stat()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 0x40
    packed.write_bytes(bad)
    with pytest.raises(BadInput, match=r"model\.safetensors\.zst: the frame at byte \d+ is damaged"):
        streamconv.convert(source, tmp_path / "y.gguf", type="Q8_0")
    packed.write_bytes(good)
    os.utime(packed, ns=(times.st_atime_ns, times.st_mtime_ns))
    streamconv.convert(source, tmp_path / "y.gguf", type="Q8_0")
    assert (tmp_path / "y.gguf").read_bytes() == (tmp_path / "x.gguf").read_bytes()


def test_a_change_after_the_plan_is_noticed_before_the_output_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamconv.conversion import execution

    source = gemma2(tmp_path / "m")
    packed = pack(source / "model.safetensors")
    warm_up = execution.warm_up

    def change(*arguments: Any) -> None:
        warm_up(*arguments)
        packed.write_bytes(packed.read_bytes())

    monkeypatch.setattr(execution, "warm_up", change)
    with pytest.raises(InputChanged, match=r"model\.safetensors\.zst changed while it was being read"):
        streamconv.convert(source, tmp_path / "x.gguf", type="Q8_0")
    assert not (tmp_path / "x.gguf").exists()


def test_weights_that_are_not_read_do_not_go_into_a_folder(tmp_path: Path) -> None:
    source = gemma2(tmp_path / "m")
    pack(source / "model.safetensors")
    (source / "pytorch_model.bin.zst").write_bytes(b"left out")
    streamconv.convert(source, tmp_path / "x", type="BF16")
    assert not [p.name for p in (tmp_path / "x").iterdir() if p.suffix == ".zst"]


def test_plan_and_inspect_tell_what_is_on_the_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from streamconv.cli import main

    source = gemma2(tmp_path / "m")
    packed = pack(source / "model.safetensors")
    assert main(["inspect", str(packed), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == "safetensors"
    assert facts["files"] == [{"name": "model.safetensors.zst", "bytes": packed.stat().st_size}]
    assert main(["plan", str(source), str(tmp_path / "x.gguf"), "--type", "Q8_0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["input_bytes"] == packed.stat().st_size


def test_what_is_kept_of_inputs_is_taken_from_the_budget(tmp_path: Path) -> None:
    from streamconv import conversion

    source = gemma2(tmp_path / "m")
    options = conversion.Options(type="Q8_0", ram_bytes=64 << 20, threads=2)
    plain = conversion.execution.budget_of(conversion.prepare(source, tmp_path / "x.gguf", options), options)
    size = (source / "model.safetensors").stat().st_size
    pack(source / "model.safetensors", "stream")
    packed = conversion.execution.budget_of(conversion.prepare(source, tmp_path / "x.gguf", options), options)
    assert plain.window_bytes == 32 << 20
    assert plain.window_bytes - packed.window_bytes == size // 2


def test_no_room_is_told_with_the_ram_that_would_do(tmp_path: Path) -> None:
    source = gemma2(tmp_path / "m")
    pack(source / "model.safetensors", "stream")
    with pytest.raises(BadInput, match="single frame") as caught:
        streamconv.plan(source, tmp_path / "x.gguf", type="Q8_0", ram="300KiB")
    assert "--ram 1MiB" in caught.value.hint
    assert "t2sz" in caught.value.hint


def test_an_adapter_may_be_compressed(tmp_path: Path) -> None:
    base = gemma2(tmp_path / "m")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    at = "base_model.model.model.layers.0.self_attn.q_proj"
    rng = np.random.default_rng(0)
    write_safetensors(adapter / "adapter_model.safetensors", {
        f"{at}.lora_A.weight": ("F32", rng.standard_normal((2, 64)).astype("<f4")),
        f"{at}.lora_B.weight": ("F32", rng.standard_normal((64, 2)).astype("<f4")),
    })  # fmt: skip
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(f"merge_method: passthrough\nmodels: [{{model: '{base}+{adapter}'}}]\n")
    streamconv.convert(recipe, tmp_path / "x")
    pack(adapter / "adapter_model.safetensors", "stream")
    pack(base / "model.safetensors", "seekable", 10_000)
    streamconv.convert(recipe, tmp_path / "y")
    assert contents(tmp_path / "x") == contents(tmp_path / "y")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")
def test_a_conversion_takes_no_more_memory_than_ram(tmp_path: Path) -> None:
    words = np.random.default_rng(0).integers(0, 1 << 15, (12288, 2048), np.uint16) & 0x3FFF
    for name, n_rows in (("small", 64), ("large", 12288)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        path = write_safetensors(tmp_path / name / "model.safetensors", {"w": ("BF16", words[:n_rows])})
        (path.with_name(f"{path.name}.zst")).write_bytes(seekable(path.read_bytes(), 1 << 20))
        path.unlink()
    ram = 16 << 20
    (tmp_path / "out").mkdir()
    assert peak_memory(tmp_path / "small", tmp_path / "large", tmp_path / "out", "F16", ram) < ram
