"""Every command that takes a model takes a packed one: what it writes and prints is what it does of the plain one."""

from __future__ import annotations

import json
import random
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fingerprint_cases
import pytest
from option_models import embedder, fp8
from own_layout import own_layout
from quantized_files import llama as nf4_llama
from small_models import DATA, draft, read_safetensors
from torch_files import checkpoint as torch_checkpoint

import streamconv
from packing.conftest import files_of
from streamconv.cli import main
from streamconv.conversion.running import open_runnable
from streamconv.errors import UsageError
from streamconv.evaluation.walk import held_bytes, require_ram
from streamconv.forward import least_ram

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import toys

SLOW = pytest.mark.slow
SMALL = DATA / "checkpoints" / "mistral-spm" / "hf"


class Case(NamedTuple):
    """What is made, which of it is packed, and what is done with it.

    Attributes
    ----------
    make : writes the models into a folder
    packed : their names
    commands : run there; what they write is in ``out``
    """

    make: Callable[[Path], object]
    packed: str
    commands: tuple[str, ...]


def small(root: Path) -> None:
    """A model, a text for it, and an older output."""
    shutil.copytree(SMALL, root / "m", copy_function=shutil.copyfile)
    rng = random.Random(1)
    words = ["model", "matters", "the", "of", "a column", "layer", "much", "how"]
    (root / "text.txt").write_text(" ".join(rng.choice(words) for _ in range(300)))


def several(root: Path) -> None:
    """Models and a text, the second of two shards."""
    small(root)
    fingerprint_cases._model(root / "b", fingerprint_cases._noisy(1))
    streamconv.convert(root / "b", root / "n", type="BF16", max_shard_bytes=60_000)
    shutil.rmtree(root / "b")
    (root / ".n.streamconv").unlink()


def recipes(root: Path) -> None:
    """What can be merged, and how."""
    for seed, name in enumerate("abc"):
        fingerprint_cases._model(root / name, fingerprint_cases._noisy(seed))
    models = "models: [{model: b, parameters: {weight: 0.5, density: 0.4}}, {model: c, parameters: {weight: 0.7, density: 0.6}}]\n"
    (root / "ties.yml").write_text(f"merge_method: ties\nbase_model: a\n{models}dtype: bfloat16\n")
    (root / "dare.yml").write_text(f"merge_method: dare_ties\nbase_model: a\n{models}dtype: bfloat16\n")
    (root / "slerp.yml").write_text(
        "merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: 0.4}\ntokenizer: {source: union}\n"
    )
    (root / "moe.yml").write_text(
        "base_model: a\ngate_mode: random\ndtype: bfloat16\nexperts_per_token: 1\n"
        "experts: [{source_model: b}, {source_model: c}]\n"
    )


def adapters(root: Path) -> None:
    """A base that is quantized, one that is not, and adapters of them."""
    fingerprint_cases.adapter_gguf(root)
    (root / "recipe.yml").write_text("merge_method: passthrough\nmodels: [{model: q+d}]\n")
    streamconv.convert(root / "d", root / "d.gguf", base=str(root / "q"), type="f16")
    (root / ".d.gguf.streamconv").unlink()


def gguf(root: Path) -> None:
    """A file, and one in shards."""
    small(root)
    streamconv.convert(root / "m", root / "x.gguf", type="F16", model_name="x")
    streamconv.convert(root / "m", root / "y.gguf", type="Q8_0", model_name="x", split_max_tensors=9)
    shutil.rmtree(root / "m")
    for record in root.glob(".*.streamconv"):
        record.unlink()


def torch(root: Path) -> None:
    small(root)
    weights = root / "m" / "model.safetensors"
    (root / "m" / "pytorch_model.bin").write_bytes(torch_checkpoint(read_safetensors(weights)))
    weights.unlink()


def nf4(root: Path) -> None:
    nf4_llama(root / "m")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (root / "m" / name).write_bytes((DATA / "tokenizers" / "gemma1" / name).read_bytes())


def drafts(root: Path) -> None:
    small(root)
    config = json.loads((root / "m" / "config.json").read_text())
    (root / "m" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 12}))
    draft(root / "d")


