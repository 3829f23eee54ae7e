"""--evict gives space back as a conversion goes on, whatever the rows of the model are made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from gemma_toys import blobs
from hub_cases import MODEL, WEIGHTS, tensor_bytes
from running import Run
from server import Hub
from small_models import Tensors, read_safetensors, write_safetensors

from streamconv.conversion import execution
from streamconv.conversion.chunk_inputs import ChunkInputs
from streamconv.engine import files


def gptq(tensors: Tensors) -> Tensors:
    """Every matrix of a layer with four bits in groups of 32: random codes."""
    rng = np.random.default_rng(0)
    found: Tensors = {}
    for name, (dtype, words) in tensors.items():
        if "layers" not in name or words.ndim < 2:
            found[name] = dtype, words
            continue
        n_out, n_in = words.shape
        module = name.removesuffix(".weight")
        found[f"{module}.qweight"] = "I32", rng.integers(-(2**31), 2**31, (n_in // 8, n_out)).astype(np.int32)
        found[f"{module}.qzeros"] = "I32", rng.integers(-(2**31), 2**31, (n_in // 32, n_out // 8)).astype(np.int32)
        found[f"{module}.scales"] = "F16", np.full((n_in // 32, n_out), 0.01, np.float16)
    return found


def noisy(tensors: Tensors) -> Tensors:
    """The same model with a word in a hundred changed."""
    rng = np.random.default_rng(1)
    return {
        n: (dtype, np.where(rng.random(w.shape) < 0.01, w ^ 8, w).astype(w.dtype)) for n, (dtype, w) in tensors.items()
    }


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many chunks were committed whenever bytes were given back."""
    committed, found = 0, []
    commit, punch = ChunkInputs.committed, files.punch

    def count(self: ChunkInputs, chunks: object) -> None:
        nonlocal committed
        several = list(chunks)  # type: ignore[call-overload]
        committed += len(several)
        commit(self, several)

    def note(*where: object) -> object:
        found.append(committed)
        return punch(*where)  # type: ignore[arg-type]

    monkeypatch.setattr(execution, "_EVICT_WINDOW", 128 << 10)
    monkeypatch.setattr(ChunkInputs, "committed", count)
    monkeypatch.setattr(files, "punch", note)
    return found


@pytest.mark.parametrize("kind", ["plain", "gptq"])
def test_what_was_converted_goes_while_the_rest_is_converted(
    kind: str, hub: Hub, here: Run, tiny_model: Path, tmp_path: Path, releases: list[int]
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    tensors = read_safetensors(tiny_model / WEIGHTS)
    if kind == "gptq":
        write_safetensors(folder / WEIGHTS, gptq(tensors))
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
        (folder / "config.json").write_text(json.dumps(config))
    hub.add("org/other", folder)
    command = ["--type", "q8_0", "--evict", "--chunk-size", "64KiB", "--threads", "1", "--ram", "8MiB"]
    done = here("convert", "org/other", tmp_path / "x.gguf", *command)
    assert done.code == 0, done.err
    n_chunks = json.loads(here("plan", "org/other", tmp_path / "y.gguf", *command, "--json").out)["chunks"]
    assert releases, "nothing was given back"
    assert releases[len(releases) // 4] < n_chunks / 2, (releases, n_chunks)


def test_a_merge_that_looks_at_whole_tensors_asks_for_no_byte_twice(
    hub: Hub, here: Run, tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    write_safetensors(folder / WEIGHTS, noisy(read_safetensors(tiny_model / WEIGHTS)))
    hub.add("org/other", folder)
    text = "merge_method: ties\nbase_model: {}\nmodels: [{{model: {}, parameters: {{weight: 1, density: 0.5}}}}]\n"
    for name, models in {"hub": (MODEL, "org/other"), "disk": (tiny_model, folder)}.items():
        (tmp_path / f"{name}.yml").write_text(text.format(*models))
    command = ["--type", "q8_0", "--chunk-size", "64KiB", "--ram", "16MiB"]
    done = here("convert", tmp_path / "hub.yml", tmp_path / "hub.gguf", *command, "--evict")
    assert done.code == 0, done.err
    assert here("convert", tmp_path / "disk.yml", tmp_path / "disk.gguf", *command).code == 0
    assert tensor_bytes(tmp_path / "hub.gguf") == tensor_bytes(tmp_path / "disk.gguf")
    sizes = [(path / WEIGHTS).stat().st_size for path in (tiny_model, folder)]
    assert hub.bytes_served(WEIGHTS) == sum(sizes)


@pytest.mark.slow
def test_a_weight_file_of_gemma_cpp_looks_at_each_tensor_before_its_bytes_go(
    here: Run, hub: Hub, tiny_model: Path, tmp_path: Path, releases: list[int]
) -> None:
    options = ("--type", "sfp", "--sbs-model", "gemma3-1b")
    done = here("convert", MODEL, tmp_path / "x.sbs", *options, "--evict")
    assert done.code == 0, done.err
    assert len(set(releases)) > 1
    assert here("convert", tiny_model, tmp_path / "y.sbs", *options).code == 0
    found, whole = (blobs(tmp_path / name) for name in ("x.sbs", "y.sbs"))
    assert {**found, "streamconv": b""} == {**whole, "streamconv": b""}
    assert len(found["tokenizer"]) > 11
    assert hub.bytes_served(WEIGHTS) == (tiny_model / WEIGHTS).stat().st_size
