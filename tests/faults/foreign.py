"""A small world in which everything but one output is somebody else's, and a way to see that nothing of it was touched."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from small_models import write_safetensors

from streamconv.engine.record import sealed
from streamconv.metadata import Metadata
from streamconv.quant.types import TYPES
from streamconv.targets import gguf
from streamconv.targets.layout import TensorInfo

Facts = tuple[object, ...]
#: what other tools copy from file to file
JOB = "5f" * 32


def weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("<f4")


def write_gguf(path: Path, seed: int = 0, job: str = "", more: str = "") -> Path:
    """A GGUF file of three tensors; ``job`` is a key that another tool copied, ``more`` one that it added."""
    metadata = Metadata()
    metadata.string("general.architecture", "llama")
    metadata.string("general.name", f"seed {seed}")
    for key, text in (("streamconv.job", job), ("tool.version", more)):
        metadata.string(key, text)
    tensors = {f"blk.{n}.ffn_up.weight": weights(seed + n, 8, 64) for n in range(3)}
    infos = [TensorInfo(name, x.shape, TYPES["F32"]) for name, x in tensors.items()]
    (file,) = gguf.layout(path, metadata, infos)
    path.write_bytes(file.header + b"".join(x.tobytes() for x in tensors.values()))
    return path


def write_model(folder: Path, seed: int = 0) -> Path:
    """A folder of a family that nobody knows, which a folder can be made of."""
    folder.mkdir(parents=True)
    tensors = {f"layers.{n}.proj.weight": ("F32", weights(seed + n, 16, 16)) for n in range(3)}
    write_safetensors(folder / "model.safetensors", tensors)
    config = {"architectures": ["NoneForCausalLM"], "model_type": "none", "hidden_size": 16, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def write_imatrix(path: Path) -> Path:
    """An importance matrix as llama-imatrix wrote them: one entry of ones."""
    name = b"blk.0.ffn_up.weight"
    data = struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 1, 64) + np.ones(64, "<f4").tobytes()
    path.write_bytes(data)
    return path


def write_adapter(folder: Path) -> Path:
    """A LoRA adapter of rank 1 for a model of ``write_model``."""
    folder.mkdir(parents=True)
    at = "base_model.model.layers.0.proj"
    tensors = {f"{at}.lora_A.weight": ("F32", weights(8, 1, 16)), f"{at}.lora_B.weight": ("F32", weights(9, 16, 1))}
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


class World:
    """Models, recipes, a cache and a home of somebody, all below ``root``; outputs are to lie in ``spot``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spot, self.here = root / "spot", root / "here"
        models = root / "models"
        self.base = write_gguf(_folder(models) / "base.gguf")
        self.model, self.tuned = write_model(models / "src"), write_model(models / "tuned", 5)
        self.adapter, self.imatrix = write_adapter(root / "adapters" / "a"), write_imatrix(root / "im.dat")
        self.rules = _write(root / "rules.txt", "nothing=F16")
        recipe = f"merge_method: linear\ndtype: float32\nmodels:\n  - model: {self.model}+{self.adapter}\n"
        recipe += "    parameters: {weight: 0.5}\n" + f"  - model: {self.tuned}\n    parameters: {{weight: 0.5}}\n"
        self.recipe = _write(root / "recipe.yml", recipe)
        (models / "src" / "hidden").mkdir()
        (root / "linked").symlink_to(models)
        os.link(self.base, root / "hard.gguf")
        self.imatrix_gguf = write_imatrix(root / "im.gguf")
        _write(write_model(root / "job.streamconv", 3) / "recipe.yml", recipe)
        for place in (models / "src", models / "src" / "hidden", models, root, _folder(self.spot), _folder(self.here)):
            self._clutter(place)
        _folder(root / "cache" / "streamconv" / "models" / "org--model" / "blobs" / "aa")
        _write(root / "cache" / "streamconv" / "models" / "mine.tmp", "mine")

    def _clutter(self, place: Path) -> None:
        """What people have lying beside their models, some of it under names that look like ours."""
        thesis = _write(place / "thesis.tex", f"the only copy, {place}")
        _write(place / ".netrc", "password").chmod(0o600)
        os.link(thesis, place / ".thesis.bak")
        (place / "elsewhere").symlink_to(self.root.parent / "outside")
        (place / "dangling").symlink_to(place / "not there")
        _folder(place / "empty").chmod(0o750)
        _write(_folder(place / "notes.streamconv") / "plan.json", "{}")
        _write(place / ".other.gguf.streamconv", "not a record")
        _write(place / ".forged.gguf.streamconv", forged("forged.gguf", "../thesis.tex"))
        if place in (self.spot, self.here):  # else they would be weights of the model
            write_gguf(place / "other.gguf", 7)
            write_gguf(place / "copied.gguf", 8, JOB, "3")
            write_gguf(place / "out-00002-of-00009.gguf", 9, JOB)

    def facts(self, besides: Iterable[Path] = ()) -> dict[Path, Facts]:
        """Every file's identity, owner, mode, time and contents; of folders ``besides``, which entries may come and go, less."""
        changing = {self.spot, *besides}
        return {path: facts_of(path, path not in changing) for path in [self.root, *sorted(self.root.rglob("*"))]}


def facts_of(path: Path, with_time: bool = True) -> Facts:
    found = os.lstat(path)
    what = stat.S_IFMT(found.st_mode)
    content = ""
    if what == stat.S_IFLNK:
        content = os.readlink(path)
    elif what == stat.S_IFREG:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    time = found.st_mtime_ns if with_time else 0
    return found.st_ino, found.st_mode, found.st_uid, found.st_gid, time, content


def forged(output: str, *names: str) -> str:
    """A record that claims files of others."""
    listed = [{"name": n, "size": 1, "mtime_ns": 1, "inode": 1, "header": [0, "00"], "ranges": []} for n in names]
    return sealed({"format": 1, "output": output, "fingerprint": JOB, "inputs": [], "files": listed})


def special(path: Path, what: str) -> None:
    """Something that is no file at all."""
    if what == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # names of sockets must be short
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(path.name)
        finally:
            os.chdir(here)
    elif what == "device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    else:
        os.mkfifo(path)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
