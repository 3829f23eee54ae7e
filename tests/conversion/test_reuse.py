"""Conversions beside older outputs: what is copied, what is told, and that the bytes are those of a conversion from nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fingerprint_cases import linear_gguf, other_options, requantized
from small_models import gemma2

import streamconv
from streamconv import cli, conversion
from streamconv.conversion import Options, execution
from streamconv.engine import reusing
from streamconv.engine.plan import Plan
from streamconv.engine.record import load, record_path
from streamconv.errors import InputMissing
from streamconv.progress import Silent

RECIPE = """\
merge_method: linear
dtype: bfloat16
models:
  - model: a
    parameters: {{weight: 0.25}}
  - model: b
    parameters: {{weight: {0}}}
"""
#: what is made first, and what then: source, name, options; how many bytes of the latter are to be copied, at least
CASES: dict[str, list[Any]] = {
    "another type": [("a", "x.gguf", {"type": "Q8_0"}), ("a", "y.gguf", {"type": "Q8_0", "tensor_types": ["ffn_up=Q4_0"]}), 0.5],
    "shards of a file": [("a", "x.gguf", {"type": "F16"}), ("a", "y.gguf", {"type": "F16", "split_max_tensors": 5}), 0.9],
    "a file of shards": [("a", "x.gguf", {"type": "F16", "split_max_tensors": 5}), ("a", "y.gguf", {"type": "F16"}), 0.9],
    "other shards": [
        ("a", "x.gguf", {"type": "F16", "split_max_tensors": 5}), ("a", "y.gguf", {"type": "F16", "split_max_tensors": 3}), 0.9,
    ],
    "several types of one": [("a", "x.gguf", {"type": "F16"}), ("a", "y-{type}.gguf", {"type": "Q8_0,F16"}), 0.5],
    "one of several types": [("a", "x-{type}.gguf", {"type": "Q8_0,F16"}), ("a", "y.gguf", {"type": "Q8_0"}), 0.9],
    "other chunks": [("a", "x.gguf", {"type": "F16", "chunk_bytes": 3000}), ("a", "y.gguf", {"type": "F16"}), 0.9],
    "a folder of a folder": [("a", "x", {"type": "F16"}), ("a", "y", {"type": "F16", "max_shard_bytes": 50_000}), 0.9],
    "another name": [("a", "x.gguf", {"type": "F16"}), ("a", "y.gguf", {"type": "F16", "model_name": "other"}), 0.9],
    "a merge": [
        ("m.yml", "x.gguf", {"type": "Q8_0"}), ("m.yml", "y.gguf", {"type": "Q8_0", "tensor_types": ["ffn_up=Q4_0"]}), 0.5,
    ],
    "another merge": [("m.yml", "x.gguf", {"type": "F16"}), ("n.yml", "y.gguf", {"type": "F16"}), 0],
    "another model": [("a", "x.gguf", {"type": "F16"}), ("b", "y.gguf", {"type": "F16"}), 0],
}  # fmt: skip


QUICK = ("another type", "several types of one", "a merge", "another model")
SLOW = (pytest.mark.slow,)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("ab"):
        gemma2(root / name, seed)
    (root / "m.yml").write_text(RECIPE.format(0.75))
    (root / "n.yml").write_text(RECIPE.format(0.5))
    return root


@pytest.fixture
def work(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with copies of the models, for sources that change; the current one."""
    shutil.copytree(models, tmp_path / "work", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def copied(source: str, output: str, **options: Any) -> tuple[int, list[str]]:
    """Convert; the bytes that were copied, and the notes."""
    told = Options.of(options)
    prepared = conversion.prepare(source, output, told)
    outcome = conversion.execute(prepared, told, Silent())
    assert outcome is not None
    assert outcome.made_bytes + outcome.copied_bytes + outcome.resumed_bytes == prepared.plan.total_bytes
    return outcome.copied_bytes, outcome.notes


def contents(prefix: str) -> dict[str, bytes]:
    """What lies under names that begin so; without the part that tells outputs apart."""
    found = [p for p in Path().rglob("*") if p.is_file() and str(p).startswith(prefix)]
    return {str(p).removeprefix(prefix): p.read_bytes() for p in found}


@pytest.mark.parametrize(
    ("case", "named"),
    [
        pytest.param(case, named, marks=() if case in QUICK and named else SLOW, id=f"{case}, {'named' if named else 'beside'}")
        for case in CASES for named in (True, False)
    ],
)  # fmt: skip
def test_the_bytes_are_those_of_a_conversion_from_nothing(work: Path, case: str, named: bool) -> None:
    (source, old, how), (other, new, options), least = CASES[case]
    streamconv.convert(source, old, manifest=True, **how)
    n_bytes, notes = copied(other, new, manifest=True, **options, **({"reuse": old} if named else {}))
    there = contents("y")
    total = sum(map(len, there.values()))
    assert n_bytes >= (least - 0.1) * total
    assert (n_bytes > 0) == (least > 0)
    assert (
        (not named and not notes) or (least == 0.9 and not notes) or any("not copied from x" in text for text in notes)
    )
    assert cli.main(["verify", new, "--quiet"]) == 0
    records = {p.name: load(p) for p in Path().glob(".y*.streamconv")}
    for path in [*Path().glob("y*"), *Path().glob(".y*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert copied(other, new, manifest=True, **options, no_reuse=True) == (0, [])
    assert contents("y") == there
    # The manifest is that of a conversion from nothing, too.
    for name, record in records.items():
        again = load(Path(name))
        assert record is not None
        assert again is not None
        assert [f.tensors for f in again.files] == [f.tensors for f in record.files]


def test_a_mix_takes_from_a_smaller_one_what_both_have(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["convert", str(tiny_model)]
    assert cli.main([*command, "s.gguf", "--type", "Q4_K_S", "--manifest", "--quiet"]) == 0
    assert cli.main(["plan", str(tiny_model), "m.gguf", "--type", "Q4_K_M"]) == 0
    shown = capsys.readouterr().out
    assert cli.main([*command, "m.gguf", "--type", "Q4_K_M", "--reuse", "s.gguf"]) == 0
    said = capsys.readouterr().out
    assert cli.main([*command, "n.gguf", "--type", "Q4_K_M", "--no-reuse", "--quiet"]) == 0
    assert Path("m.gguf").read_bytes() == Path("n.gguf").read_bytes()
    line = next(line for line in shown.splitlines() if line.startswith("copies "))
    amount = line.partition("copies ")[2].partition(" (")[0]
    assert f"{amount} copied from s.gguf" in said
    assert "tensors are not copied from s.gguf: " in said
    assert "have another type in it" in said
    assert cli.main([*command, "o.gguf", "--type", "Q4_K_M", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["copied"] > 2 << 20
    assert last["copied"] + last["bytes"] == last["total"]


def test_other_importance_makes_other_tensors_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = requantized(tmp_path)
    monkeypatch.chdir(tmp_path)
    first = job.plan(dataclasses.replace(job.options, manifest=True))
    assert conversion.execute(first, dataclasses.replace(job.options, manifest=True), Silent()) is not None
    old = Path(first.plan.output)
    kept = old.with_name("old.gguf")
    record = load(record_path(old))
    assert record is not None
    old.rename(kept)
    (file,) = record.files
    renamed = dataclasses.replace(record, output=kept.name, files=[dataclasses.replace(file, name=kept.name)])
    record_path(kept).write_text(renamed.text())
    record_path(old).unlink()
    options = dataclasses.replace(job.options, imatrix=(), reuse=(kept,))
    outcome = conversion.execute(job.plan(options), options, Silent())
    assert outcome is not None
    assert any("have other importance or options" in text for text in outcome.notes)


@pytest.mark.parametrize("how", ["touched", *(pytest.param(how, marks=SLOW) for how in ("moved", "copied", "mode"))])
def test_a_source_with_other_times_is_compared_by_contents(work: Path, how: str) -> None:
    weights = Path("a/model.safetensors")
    streamconv.convert("a", "x.gguf", type="IQ4_NL", manifest=True)
    if how == "touched":
        os.utime(weights)
    elif how == "moved":
        weights.rename(weights.with_name("t")).rename(weights)
    elif how == "copied":
        shutil.copyfile(weights, weights.with_name("t"))
        weights.with_name("t").replace(weights)
    else:
        weights.chmod(0o600)
    n_bytes, notes = copied("a", "y.gguf", type="IQ4_NL", reuse="x.gguf")
    assert n_bytes > 30_000
    # norms are made as fast as they are compared
    assert any("made of inputs that have changed, or that take as long to compare" in text for text in notes)
    streamconv.convert("a", "z.gguf", type="IQ4_NL", no_reuse=True)
    assert Path("y.gguf").read_bytes() == Path("z.gguf").read_bytes()


def _changed(path: Path, at: int) -> None:
    """Other bytes, at the same time as before as far as ``utime`` can tell."""
    before = path.stat()
    with path.open("r+b") as f:
        f.seek(at)
        f.write(b"\x3d" * 300)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_bytes_of_the_source_that_were_changed_behind_its_times_are_in_the_output(work: Path) -> None:
    streamconv.convert("a", "x.gguf", type="IQ4_NL", manifest=True)
    weights = Path("a/model.safetensors")
    _changed(weights, weights.stat().st_size // 2)
    copied("a", "y.gguf", type="IQ4_NL", reuse="x.gguf")
    streamconv.convert("a", "z.gguf", type="IQ4_NL", no_reuse=True)
    assert Path("y.gguf").read_bytes() == Path("z.gguf").read_bytes()
    assert Path("y.gguf").read_bytes() != Path("x.gguf").read_bytes()


def test_an_output_that_is_replaced_gives_its_tensors_to_the_new_one(work: Path) -> None:
    streamconv.convert("a", "x.gguf", type="Q8_0", manifest=True)
    options = {"type": "Q8_0", "tensor_types": ["ffn_up=Q4_0"]}
    n_bytes, _ = copied("a", "x.gguf", update=True, manifest=True, **options)
    assert n_bytes > 50_000
    streamconv.convert("a", "y.gguf", no_reuse=True, **options)
    assert Path("x.gguf").read_bytes() == Path("y.gguf").read_bytes()
    assert cli.main(["verify", "x.gguf", "--quiet"]) == 0
    assert copied("a", "x.gguf", force=True, **options)[0] == 0, "--force makes it from nothing"


def test_a_job_goes_on_without_the_older_output_that_it_began_with(work: Path) -> None:
    streamconv.convert("a", "x.gguf", type="Q8_0", manifest=True)
    told = {"type": "Q8_0", "tensor_types": ["ffn_up=Q4_0"], "reuse": "x.gguf"}
    with pytest.raises(streamconv.StreamconvError):
        streamconv.convert("a", "y.gguf", stop_after_s=0.0, **told)  # type: ignore[arg-type]
    assert Path("y.gguf.streamconv").is_dir()
    Path("x.gguf").unlink()
    record_path(Path("x.gguf")).unlink()
    n_bytes, notes = copied("a", "y.gguf", **told)
    assert n_bytes == 0
    assert any("nothing is copied from x.gguf" in text for text in notes)
    streamconv.convert("a", "z.gguf", no_reuse=True, type="Q8_0", tensor_types=["ffn_up=Q4_0"])
    assert Path("y.gguf").read_bytes() == Path("z.gguf").read_bytes()


def test_an_older_output_that_is_not_there_is_refused_before_any_work(work: Path) -> None:
    with pytest.raises(InputMissing, match=r"--reuse: old\.gguf does not exist"):
        streamconv.convert("a", "y.gguf", reuse="old.gguf")
    assert cli.main(["convert", "a", "y.gguf", "--reuse", "old.gguf", "--quiet"]) == 66
    assert not list(Path().glob("y*"))


def test_what_was_asked_for_and_has_no_effect_is_told(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streamconv.convert("a", "plain.gguf", type="Q8_0")
    shutil.copy("plain.gguf", "bare.gguf")
    streamconv.convert("a", "x.gguf", type="Q8_0", manifest=True)
    for old, said in {
        "plain.gguf": "nothing is copied from plain.gguf: its record has no manifest",
        "bare.gguf": "nothing is copied from bare.gguf: bare.gguf has no record to compare with",
    }.items():
        assert cli.main(["plan", "a", "y.gguf", "--type", "F16", "--reuse", old]) == 0
        assert said in capsys.readouterr().out
        assert said in "\n".join(copied("a", f"of {old}", type="F16", reuse=old)[1])
    assert "--report measures" in "\n".join(copied("a", "r.gguf", type="Q8_0", reuse="x.gguf", report="r.jsonl")[1])
    assert cli.main(["convert", "a", "plain.gguf", "--type", "Q8_0", "--manifest"]) == 0
    assert "plain.gguf is complete and has no manifest: --force makes it again, with one" in capsys.readouterr().err
    assert cli.main(["convert", "a", "y.gguf", "--reuse", "x.gguf", "--no-reuse", "--quiet"]) == 64


def tensors(plan: Plan) -> dict[tuple[str, str], bytes]:
    """By what is said to decide them, the bytes of every tensor."""
    found = {}
    assert plan.key_of is not None
    for item, places in plan.items:
        outs = [np.empty((item.n_rows, n), np.uint8) for n in item.row_bytes]
        item.fill(0, item.n_rows, outs, np.empty(max(1 << 16, 2 * item.n_cols), np.float32))
        for place in places:
            key = plan.key_of(item, place.part)
            found[key.encoding, key.rows] = outs[place.part].tobytes()
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [requantized, pytest.param(linear_gguf, marks=SLOW)])
def test_tensors_of_equal_keys_have_equal_bytes_whatever_else_differs(make: Any, tmp_path: Path) -> None:
    job = make(tmp_path)
    known = tensors(job.plan(job.options).plan)
    shared = 0
    for what, options in other_options(job.options):
        try:
            plan = job.plan(options).plan
            found = tensors(plan)
        except streamconv.StreamconvError:
            continue
        for key, data in found.items():
            shared += key in known
            assert known.setdefault(key, data) == data, what
    assert shared > 100


def test_an_older_output_whose_header_was_patched_still_gives_its_tensors(work: Path) -> None:
    streamconv.convert("a", "x.gguf", type="Q8_0", model_name="one", manifest=True)
    assert cli.main(["edit", "x.gguf", "--in-place", "--set", "general.name=two", "--quiet"]) == 0
    n_bytes, notes = copied("a", "y.gguf", type="Q8_0", reuse="x.gguf")
    streamconv.convert("a", "z.gguf", type="Q8_0", no_reuse=True)
    assert Path("y.gguf").read_bytes() == Path("z.gguf").read_bytes()
    assert (n_bytes > 90_000, notes) == (True, [])
    # A header that does not fit in its place makes another file of it, which was made from none of the inputs.
    assert cli.main(["edit", "x.gguf", "--in-place", "--set", "general.name=a longer one", "--quiet"]) == 0
    assert any("its record has no manifest" in text for text in copied("a", "u.gguf", type="Q8_0", reuse="x.gguf")[1])


def test_kernels_are_loaded_while_tensors_are_copied_and_what_goes_wrong_is_told_later(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamconv.convert("a", "x.gguf", type="Q8_0", manifest=True)
    seen: list[str] = []
    load, copy = execution._Kernels.load, reusing.copy

    def loaded(kernels: Any) -> None:
        seen.append("loading" if not seen else "loading again")
        if len(seen) == 1:
            raise MemoryError
        load(kernels)

    def copied(*arguments: Any) -> int:
        while not seen:
            time.sleep(0.001)
        seen.append("copied")
        return copy(*arguments)

    monkeypatch.setattr(execution._Kernels, "load", loaded)
    monkeypatch.setattr(reusing, "copy", copied)
    streamconv.convert("a", "y.gguf", type="Q8_0", tensor_types=["ffn_up=F16"])
    assert seen == ["loading", "copied", "loading again"]
    streamconv.convert("a", "z.gguf", type="Q8_0", tensor_types=["ffn_up=F16"], no_reuse=True)
    assert Path("y.gguf").read_bytes() == Path("z.gguf").read_bytes()
