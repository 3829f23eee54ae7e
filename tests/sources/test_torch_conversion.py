"""Torch checkpoints from end to end: the outputs are those of the same weights as safetensors."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import gguf_reader
import numpy as np
import pytest
import torch_files
from small_models import read_safetensors

#: says which input files an output was made of
JOB = "streamconv.job"

#: run by the peers' Python: a safetensors file, a folder, and a way to save
SAVE = """
import json, sys
import torch
from safetensors.torch import load_file

source, folder, how = sys.argv[1:]
tensors = load_file(source)
if how == "transposed":
    tensors = {name: t.t().contiguous().t() if t.ndim == 2 else t for name, t in tensors.items()}
elif how == "fused":
    whole = torch.cat([t.reshape(-1) for t in tensors.values()])
    parts = whole.split([t.numel() for t in tensors.values()])
    tensors = {name: part.view(t.shape) for (name, t), part in zip(tensors.items(), parts)}
elif how == "parameters":
    tensors = {name: torch.nn.Parameter(t) for name, t in tensors.items()}
if how == "sharded":
    names = [f"pytorch_model-0000{k}-of-00002.bin" for k in (1, 2)]
    half = len(tensors) // 2
    parts = sorted(tensors)[:half], sorted(tensors)[half:]
    for file, part in zip(names, parts):
        torch.save({name: tensors[name] for name in part}, f"{folder}/{file}")
    index = {name: file for file, part in zip(names, parts) for name in part}
    json.dump({"metadata": {}, "weight_map": index}, open(f"{folder}/pytorch_model.bin.index.json", "w"))
else:
    if how == "nested":
        tensors = {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in tensors.items()}, "optimizer": {"state": {}}}
    settings = {"legacy": {"_use_new_zipfile_serialization": False}, "protocol 4": {"pickle_protocol": 4}}.get(how, {})
    torch.save(tensors, f"{folder}/pytorch_model.bin", **settings)
"""


def converted(source: Path, out: Path, *arguments: str) -> Path:
    """Run the command line; gives ``out``."""
    command = [
        sys.executable,
        "-m",
        "streamconv",
        "convert",
        str(source),
        str(out),
        *arguments,
        "--threads",
        "1",
        "--quiet",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return out


def assert_same_outputs(torch: Path, safetensors: Path, tmp_path: Path, type_name: str) -> None:
    ours, want = (
        gguf_reader.read(converted(source, tmp_path / f"{k}.gguf", "--type", type_name))
        for k, source in enumerate((torch, safetensors))
    )
    assert list(ours.tensors.items()) == list(want.tensors.items())
    assert {k: v for k, v in ours.keys.items() if k != JOB} == {k: v for k, v in want.keys.items() if k != JOB}
    a, b = (converted(source, tmp_path / f"folder-{k}") for k, source in enumerate((torch, safetensors)))
    assert sorted(p.name for p in a.iterdir()) == sorted(p.name for p in b.iterdir())
    found, wanted = read_safetensors(a / "model.safetensors"), read_safetensors(b / "model.safetensors")
    assert list(found) == list(wanted)
    for name, (dtype, words) in wanted.items():
        assert found[name][0] == dtype
        assert np.array_equal(found[name][1], words)
    assert (a / "config.json").read_bytes() == (b / "config.json").read_bytes()


def without_weights(source: Path, target: Path) -> Path:
    """A copy of the folder that has no weights yet; the last part of its path, which becomes the model's name, is kept."""
    target = target / source.name
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    return target


@pytest.fixture
def model(data: Path) -> Path:
    return data / "checkpoints" / "mistral-spm" / "hf"


def test_a_folder_of_torch_converts_to_what_its_safetensors_do(model: Path, tmp_path: Path) -> None:
    folder = without_weights(model, tmp_path / "torch")
    tensors = read_safetensors(model / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(torch_files.checkpoint(tensors))
    assert_same_outputs(folder, model, tmp_path, "F32")


RARE = ("legacy", "protocol 4", "nested", "transposed", "fused", "parameters")


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("how", ["zip", *(pytest.param(how, marks=pytest.mark.slow) for how in ("sharded", *RARE))])
def test_what_torch_saves_converts_to_what_its_safetensors_do(
    peers: Path, model: Path, tmp_path: Path, how: str
) -> None:
    folder = without_weights(model, tmp_path / "torch")
    command = [str(peers), "-c", SAVE, str(model / "model.safetensors"), str(folder), how]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert list(folder.glob("pytorch_model*.bin"))
    assert_same_outputs(folder, model, tmp_path, "F16")
