"""What ``test_changes.py`` is made of: small jobs, states that their outputs are in, and ways in which a file changes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fingerprint_cases as cases
import numpy as np
import pytest
from small_models import read_safetensors, write_safetensors

from streamconv.conversion import Options, execute
from streamconv.engine import changes, existing, files, makers, making, publishing
from streamconv.engine.plan import Plan, bundles
from streamconv.engine.record import load, record_path
from streamconv.errors import StreamconvError
from streamconv.progress import Silent
from streamconv.quant.encode import EncodedRows

sys.path.append(str(Path(__file__).resolve().parent.parent / "sources"))  # builders of torch files
from torch_files import checkpoint as torch_file

CHUNK = 2 << 10
UNUSED = "model.layers.0.self_attn.rotary_emb.inv_freq"


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@dataclass
class Counted:
    """What a run did: its exit code and message, rows that were made for the output, and what was read to compare it.

    Attributes
    ----------
    rows : that were made for the output
    filled : that were made at all
    digests : ranges of inputs that a digest was made of
    outputs_read : files of outputs that were read whole
    """

    code: int = 0
    said: str = ""
    rows: int = 0
    filled: int = 0
    digests: int = 0
    outputs_read: int = 0


class Subject:
    """A small job whose sources and output lie below ``root``.

    Attributes
    ----------
    weights : the input that changes
    """

    def __init__(self, root: Path, job: cases.Job, weights: Path) -> None:
        self.root, self.weights = root, weights
        self.job = replace(job, options=replace(job.options, chunk_bytes=CHUNK, threads=1))
        self.before = weights.read_bytes()
        self.kept = set(root.iterdir())

    def clean(self) -> None:
        """As it was at first, though at another time."""
        for path in set(self.root.iterdir()) - self.kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.weights.read_bytes() != self.before:
            self.weights.write_bytes(self.before)

    @property
    def plan(self) -> Plan:
        return self.job.plan(self.job.options).plan

    def fresh(self) -> dict[Path, bytes] | int:
        """What a conversion of the inputs as they are gives, made without an engine; or the code it is refused with."""
        try:
            prepared = self.job.plan(self.job.options)
        except StreamconvError as e:
            return e.exit_code
        made = cases.bytes_of(prepared, unsigned=False)
        return {f.path: data for f, data in zip(prepared.plan.files, made, strict=True)}

    def made(self) -> dict[Path, bytes]:
        """Every file below ``root`` that is no source and no record."""
        new = sorted(set(self.root.iterdir()) - self.kept)
        listed = [p for top in new for p in ([top] if top.is_file() else sorted(top.rglob("*"))) if p.is_file()]
        return {p: p.read_bytes() for p in listed if not (p.name[0] == "." and p.suffix == ".streamconv")}

    def go(self, **flags: Any) -> Counted:
        """Run the job."""
        found = Counted()
        real_of, real_fill, real_damage = changes.SourceDigests.of, EncodedRows.fill, existing.first_damage
        real_make = making.Maker.make

        def make(self: making.Maker, bundle: Any) -> Any:
            found.rows += bundle[0].stop - bundle[0].start
            return real_make(self, bundle)

        def of(self: changes.SourceDigests, *args: Any) -> bytes:
            found.digests += 1
            return real_of(self, *args)

        def fill(self: EncodedRows, start: int, stop: int, *args: Any) -> Any:
            found.filled += stop - start
            return real_fill(self, start, stop, *args)

        def damage(*args: Any) -> Any:
            found.outputs_read += 1
            return real_damage(*args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(changes.SourceDigests, "of", of)
            patch.setattr(EncodedRows, "fill", fill)
            patch.setattr(making.Maker, "make", make)
            patch.setattr(existing, "first_damage", damage)
            options: Options = replace(self.job.options, **flags)
            try:
                execute(self.job.plan(options), options, Silent())
            except StreamconvError as e:
                found.code, found.said = e.exit_code, str(e)
        return found

    def places(self, done: int) -> dict[str, int]:
        """Offsets in the file of weights, by what lies there, once ``done`` chunks are made."""
        plan, chunks = self.plan, bundles(self.plan.chunks())
        spans = [self._spans(bundle[0].item.spans(bundle[0].start, bundle[0].stop)) for bundle in chunks]
        used = np.zeros(len(self.before), bool)
        for item, _ in plan.items:
            for a, n in self._spans(item.everything()):
                used[a : a + n] = True
        found = {}
        last = max((s for own in spans for s in own), key=lambda s: s[1])
        found["sampled"] = len(self.before) - 2
        found["between the samples"] = last[0] + last[1] // 2
        unused = np.flatnonzero(~used[: found["sampled"] - 64])
        if self.weights.suffix == ".safetensors":
            start = 8 + int.from_bytes(self.before[:8], "little") + 64
            unused = unused[unused >= start]
            if len(unused):
                found["unused"] = int(unused[len(unused) // 2])
        ready, to_do = [s for own in spans[:done] for s in own], [s for own in spans[done:] for s in own]
        for name, listed in (("done", ready), ("not done", to_do)):
            if listed:
                found[name] = max(listed, key=lambda s: s[1])[0] + 2
        if done < len(chunks) and chunks[done][0].start:
            item = chunks[done][0].item
            half = self._spans(item.spans(0, chunks[done][0].start))
            if half:
                found["half done"] = half[0][0]
        return found

    def _spans(self, spans: Any) -> list[tuple[int, int]]:
        return [(offset, n) for file, offset, n in spans if file.path == self.weights and n]


def change(path: Path, *, mtime: bool, inode: bool, size: bool, at: int | None) -> None:
    """Change what is asked for of a file and, as far as the system lets us, nothing else."""
    was = path.stat()
    data = bytearray(path.read_bytes())
    if at is not None:
        data[at] ^= 0x10
    if size:
        data += bytes(8)
    if inode:
        other = path.with_name(path.name + ".new")
        other.write_bytes(data)
        os.replace(other, path)
    elif at is not None or size:
        path.write_bytes(data)
    else:
        path.chmod(0o600 if was.st_mode & 0o77 else 0o644)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 3 * 10**9 * mtime))


# States.


@contextmanager
def _stopping_after(n: int) -> Iterator[None]:
    real, left = makers._Worker._take, [n]

    def take(self: makers._Worker) -> Any:
        left[0] -= 1
        return real(self) if left[0] >= 0 else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(makers._Worker, "_take", take)
        yield


def half(subject: Subject) -> int:
    """Chunks of which an unfinished job has made about half; the next one is not the first of its tensor where there is such."""
    chunks = bundles(subject.plan.chunks())
    middle = len(chunks) // 2
    return next((n for n in range(middle, len(chunks)) if chunks[n][0].start), middle)


def finished(subject: Subject) -> None:
    result = subject.go()
    assert result.code == 0, result.said


def without_record(subject: Subject) -> None:
    finished(subject)
    for output in subject.plan.outputs:
        record_path(output).unlink()


def damaged_record(subject: Subject) -> None:
    finished(subject)
    for output in subject.plan.outputs:
        text = record_path(output).read_text()
        at = text.index('"source') if '"source' in text else len(text) // 2
        record_path(output).write_text(text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :])


def foreign_record(subject: Subject) -> None:
    finished(subject)
    for output in subject.plan.outputs:
        record = load(record_path(output))
        assert record is not None
        record_path(output).write_text(replace(record, fingerprint="0" * 64).text())


def unfinished(subject: Subject) -> None:
    with _stopping_after(half(subject)):
        assert subject.go().code == 75


def unfinished_without_digests(subject: Subject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes.SourceDigests, "alongside", lambda *args: changes.SourceDigest(bytes(16)))
        with _stopping_after(half(subject)):
            options = subject.job.options
            with pytest.raises(StreamconvError):
                execute(subject.job.plan(options), options, Silent())


def killed_before_the_end(subject: Subject) -> None:
    """All files have their names, but the job has not said so."""
    calls: list[Path] = []

    def settle(folder: Path, _lock: object) -> bool:
        calls.append(folder)
        if len(calls) > 1:
            raise Killed
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "recover", settle)
        with pytest.raises(Killed):
            subject.go()


def killed_between_names(subject: Subject) -> None:
    """One file has its name."""
    real, calls = files.publish_new, list[Path]()

    def publish_new(part: Path, final: Path) -> None:
        if part.suffix == ".part" or part.name == "out":
            calls.append(final)
            if len(calls) > 1:
                raise Killed
        real(part, final)

    if len(subject.plan.files) == 1 or subject.plan.folder is not None:
        killed_before_the_end(subject)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "publish_new", publish_new)
        with pytest.raises(Killed):
            subject.go()


STATES: dict[str, Callable[[Subject], None]] = {
    state.__name__: state
    for state in (
        finished, without_record, damaged_record, foreign_record, unfinished, unfinished_without_digests,
        killed_before_the_end, killed_between_names,
    )
}  # fmt: skip


# Kinds of jobs.


def _dense(root: Path, output: str, **options: Any) -> Subject:
    job = cases.dense_gguf(root)
    weights = root / "m" / "model.safetensors"
    tensors = read_safetensors(weights)
    write_safetensors(weights, {**tensors, UNUSED: ("F32", np.ones(64, np.float32))})
    return Subject(root, cases.convert(root / "m", root / output, job.texts, **options), weights)


def plain(root: Path) -> Subject:
    return _dense(root, "x.gguf", type="q8_0")


def shards(root: Path) -> Subject:
    return _dense(root, "x.gguf", type="bf16", split_max_tensors=6)


def types(root: Path) -> Subject:
    return _dense(root, "x-{type}.gguf", type="q8_0,f16")


def folder(root: Path) -> Subject:
    return _dense(root, "x", max_shard_bytes=60000)


def torch(root: Path) -> Subject:
    subject = _dense(root, "x.gguf", type="q8_0")
    tensors = read_safetensors(subject.weights)
    subject.weights.unlink()
    weights = root / "m" / "pytorch_model.bin"
    weights.write_bytes(torch_file(tensors))
    return Subject(root, subject.job, weights)


def gguf(root: Path) -> Subject:
    return Subject(root, cases.requantized(root), root / "in.gguf")


def gptq(root: Path) -> Subject:
    return Subject(root, cases.gptq_gguf(root), root / "m" / "model.safetensors")


def nf4(root: Path) -> Subject:
    return Subject(root, cases.nf4_folder(root), root / "m" / "model-00002-of-00003.safetensors")


def linear(root: Path) -> Subject:
    return Subject(root, cases.linear_gguf(root), root / "b" / "model.safetensors")


def ties(root: Path) -> Subject:
    return Subject(root, cases.ties_gguf(root), root / "b" / "model.safetensors")


def adapter(root: Path) -> Subject:
    return Subject(root, cases.adapter_gguf(root), root / "d" / "adapter_model.safetensors")


def extraction(root: Path) -> Subject:
    return Subject(root, cases.extraction(root), root / "b" / "model.safetensors")


KINDS: dict[str, Callable[[Path], Subject]] = {
    kind.__name__: kind
    for kind in (plain, shards, types, folder, torch, gguf, gptq, nf4, linear, ties, adapter, extraction)
}