def stacked(root: Path) -> None:
    """Experts of which two tensors of an output are the columns of one."""
    toys.written(root / "m", toys.stored()["qwen3vlmoe"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / "checkpoints" / "qwen3-tied" / "hf" / name, root / "m" / name)


HOW = "--text text.txt -c 32 --chunks 6"
MATRIX = f"imatrix m out/i.gguf {HOW} --process-output"
CASES: dict[str, Case] = {
    "convert": Case(small, "m", (
        "convert m out/x.gguf --type Q4_K_M --manifest --report out/r.jsonl", "verify out/x.gguf",
        "convert m out/y.gguf --type Q8_0 --tensor-type ffn_up=F16 --reuse out/x.gguf --manifest",
        "convert m/model.safetensors out/z --type f16",
    )),
    "plan": Case(small, "m", ("plan m out/x.gguf --type Q4_K_M --json", "convert m out/x.gguf --dry-run --json")),
    "inspect": Case(small, "m", ("inspect m --json", "inspect m/model.safetensors --json")),
    "several outputs": Case(several, "m n", (
        "convert m out/x-{type}.gguf --type Q8_0,Q4_K_M,IQ3_S", "convert n out/n --max-shard-size 50KB",
        "convert n/model.safetensors.index.json out/i", "convert n out/n.gguf --split-max-tensors 5",
    )),
    "model and projector": Case(lambda root: fingerprint_cases.projector(root), "m", ("convert m out/x.gguf --mmproj",)),
    "speech": Case(
        lambda root: toys.written(root / "m", toys.stored(toys.PROJECTORS)["qwen3tts"]), "m",
        ("convert m out/x.gguf --mmproj --type f32",),
    ),
    "stacked experts": Case(stacked, "m", ("convert m out/x.gguf --type Q8_0 --pre qwen2",)),
    "Mistral's layout": Case(lambda root: own_layout(root / "m"), "m", ("convert m out/x.gguf --mistral-format --type f32",)),
    "gemma.cpp": Case(
        lambda root: shutil.copytree(DATA / "checkpoints" / "gemma3-text" / "hf", root / "m", copy_function=shutil.copyfile),
        "m", ("convert m out/x.sbs --type sfp --sbs-model gemma3-1b",),
    ),
    "merge": Case(recipes, "a b c", (
        "merge ties.yml out/t.gguf --type Q8_0", "merge dare.yml out/d --seed 3", "merge slerp.yml out/s",
        "merge moe.yml out/m", "plan ties.yml out/p --json",
    )),
    "merge of packed and plain": Case(recipes, "b", ("merge ties.yml out/t", "merge moe.yml out/m.gguf --type F16")),
    "extract-lora": Case(several, "m n", (
        "extract-lora m n out/a --rank 4", "extract-lora m n out/b --rank 4 --dry-run --json",
    )),
    "adapters": Case(adapters, "q a d d.gguf", (
        "merge recipe.yml out/x.gguf --type f16", "convert d out/d.gguf --base q",
        "convert a out/l.gguf --lora d.gguf:0.5 --type f16", "convert a out/m.gguf --lora d --type f16",
    )),
    "imatrix": Case(small, "m", (f"{MATRIX} --show-statistics", "convert m out/x.gguf --type IQ3_S --imatrix out/i.gguf")),
    "perplexity": Case(small, "m", (f"perplexity m {HOW} --json",)),
    "compare": Case(gguf, "x.gguf y-00001-of-00003.gguf", (f"compare x.gguf y-00001-of-00003.gguf {HOW} --json",)),
    "mix": Case(small, "m", (
        f"mix m out/l.txt --size 125000 {HOW} --no-check", f"convert m out/x.gguf --bpw 6.5 {HOW.split(' -c')[0]} --no-check",
    )),
    "cluster": Case(several, "m n", (
        "convert m out/x.gguf --type Q4_K_M --cluster local:2", "convert n out/n --cluster local:2",
    )),
    "torch": Case(torch, "m", ("convert m out/x.gguf --type Q8_0", "convert m out/x", "inspect m --json")),
    "nf4": Case(nf4, "m", ("convert m out/x.gguf --type Q8_0", "convert m out/x --type BF16")),
    "GPTQ": Case(lambda root: fingerprint_cases.gptq(root / "m"), "m", ("convert m out/x.gguf --type Q8_0", "convert m out/x")),
    "FP8": Case(lambda root: fp8(root / "m"), "m", ("convert m out/x.gguf --type BF16 --fp8-as-q8", "convert m out/x")),
    "GGUF": Case(gguf, "x.gguf y-00001-of-00003.gguf", (
        "convert x.gguf out/x.gguf --type Q4_0 --prune-layers 1", "convert x.gguf out/c.gguf --copy",
        "convert y-00001-of-00003.gguf out/y.gguf --type Q4_0 --allow-requantize --keep-split",
        "check x.gguf --json", "inspect y-00001-of-00003.gguf --json", f"imatrix x.gguf out/i.dat {HOW}",
        "hash x.gguf", "hash y-00002-of-00003.gguf --all", "split x.gguf out/s --split-max-tensors 7",
        "join y-00001-of-00003.gguf out/j.gguf",
        "edit x.gguf out/e.gguf --general-name other", "edit y-00001-of-00003.gguf out/f.gguf --general-name other",
    )),
    "dense modules": Case(lambda root: embedder(root / "m"), "m", (
        "convert m out/x.gguf --sentence-transformers-dense-modules --type f16", "convert m out/x",
    )),
    "a draft": Case(drafts, "m d", ("convert d out/x.gguf --target-model m --type f16",)),
}  # fmt: skip
QUICK = ("inspect", "perplexity")


def packed_in_place(root: Path, name: str) -> None:
    """Put the packed form of a model in its place, which can be unpacked to what it was."""
    place, packed, again = root / name, root / "packed", root / "again"
    for command in (("pack", place, packed), ("verify", packed), ("unpack", packed, again)):
        assert main([*map(str, command), "--quiet"]) == 0
    if place.is_dir():
        assert files_of(again) == files_of(place)
        shutil.rmtree(place)
        packed.rename(place)
    else:
        for path in packed.glob("*.scpack"):
            assert (again / path.stem).read_bytes() == (root / path.stem).read_bytes()
            (root / path.stem).unlink()
            path.rename(root / path.name)
        packed.rmdir()
    shutil.rmtree(again)
    for record in root.glob(".*.streamconv"):
        record.unlink()


def results(root: Path, case: Case, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the commands write and print."""
    (root / "out").mkdir()
    found: dict[str, Any] = {}
    for command in case.commands:
        capfd.readouterr()
        words = shlex.split(command)
        assert main([*words, *([] if "--json" in words or words[0] == "hash" else ["--quiet"])]) == 0, (
            command,
            capfd.readouterr().err,
        )
        found[command] = told(capfd.readouterr().out)
    written = (p for p in sorted((root / "out").rglob("*")) if p.is_file() and not p.name.endswith(".streamconv"))
    return found | {p.relative_to(root).as_posix(): p.read_bytes() for p in written}


def told(text: str) -> Any:
    """What was printed, without what a packed file has otherwise: its name and size, and how long it took."""
    try:
        said = json.loads(text)
    except json.JSONDecodeError:
        return text
    if isinstance(said, dict):
        for key in ("input_bytes", "disk_bytes", "files", "path", "seconds", "ram_bytes", "packed"):
            said.pop(key, None)
        said["tensors"] = [{**t, "file": ""} for t in said.get("tensors", [])]
    return said


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else SLOW) for name in CASES])
def test_what_it_writes_and_prints_is_that_of_the_plain_model(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    case, plain, packed = CASES[name], tmp_path / "plain", tmp_path / "packed"
    plain.mkdir()
    case.make(plain)
    shutil.copytree(plain, packed)
    for each in case.packed.split():
        packed_in_place(packed, each)
    assert list(packed.rglob("*.scpack"))
    found = {}
    for root in (plain, packed):
        monkeypatch.chdir(root)
        found[root] = results(root, case, capfd)
    assert found[packed].keys() == found[plain].keys()
    for key, value in found[plain].items():
        assert found[packed][key] == value, key


def test_python_reads_it_too(tmp_path: Path) -> None:
    small(tmp_path)
    before = streamconv.logits(tmp_path / "m", [3, 100, 200])
    rows = {
        name: each.read(0, 2).tolist() for name, each in streamconv.open(tmp_path / "m").items() if len(each.shape) == 2
    }
    packed_in_place(tmp_path, "m")
    assert (streamconv.logits(tmp_path / "m", [3, 100, 200]) == before).all()
    packed = streamconv.open(tmp_path / "m")
    assert {name: packed[name].read(0, 2).tolist() for name in rows} == rows


def test_a_packed_file_is_not_edited_in_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gguf(tmp_path)
    packed_in_place(tmp_path, "x.gguf")
    data = (tmp_path / "x.gguf.scpack").read_bytes()
    assert main(["edit", str(tmp_path / "x.gguf"), "--in-place", "--general-name", "other"]) == 64
    assert "x.gguf.scpack is compressed" in capfd.readouterr().err
    assert (tmp_path / "x.gguf.scpack").read_bytes() == data


def test_what_packed_files_take_of_the_memory_is_not_there_for_arrays(tmp_path: Path) -> None:
    small(tmp_path)
    assert held_bytes(open_runnable(tmp_path / "m")[0]) == 0
    packed_in_place(tmp_path, "m")
    model, _ = open_runnable(tmp_path / "m")
    held, least = held_bytes(model), least_ram(model, 32)
    assert held > 100_000
    require_ram(model, 32, least + held)
    with pytest.raises(UsageError, match="is too little"):
        require_ram(model, 32, least + held - 1)
