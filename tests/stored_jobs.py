"""Unfinished jobs and finished outputs as versions of streamconv leave them, kept in ``tests/data/jobs`` for later versions.

    python tests/stored_jobs.py VERSION [CHECKOUT]    makes VERSION.zip with the streamconv in CHECKOUT, by default this one

Made from checkpoints that are made again wherever they are needed, so inodes, times and devices are always others than on record.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from small_models import read_safetensors, write_safetensors

HERE = Path(__file__).resolve().parent
JOBS = HERE / "data" / "jobs"
RECIPE = """\
merge_method: ties
base_model: a
dtype: bfloat16
models:
- {model: b, parameters: {weight: 1.0, density: 0.5}}
- {model: c, parameters: {weight: 0.5, density: 0.75}}
"""
COMMON = ["--chunk-size", "4KiB", "--threads", "1", "--quiet"]
#: name -> the command, whose output is named like that; what follows "finished" is complete, the others are about half made
COMMANDS: dict[str, list[str]] = {
    "file": ["convert", "mistral", "file.gguf", "--type", "Q4_0"],
    "shards": ["convert", "mistral", "shards.gguf", "--type", "Q4_1", "--split-max-tensors", "8"],
    "folder": ["convert", "a", "folder", "--type", "F16", "--max-shard-size", "16KiB"],
    "merge": ["convert", "ties.yml", "merge", "--max-shard-size", "16KiB"],
    "finished-file": ["convert", "mistral", "finished-file.gguf", "--type", "Q2_K", "--pure"],
    "finished-folder": ["convert", "b", "finished-folder", "--type", "F16"],
    "finished-shards": ["convert", "mistral", "finished-shards.gguf", "--type", "Q4_0", "--split-max-tensors", "8"],
}


def inputs(folder: Path) -> None:
    """What the commands read; values repeat, so that what is made of them can be packed."""
    shutil.copytree(HERE / "data" / "checkpoints" / "mistral-spm" / "hf", folder / "mistral")
    weights = folder / "mistral" / "model.safetensors"
    weights.chmod(0o644)
    write_safetensors(weights, {name: (d, _words(w.shape, 0)) for name, (d, w) in read_safetensors(weights).items()})
    for seed, name in enumerate("abc"):
        (folder / name).mkdir()
        tensors = {f"layers.{i}.weight": ("BF16", _words((32, 64), 5 * seed + i)) for i in range(4)}
        write_safetensors(folder / name / "model.safetensors", tensors)
        (folder / name / "config.json").write_text('{"architectures": ["Toy"], "model_type": "toy"}')
    (folder / "ties.yml").write_text(RECIPE)


def _words(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Numbers of bfloat16 between 0.01 and 0.9."""
    return (0x3C20 + np.arange(int(np.prod(shape))) * (2 * seed + 13) % 563).astype("<u2").reshape(shape)


def record(version: str, checkout: Path) -> Path:
    """Make the archive of a version."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        inputs(root)
        before = set(root.iterdir())
        environment = {**os.environ, "PYTHONPATH": str(checkout)}

        def go(*words: str) -> int:
            command = [sys.executable, "-m", "streamconv", *words, *COMMON]
            return subprocess.run(command, cwd=root, env=environment, check=False).returncode

        for command in COMMANDS.values():
            if "finished" in command[2]:
                assert go(*command) == 0
                continue
            while _share(root / f"{command[2]}.streamconv") < 0.5:
                assert go(*command, "--stop-after", "0s") == 75
        JOBS.mkdir(exist_ok=True)
        path = JOBS / f"{version}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            for top in sorted(set(root.iterdir()) - before):
                for file in [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file()):
                    archive.writestr(zipfile.ZipInfo(str(file.relative_to(root))), file.read_bytes(), zipfile.ZIP_LZMA)
        return path


def _share(job: Path) -> float:
    """Share of the slots of an index that are stamped; its layout is that of version 1."""
    if not job.is_dir():
        return 0.0
    slots = (job / "index.wal").read_bytes()[2 * 4096 :]
    return sum(slots[at : at + 4] == b"SLOT" for at in range(0, len(slots), 128)) / (len(slots) // 128)


def unpack(version: str, folder: Path) -> None:
    """The jobs of a version beside their inputs."""
    inputs(folder)
    with zipfile.ZipFile(JOBS / f"{version}.zip") as archive:
        archive.extractall(folder)
    for job in folder.glob("*.streamconv"):
        if job.is_dir():
            job.chmod(0o700)
    # As it was left: what lies beside the weights was written after them, and then the folder got its name.
    made = folder / "finished-folder"
    latest = max(p.stat().st_mtime_ns for p in made.iterdir())
    for path in made.iterdir():
        os.utime(path, ns=(latest, latest))
    made.rename(folder / "renamed")
    (folder / "renamed").rename(made)


if __name__ == "__main__":
    made = record(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else HERE.parent))
    print(made, made.stat().st_size)
