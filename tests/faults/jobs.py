"""Small jobs of every kind, what is to come of them, and how to see what a fault left."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import xxhash
from small_models import gemma2

from streamconv import cli, conversion
from streamconv.engine.index_file import PUBLISHING, CommitRecord, read_progress

from .injector import Fault, Result, run

#: STREAMCONV_SOAK=1000 asks for the full numbers of what is random, another number for as many thousandths of them
SOAK = int(os.environ.get("STREAMCONV_SOAK", "0"))
#: STREAMCONV_ALL_FAULTS=1 visits every write call instead of every few
ALL = bool(os.environ.get("STREAMCONV_ALL_FAULTS"))
#: what a job makes before it commits, so that small jobs commit often
WINDOW = 16 << 10

RECIPE = """\
merge_method: linear
dtype: bfloat16
models:
  - model: {0}
    parameters: {{weight: 0.25}}
  - model: {1}
    parameters: {{weight: 0.75}}
"""
DOCUMENTS = """\
name: half
merge_method: slerp
dtype: bfloat16
base_model: {0}
models:
  - model: {1}
parameters: {{t: 0.5}}
---
merge_method: linear
dtype: bfloat16
models:
  - model: half
    parameters: {{weight: 0.5}}
  - model: {1}
    parameters: {{weight: 0.5}}
"""
COMMON = ["--chunk-size", "8KiB", "--threads", "1"]
#: kind of job -> source, name of the output, further options
KINDS: dict[str, tuple[str, str, list[str]]] = {
    "one file": ("a", "out.gguf", ["--type", "BF16"]),
    "several types": ("a", "out-{type}.gguf", ["--type", "F16,Q8_0"]),
    "shards": ("a", "out.gguf", ["--type", "F16", "--split-max-tensors", "6"]),
    "folder": ("a", "out", ["--type", "BF16", "--max-shard-size", "64KiB"]),
    "merge": ("linear.yml", "out.gguf", ["--type", "Q8_0"]),
    "merge of documents": ("documents.yml", "out", []),
    "reuse": ("a", "out.gguf", ["--type", "Q8_0", "--tensor-type", "ffn_up=Q4_0", "--reuse", "{models}/old.gguf"]),
}


def sources(folder: Path) -> Path:
    """A folder with two checkpoints of 0.1M weights, recipes that merge them, and an older output of the first."""
    for seed, name in enumerate("ab"):
        gemma2(folder / name, seed)
    (folder / "linear.yml").write_text(RECIPE.format(folder / "a", folder / "b"))
    (folder / "documents.yml").write_text(DOCUMENTS.format(folder / "a", folder / "b"))
    older = ["convert", str(folder / "a"), str(folder / "old.gguf"), "--type", "Q8_0", "--manifest", *COMMON]
    assert cli.main([*older, "--quiet"]) == 0
    return folder


class Bench:
    """One small job, its command and its right answer.

    Parameters
    ----------
    folder : a new one is made below it for everything that the job writes
    """

    def __init__(self, folder: Path, models: Path, kind: str) -> None:
        source, name, options = KINDS[kind]
        options = [word.format(models=models) for word in options]
        self.kind = kind
        self.root = folder / "work"
        self.root.mkdir(parents=True)
        self.log = folder / "log"
        self.out = self.root / name
        self.command = ["convert", str(models / source), str(self.out), *options, *COMMON]
        plan = conversion.prepare(models / source, self.out, _options(options)).plan
        self.job = plan.job_dir
        self.parts = [plan.part_path(i) for i in range(len(plan.files))]
        self.finals = [f.path for f in plan.files]
        assert cli.main([*self.command, "--quiet"]) == 0  # kernels are loaded in this process now, and in its children
        self.clean()
        whole = self.go()
        assert whole.code == 0, whole.stderr
        self.calls = whole.calls
        self.right = contents(self.root)
        assert len(self.right) == len(plan.files), "nothing but the output is left"

    def clean(self) -> None:
        """An empty folder."""
        shutil.rmtree(self.root)
        self.root.mkdir()

    def go(self, fault: Fault = Fault(), planted: Callable[[], None] | None = None) -> Result:  # noqa: B008
        """Run the command in a child."""
        return run(self.command, self.log, fault, planted)

    def commits(self) -> list[CommitRecord]:
        """What the index vouches for."""
        found = read_progress(self.job / "index.wal")
        return found.commits if found else []

    def violations(self, where: str, ended: bool = False) -> list[str]:
        """What is wrong right after a fault: slots over wrong bytes, wrong files under final names.

        Once the job has ``ended``, it is also wrong if a file is not there.
        """
        commits = self.commits()
        found = [
            f"{where}: chunk {c} is committed over wrong bytes"
            for c in false_stamps(commits, self.parts, self._named())
        ]
        now = contents(self.root)
        wrong = [name for name, digest in self.right.items() if now.get(name, None if ended else digest) != digest]
        return found + [f"{where}: a wrong {name} or none has the final name" for name in wrong]

    def _named(self) -> list[Path]:
        """The files by their final names, where a run had begun to give them: what was there may have a part's name then."""
        found = read_progress(self.job / "index.wal")
        return self.finals if found is not None and found.header.state == PUBLISHING else []

    def finish(self, where: str, again: Callable[[], tuple[int, str]] | None = None) -> list[str]:
        """Run again without a fault; what is wrong then."""
        code, text = again() if again else (lambda r: (r.code, r.stderr))(self.go())
        now = contents(self.root)
        if code == 0 and now == self.right:
            return []
        wrong = sorted(name for name in {*now, *self.right} if now.get(name) != self.right.get(name))
        return [f"{where}: the next run ended with {code}; not as they should be: {wrong[:5]}: {text[-300:]}"]


def _options(words: list[str]) -> conversion.Options:
    from streamconv.cli import make_parser
    from streamconv.commands import _options as parsed

    return parsed(make_parser().parse_args(["convert", "x", "y", *words, *COMMON]))


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file below ``folder``, by its name; empty folders count as well, records (which hold times) do not."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
        if not (path.name.startswith(".") and path.name.endswith(".streamconv"))
        if path.is_file() or not any(path.iterdir())
    }


def false_stamps(commits: list[CommitRecord], parts: list[Path], finals: Sequence[Path] = ()) -> list[int]:
    """Chunks whose slot is valid although the bytes are not there: violations of the index's one promise."""

    def holds(path: Path, s: CommitRecord) -> bool:
        if not path.exists():
            return False
        with open(path, "rb") as f:
            f.seek(s.offset)
            return xxhash.xxh3_128_digest(f.read(s.length)) == s.digest

    return [
        s.chunk
        for s in commits
        if parts[s.file].exists()  # else published
        and not any(holds(path, s) for path in (parts[s.file], *finals[s.file : s.file + 1]))
    ]
