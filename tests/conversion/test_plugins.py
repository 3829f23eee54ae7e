"""Other packages add families, formats, methods and targets: a package on ``sys.path`` with entry points is all it takes."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf_reader
import numpy as np
import pytest
from small_models import Tensors, changed, read_safetensors, write_safetensors

import streamconv
from streamconv import conversion
from streamconv.conversion import TARGETS
from streamconv.dequant import formats
from streamconv.errors import BadInput, UsageError
from streamconv.merging.extraction import Extraction, ModuleChoice
from streamconv.merging.methods import METHODS
from streamconv.models import FAMILIES, PROJECTORS

FAMILY = """
from dataclasses import replace
from streamconv.models.families.llama import FAMILY as LLAMA
FAMILY = replace(LLAMA, architectures=("AcmeForCausalLM",), arch="llama")
"""
METHOD = """
from streamconv.merging.method import Local, Method
class First(Local):
    def merge(self, x, start, statistic, out):
        out[...] = x[0] * 2
METHOD = Method(name="acme_twice", title="Twice", source="here", parameters=(), bind=lambda task: First(), base="ordinary")
"""
FORMAT = """
from streamconv.dequant.decoded_rows import DecodedRows
from streamconv.dequant.format import Format
class Doubled(DecodedRows):
    def _fill(self, start, stop, out):
        out[...] = 2 * self.plain.read(start, stop)
    def __init__(self, name, plain, raw):
        super().__init__(name, plain.shape, "F32", "doubled", [raw])
        self.plain = plain
def find(store):
    for name in [n for n in store.tensors if n.endswith(".weight")]:
        store.put(name, Doubled(name, store.tensors[name], store.raw(name)))
FORMAT = Format(find, methods=("acme",))
"""
TARGET = """
import json
from streamconv.conversion import Chosen, Draft, Target
from streamconv.flags import Flag
from streamconv.quant.types import TYPES
from streamconv.targets.layout import FileLayout
LEVEL = Flag("--acme-level", "how much of it", "N", "acme_level", kind="integer", default=5)
def choose(checkpoint, options):
    tensors = [Chosen(n, rows, TYPES["F16"], "always") for n, rows in checkpoint.tensors.items()]
    return [Draft("F16", "acme", tensors, options.value(LEVEL))]
def lay_out(path, draft, options, job):
    head = f"ACME{draft.head}{job}".encode()
    at, places = len(head), []
    for number, tensor in enumerate(draft.tensors):
        n = 1
        for size in tensor.rows.shape:
            n *= size
        places.append((number, at))
        at += 2 * n
    return [FileLayout(path, head, at, places)]
def job_of(path):
    with open(path, "rb") as f:
        return f.read(69)[5:].decode()
TARGET = Target("acme", "an Acme file", choose, lay_out, job_of, flags=(LEVEL,), types=("auto", "F16"))
"""
_count = itertools.count()


def package(folder: Path, points: Mapping[str, str], name: str = "acme", version: str = "1.0", **modules: str) -> Path:
    """A folder with a distribution that names ``points``: group and name -> the object; ``modules`` are its files by name."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups: dict[str, list[str]] = {}
    for key, value in points.items():
        group, _, point = key.partition(" ")
        groups.setdefault(group, []).append(f"{point} = {value}")
    text = "".join(f"[streamconv.{group}]\n" + "\n".join(lines) + "\n\n" for group, lines in groups.items())
    (info / "entry_points.txt").write_text(text)
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    return folder


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A name that no module has; what is imported by it is forgotten afterwards."""
    name = f"acme_module_{next(_count)}"
    yield name
    sys.modules.pop(name, None)
    importlib.invalidate_caches()


@pytest.fixture
def small(data: Path) -> Path:
    return data / "checkpoints" / "mistral-spm" / "hf"


def renamed(small: Path, folder: Path, architecture: str = "AcmeForCausalLM") -> Path:
    return changed(small, folder, config=lambda c: c.update(architectures=[architecture]))


def test_a_family_of_another_package_converts(
    small: Path, tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = renamed(small, tmp_path / "hf")
    with pytest.raises(BadInput, match="'AcmeForCausalLM' is not supported"):
        streamconv.plan(source, tmp_path / "x.gguf")
    monkeypatch.syspath_prepend(
        package(tmp_path / "site", {"families AcmeForCausalLM": f"{module}:FAMILY"}, **{module: FAMILY})
    )
    streamconv.convert(source, tmp_path / "x.gguf", type="f16", threads=1)
    streamconv.convert(
        renamed(small, tmp_path / "llama", "LlamaForCausalLM"), tmp_path / "y.gguf", type="f16", threads=1
    )
    x, y = (gguf_reader.read(tmp_path / f"{name}.gguf") for name in "xy")
    assert x.tensors == y.tensors
    assert x.keys["general.architecture"][1] == "llama"


def test_a_target_of_another_package_converts_and_resumes_and_has_options(
    small: Path, tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"'\.acme' is not a known output format"):
        streamconv.plan(small, tmp_path / "x.acme")
    monkeypatch.syspath_prepend(package(tmp_path / "site", {"targets acme": f"{module}:TARGET"}, **{module: TARGET}))
    out = tmp_path / "x.acme"
    streamconv.convert(small, out, threads=1)
    made, words = out.read_bytes(), read_safetensors(small / "model.safetensors")
    assert made[:5] == b"ACME5"
    values = b"".join(
        (w.astype(np.uint32) << 16).view(np.float32).astype(np.float16).tobytes() for _, w in words.values()
    )
    assert made[69:] == values
    before = out.stat().st_ino
    streamconv.convert(small, out, threads=1)
    assert out.stat().st_ino == before, "it is already complete"
    streamconv.convert(small, out, threads=1, acme_level=7, update=True)
    assert out.read_bytes()[:5] == b"ACME7"
    with pytest.raises(UsageError, match="an Acme file cannot hold Q8_0"):
        streamconv.convert(small, out, type="q8_0")
    with pytest.raises(UsageError, match="--pure has no effect on an Acme file, only on a GGUF file"):
        streamconv.convert(small, out, pure=True)
    with pytest.raises(UsageError, match="--acme-level has no effect on a GGUF file, only on an Acme file"):
        streamconv.convert(small, tmp_path / "x.gguf", acme_level=7)


def command(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The program as somebody runs it who has the package in ``site``."""
    return subprocess.run(
        [sys.executable, "-m", "streamconv", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(site), "COLUMNS": "100"}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_the_command_line_has_the_options_of_a_target_of_another_package(
    small: Path, tmp_path: Path, module: str
) -> None:
    site = package(tmp_path / "site", {"targets acme": f"{module}:TARGET"}, **{module: TARGET})
    done = command(site, "convert", small, tmp_path / "x.acme", "--acme-level", "3", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.acme").read_bytes()[:5] == b"ACME3"
    refused = command(site, "plan", "--acme-level", "3", small, tmp_path / "x.gguf")
    assert refused.returncode == 64
    assert "--acme-level has no effect on a GGUF file, only on an Acme file" in refused.stderr
    shown = command(site, "convert", "--help").stdout
    assert "--acme-level N" in shown
    assert "how much of it" in shown
    assert "--acme-level" not in command(site, "inspect", "--help").stdout
    mistyped = command(site, "convert", small, tmp_path / "x.acme", "--acme-levle", "3")
    assert (mistyped.returncode, "did you mean --acme-level?" in mistyped.stderr) == (64, True)


def test_a_method_of_another_package_merges(
    small: Path, tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "r.yml"
    recipe.write_text(f"merge_method: acme_twice\nmodels: [{{model: {small}}}]\ndtype: float32\n")
    with pytest.raises(BadInput, match="unknown merge_method 'acme_twice'"):
        streamconv.plan(recipe, tmp_path / "x")
    monkeypatch.syspath_prepend(
        package(tmp_path / "site", {"methods acme_twice": f"{module}:METHOD"}, **{module: METHOD})
    )
    streamconv.convert(recipe, tmp_path / "x", threads=1)
    before, after = streamconv.open(small), streamconv.open(tmp_path / "x")
    name = "model.layers.0.mlp.up_proj.weight"
    assert np.array_equal(2 * before[name].read(0, 8), after[name].read(0, 8))


def test_a_stored_encoding_of_another_package_is_decoded(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors: Tensors = {"a.weight": ("F32", np.arange(8, dtype=np.float32).reshape(2, 4))}
    path = tmp_path / "x.safetensors"
    write_safetensors(path, tensors)
    with pytest.raises(BadInput, match="stored as 'acme', which cannot be decoded"):
        streamconv.open(path, {"quant_method": "acme"})
    monkeypatch.syspath_prepend(package(tmp_path / "site", {"formats acme": f"{module}:FORMAT"}, **{module: FORMAT}))
    assert streamconv.open(path, {"quant_method": "acme"})["a.weight"].read(1, 2).tolist() == [[8, 10, 12, 14]]
    assert streamconv.open(path)["a.weight"].read(1, 2).tolist() == [[4, 5, 6, 7]], "only where it is named"


def test_what_another_package_has_a_part_in_is_another_job_with_another_version(
    small: Path, tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, prints = renamed(small, tmp_path / "hf"), []
    point = {"families AcmeForCausalLM": f"{module}:FAMILY"}
    for version in ("1.0", "1.1", "1.0"):
        with monkeypatch.context() as m:
            m.syspath_prepend(package(tmp_path / f"site{len(prints)}", point, version=version, **{module: FAMILY}))
            prints.append(streamconv.plan(source, tmp_path / "x.gguf")["fingerprint"])
    assert prints[0] == prints[2] != prints[1]


def test_the_version_of_a_decoder_decides_an_adapter_too(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
    for name in "ab":
        (tmp_path / name).mkdir()
        tensors: Tensors = {
            "model.layers.0.self_attn.q_proj.weight": ("F32", weight + (name == "b") * np.eye(8, dtype=np.float32))
        }
        write_safetensors(tmp_path / name / "model.safetensors", tensors)
        config = {
            "architectures": ["LlamaForCausalLM"],
            "num_hidden_layers": 1,
            "quantization_config": {"quant_method": "acme"},
        }
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    prints = []
    for version in ("1.0", "1.1"):
        with monkeypatch.context() as m:
            m.syspath_prepend(
                package(tmp_path / version, {"formats acme": f"{module}:FORMAT"}, version=version, **{module: FORMAT})
            )
            prepared = conversion.prepare_adapter(
                tmp_path / "a",
                tmp_path / "b",
                tmp_path / "x",
                Extraction(ModuleChoice(2)),
                conversion.Options(threads=1),
            )
            prints.append(prepared.plan.fingerprint)
    assert prints[0] != prints[1]


def test_what_another_package_only_offers_changes_no_job(
    small: Path, tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = streamconv.plan(small, tmp_path / "x.gguf")
    points = {
        "families AcmeForCausalLM": f"{module}:FAMILY", "methods acme_twice": f"{module}:METHOD", "formats acme": f"{module}:F",
        "targets acme": f"{module}:TARGET", "projectors AcmeForCausalLM": f"{module}:P",
    }  # fmt: skip
    monkeypatch.syspath_prepend(package(tmp_path / "site", points, **{module: "raise ValueError('never run')"}))
    assert streamconv.plan(small, tmp_path / "x.gguf") == before
    assert module not in sys.modules
    recipe = tmp_path / "r.yml"
    recipe.write_text(f"merge_method: linear\nmodels: [{{model: {small}, parameters: {{weight: 1}}}}]\n")
    streamconv.plan(recipe, tmp_path / "x")
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("point", "asked"),
    [
        ("families LlamaForCausalLM", lambda: FAMILIES["LlamaForCausalLM"]),
        ("projectors Gemma3ForConditionalGeneration", lambda: PROJECTORS["Gemma3ForConditionalGeneration"]),
        ("methods ties", lambda: METHODS["ties"]),
        ("formats gptq", lambda: formats.formats_for("gptq")),
        ("targets gguf", lambda: TARGETS["gguf"]),
    ],
)
def test_a_name_of_ours_is_refused_naming_both(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch, point: str, asked: object
) -> None:
    assert callable(asked)
    asked()
    monkeypatch.syspath_prepend(package(tmp_path / "site", {point: f"{module}:X"}, "acme-zoo", "2.5"))
    with pytest.raises(UsageError) as caught:
        asked()
    assert "of streamconv and" in caught.value.message
    assert f"{module}:X of the package acme-zoo 2.5" in caught.value.message
    assert point.partition(" ")[2] in caught.value.message
    assert "Uninstall acme-zoo 2.5" in caught.value.hint
    assert module not in sys.modules


def test_a_collision_ends_a_conversion_with_64(small: Path, tmp_path: Path, module: str) -> None:
    site = package(tmp_path / "site", {"families MistralForCausalLM": f"{module}:FAMILY"}, **{module: FAMILY})
    done = command(site, "convert", small, tmp_path / "x.gguf", "--type", "f16")
    assert done.returncode == 64
    assert "streamconv.models.families.mistral of streamconv and" in done.stderr
    assert not (tmp_path / "x.gguf").exists()


def test_two_packages_with_one_name_are_refused_naming_both(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("acme", "bcme"):
        point = {"families AcmeForCausalLM": f"{module}:FAMILY"}
        monkeypatch.syspath_prepend(package(tmp_path / name, point, name, "3", **{module: FAMILY}))
    with pytest.raises(UsageError, match=r"acme 3.*bcme 3|bcme 3.*acme 3"):
        FAMILIES["AcmeForCausalLM"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise ValueError('no luck')", "ValueError: no luck"),
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("def (", "SyntaxError"),
        ("X = 1", "has no attribute 'FAMILY'"),
        ("FAMILY = 'a family'", "which is not a Family"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named_when_it_is_needed_and_not_before(
    small: Path, tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch, source: str, why: str
) -> None:
    points = {"families AcmeForCausalLM": f"{module}:FAMILY", "targets acme": f"{module}:TARGET"}
    monkeypatch.syspath_prepend(package(tmp_path / "site", points, "acme-zoo", "0.1", **{module: source}))
    streamconv.plan(small, tmp_path / "x.gguf")
    with pytest.raises(BadInput, match="Did you mean AcmeForCausalLM"):
        streamconv.plan(renamed(small, tmp_path / "other", "AcmeForCausaILM"), tmp_path / "x.gguf")
    assert module not in sys.modules
    with pytest.raises(UsageError) as caught:
        streamconv.plan(renamed(small, tmp_path / "hf"), tmp_path / "x.gguf")
    assert "acme-zoo 0.1" in caught.value.message
    assert why in caught.value.message
    assert "Update or uninstall acme-zoo 0.1." in caught.value.hint
    with pytest.raises(UsageError, match=r"acme-zoo 0\.1"):
        streamconv.plan(small, tmp_path / "x.acme")


def test_a_mistyped_option_is_told_as_such_whatever_packages_cannot_be_imported(tmp_path: Path, module: str) -> None:
    site = package(tmp_path / "site", {"targets acme": f"{module}:TARGET"}, **{module: "raise ValueError"})
    done = command(site, "convert", "a", "b.gguf", "--tpye", "f16")
    assert (done.returncode, "did you mean --type?" in done.stderr) == (64, True)
    assert command(site, "convert", "--help").returncode == 0


def test_of_targets_that_fit_one_name_the_one_with_the_type_is_taken(
    small: Path, tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = TARGET.replace('Target("acme"', 'Target("folder.acme"').replace('types=("auto", "F16")', 'types=("ACME",)')
    code = code.replace("FileLayout(path,", 'FileLayout(path / "weights.acme",')
    monkeypatch.syspath_prepend(
        package(tmp_path / "site", {"targets folder.acme": f"{module}:TARGET"}, **{module: code})
    )
    prepared = conversion.prepare(small, tmp_path / "x", conversion.Options(type="acme"))
    assert [f.path.name for f in prepared.plan.files] == ["weights.acme"]
    assert (tmp_path / "x") == prepared.plan.folder
    assert len(conversion.prepare(small, tmp_path / "x", conversion.Options()).plan.files) > 1
    with pytest.raises(UsageError, match="a safetensors folder cannot hold NOTHING") as caught:
        conversion.prepare(small, tmp_path / "x", conversion.Options(type="nothing"))
    assert "ACME" in caught.value.hint


def test_packages_are_looked_for_again_when_a_folder_changes(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    assert "AcmeForCausalLM" not in FAMILIES
    package(site, {"families AcmeForCausalLM": f"{module}:FAMILY"}, **{module: FAMILY})
    os.utime(site, ns=(1, 1))  # whatever the resolution of times is
    importlib.invalidate_caches()
    assert FAMILIES["AcmeForCausalLM"].arch == "llama"


def test_names_of_other_packages_are_listed_without_importing_them(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = list(METHODS)
    monkeypatch.syspath_prepend(package(tmp_path / "site", {"methods acme_twice": f"{module}:METHOD"}))
    assert list(METHODS) == sorted([*ours, "acme_twice"])
    assert [m.name for m in METHODS.there()] == ours
    assert json.dumps(ours)
