"""Models of the hub as sources: what is asked for, what is kept, what is never asked for again."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch_files
from hub_cases import MODEL, WEIGHTS, in_hf_cache, tensor_bytes
from running import Run
from server import Ask, Cut, Fault, Hub, Slow
from small_models import draft, read_safetensors, write_safetensors

Start = Callable[..., subprocess.Popen[str]]


def assert_nothing_twice(hub: Hub, path: str = WEIGHTS) -> None:
    """No byte of ``path`` was sent more than once."""
    at = 0
    for start, stop in sorted(hub.served.get(path, [])):
        assert start >= at, f"bytes {start}..{min(at, stop)} of {path} were sent again"
        at = max(at, stop)


def sizes(hub: Hub) -> dict[str, int]:
    (commit,) = hub.models[MODEL].values()
    return {name: stored.size for name, stored in commit.items()}


def test_a_model_converts_as_its_folder_does_and_each_byte_comes_once(
    hub: Hub, here: Run, tmp_path: Path, expected: bytes
) -> None:
    done = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert hub.bytes_served(WEIGHTS) == sizes(hub)[WEIGHTS]
    assert_nothing_twice(hub)
    assert not hub.tokens


def test_names_in_the_output_come_from_the_model_not_from_the_cache(
    here: Run, tiny_model: Path, tmp_path: Path
) -> None:
    here("convert", MODEL, tmp_path / "hub.gguf", "--type", "q8_0")
    here("convert", tiny_model, tmp_path / "folder.gguf", "--type", "q8_0")
    listed = [json.loads(here("inspect", tmp_path / name, "--json").out) for name in ("hub.gguf", "folder.gguf")]
    for facts in listed:
        facts["metadata"].pop("streamconv.job", None)
    assert listed[0]["metadata"] == listed[1]["metadata"]


def test_a_second_run_asks_nobody(hub: Hub, here: Run, tmp_path: Path) -> None:
    here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    hub.forget()
    again = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    assert again.code == 0
    assert "already complete" in again.out
    other = here("convert", MODEL, tmp_path / "y.gguf", "--type", "q4_0")
    assert other.code == 0
    assert hub.requests == []


def test_a_fetched_model_needs_no_network(hub: Hub, here: Run, tmp_path: Path, expected: bytes) -> None:
    first = here("fetch", MODEL)
    assert first.code == 0, first.err
    assert sizes(hub)[WEIGHTS] == hub.bytes_served(WEIGHTS)
    hub.forget()
    assert "nothing to do" in here("fetch", MODEL).out
    assert here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--offline").code == 0
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert hub.requests == []


def test_of_the_model_that_a_draft_helps_no_weights_are_fetched(
    hub: Hub, here: Run, tiny_model: Path, tmp_path: Path
) -> None:
    size = json.loads((tiny_model / "config.json").read_text())["vocab_size"]
    source = draft(tmp_path / "draft", vocab_size=size, target_hidden_size=64)
    done = here("convert", source, tmp_path / "x.gguf", "--type", "f16", "--target-model-dir", MODEL)
    assert done.code == 0, done.err
    assert hub.bytes_served(WEIGHTS) == 0
    found = json.loads(here("inspect", tmp_path / "x.gguf", "--json").out)["metadata"]
    here("convert", tiny_model, tmp_path / "target.gguf", "--vocab-only")
    other = json.loads(here("inspect", tmp_path / "target.gguf", "--json").out)["metadata"]
    assert found["tokenizer.ggml.tokens"] == other["tokenizer.ggml.tokens"]
    hub.forget()
    again = here("convert", source, tmp_path / "y.gguf", "--type", "f16", "--target-model-dir", MODEL)
    assert again.code == 0
    assert hub.requests == []


def test_the_files_of_a_fetched_model_lie_under_their_names(here: Run, tiny_model: Path) -> None:
    facts = json.loads(here("fetch", MODEL, "--json").out.splitlines()[-1])
    folder = Path(facts["folder"])
    assert folder.name == "tiny-gemma3"
    assert {p.name for p in folder.iterdir()} == {p.name for p in tiny_model.iterdir() if p.suffix != ".txt"} - {
        p.name for p in tiny_model.iterdir() if p.is_dir()
    }
    for path in folder.iterdir():
        assert path.read_bytes() == (tiny_model / path.name).read_bytes()


def test_evict_gives_everything_back_and_asks_nothing_twice(
    hub: Hub, here: Run, tmp_path: Path, expected: bytes, cache: Path
) -> None:
    command = ["convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--evict", "--chunk-size", "256KiB"]
    done = here(*command)
    assert done.code == 0, done.err
    assert "as a whole" not in done.err, "chunks are made as the file comes, so its digest is checked"
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert hub.bytes_served(WEIGHTS) == sizes(hub)[WEIGHTS]
    assert_nothing_twice(hub)
    (part,) = cache.rglob("*.part")
    assert part.stat().st_blocks * 512 < 1 << 20  # the head is kept, so that a second run asks nobody
    hub.forget()
    assert "already complete" in here(*command).out
    assert hub.requests == []


def test_evict_never_holds_much_more_than_it_reads_ahead(here: Run, tmp_path: Path, cache: Path) -> None:
    peak, over = 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not over.wait(0.001):
            with suppress(FileNotFoundError):  # one became whole between listing and asking
                peak = max([peak, *(p.stat().st_blocks * 512 for p in cache.glob("*/blobs/*.part"))])

    watcher = threading.Thread(target=look)
    watcher.start()
    done = here(
        "convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--evict", "--chunk-size", "64KiB", "--ram", "8MiB"
    )  # fmt: skip
    over.set()
    watcher.join()
    assert done.code == 0, done.err
    assert peak < 10 << 20


def test_the_plan_states_what_keeping_and_evicting_take(here: Run, hub: Hub, tmp_path: Path) -> None:
    facts = json.loads(here("plan", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--json").out)["fetch"]
    (commit,) = hub.models[MODEL]
    assert facts["models"] == [f"{MODEL}@{commit}"]
    assert facts["missing_bytes"] == facts["disk_bytes_keep"] == sizes(hub)[WEIGHTS] - (64 << 10)
    assert hub.bytes_served(WEIGHTS) == 64 << 10, "planning reads heads only"
    assert "--evict" in here("plan", MODEL, tmp_path / "x.gguf", "--type", "q8_0").out


def test_what_cannot_fit_is_refused_up_front_with_the_flag_that_would(
    here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamconv.conversion import disk_space
    from streamconv.engine import files

    monkeypatch.setattr(disk_space, "_OPEN_BYTES", 0)
    monkeypatch.setattr(files, "free_bytes", lambda folder: 78 << 20)
    refused = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    assert refused.code == 74
    assert "are needed" in refused.err
    assert "--evict" in refused.err
    assert not (tmp_path / "x.gguf.streamconv").exists()
    assert here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--evict").code == 0


def test_a_resumed_job_stays_with_its_commit_when_the_branch_has_moved(
    hub: Hub, here: Run, tmp_path: Path, cache: Path, tiny_model: Path, expected: bytes
) -> None:
    hub.fault = lambda ask: Slow(2e6) if ask.path == WEIGHTS else None
    stopped = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--stop-after", "0.5s")
    assert stopped.code == 75, stopped.err
    hub.fault = lambda ask: None
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    (moved / "config.json").write_text((tiny_model / "config.json").read_text() + "\n")
    (first,) = hub.models[MODEL]
    second = hub.add(MODEL, moved)
    assert first != second
    for record in cache.rglob("refs/*.json"):  # the job itself remembers it
        record.unlink()
    assert here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0").code == 0
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert not any(second in request for request in hub.requests)
    fresh = json.loads(here("plan", MODEL, tmp_path / "y.gguf", "--json").out)["fetch"]["models"]
    assert fresh == [f"{MODEL}@{second}"]


def test_refresh_follows_the_branch(hub: Hub, here: Run, tmp_path: Path, tiny_model: Path) -> None:
    (first,) = hub.models[MODEL]
    here("fetch", MODEL)
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    (moved / "README.md").write_text("new")
    second = hub.add(MODEL, moved)
    assert first in here("fetch", MODEL).out
    hub.forget()
    assert second in here("fetch", MODEL, "--refresh").out
    assert hub.bytes_served(WEIGHTS) == 0, "commits share files"


def test_a_commit_and_a_branch_can_be_named(hub: Hub, here: Run, tiny_model: Path) -> None:
    commit = hub.add("org/other", tiny_model, "v1")
    assert commit in here("fetch", "org/other@v1").out
    assert here("fetch", f"org/other@{commit}").code == 0
    missing = here("fetch", "org/other@v2")
    assert missing.code == 66
    assert "no such revision" in missing.err


@pytest.mark.parametrize("words", [["fetch"], ["convert", "x.gguf"]])
def test_offline_says_what_is_not_here(here: Run, hub: Hub, tmp_path: Path, words: list[str]) -> None:
    command, *output = words
    refused = here(command, MODEL, *(tmp_path / name for name in output), "--offline")
    assert refused.code == 69
    assert "offline" in refused.err
    assert hub.requests == []


def test_offline_with_a_part_of_the_weights_names_the_file(hub: Hub, here: Run, tmp_path: Path) -> None:
    here("plan", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    hub.forget()
    refused = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--offline")
    assert refused.code == 69
    assert WEIGHTS in refused.err
    assert hub.requests == []


def test_huggingface_hubs_own_cache_is_used_and_not_written(
    hub: Hub, here: Run, tmp_path: Path, tiny_model: Path, expected: bytes
) -> None:
    cache = tmp_path / "hf" / "hub"
    in_hf_cache(hub, cache, tiny_model)
    before = sorted((str(p), p.lstat().st_mtime_ns) for p in cache.rglob("*"))
    assert here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--offline").code == 0
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert hub.requests == []
    assert sorted((str(p), p.lstat().st_mtime_ns) for p in cache.rglob("*")) == before


def test_one_gguf_file_of_a_model_is_requantized(hub: Hub, here: Run, tmp_path: Path, tiny_model: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    here("convert", tiny_model, store / "m-f16.gguf", "--type", "f16")
    hub.add("org/quants", store)
    refused = here("convert", "org/quants", tmp_path / "x.gguf", "--type", "q8_0")
    assert refused.code == 65
    assert "org/quants/m-f16.gguf" in refused.err
    assert here("convert", "org/quants/m-f16.gguf", tmp_path / "x.gguf", "--type", "q8_0").code == 0
    here("convert", store / "m-f16.gguf", tmp_path / "y.gguf", "--type", "q8_0")
    assert tensor_bytes(tmp_path / "x.gguf") == tensor_bytes(tmp_path / "y.gguf")


def test_recipes_name_models_of_the_hub(hub: Hub, here: Run, tmp_path: Path, tiny_model: Path) -> None:
    def recipe(name: str, first: object, second: object) -> Path:
        models = "".join(
            f"  - model: {m}\n    parameters: {{weight: {w}}}\n" for m, w in ((first, 0.25), (second, 0.75))
        )
        path = tmp_path / name
        path.write_text(f"merge_method: linear\ndtype: bfloat16\nmodels:\n{models}")
        return path

    recipe("a.yml", MODEL, f"{MODEL}@main")
    recipe("b.yml", tiny_model, shutil.copytree(tiny_model, tmp_path / "copy"))
    assert here("convert", tmp_path / "a.yml", tmp_path / "a.gguf", "--type", "q8_0").code == 0
    assert here("convert", tmp_path / "b.yml", tmp_path / "b.gguf", "--type", "q8_0").code == 0
    assert tensor_bytes(tmp_path / "a.gguf") == tensor_bytes(tmp_path / "b.gguf")
    assert_nothing_twice(hub)


def lora(folder: Path, tiny_model: Path) -> Path:
    """An adapter that changes the queries of the first layer of ``MODEL``."""
    weight = "model.layers.0.self_attn.q_proj.weight"
    n_out, n_in = read_safetensors(tiny_model / WEIGHTS)[weight][1].shape
    rng = np.random.default_rng(0)
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": MODEL}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    module = f"base_model.model.{weight.removesuffix('.weight')}"
    factors = {f"{module}.lora_A.weight": (2, n_in), f"{module}.lora_B.weight": (n_out, 2)}
    write_safetensors(
        folder / "adapter_model.safetensors",
        {name: ("F32", rng.standard_normal(shape).astype("<f4")) for name, shape in factors.items()},
    )
    return folder


def test_an_adapter_of_the_hub_becomes_a_gguf_file_beside_its_base_of_the_hub(
    hub: Hub, here: Run, tmp_path: Path, tiny_model: Path
) -> None:
    adapter = lora(tmp_path / "adapter", tiny_model)
    hub.add("org/lora", adapter)
    assert here("convert", adapter, tmp_path / "disk.gguf", "--base", tiny_model).code == 0
    done = here("convert", "org/lora", tmp_path / "hub.gguf")
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "hub.gguf") == tensor_bytes(tmp_path / "disk.gguf")
    assert hub.bytes_served(WEIGHTS) == 0, "the base is asked for what it says, not for its weights"
    assert here("convert", "org/lora", tmp_path / "named.gguf", "--base", MODEL).code == 0
    assert tensor_bytes(tmp_path / "named.gguf") == tensor_bytes(tmp_path / "disk.gguf")
    hub.forget()
    assert "nothing to do" in here("convert", "org/lora", tmp_path / "hub.gguf").out
    assert hub.requests == []


def test_recipes_name_adapters_of_the_hub(hub: Hub, here: Run, tmp_path: Path, tiny_model: Path) -> None:
    adapter = lora(tmp_path / "adapter", tiny_model)
    hub.add("org/lora", adapter)
    for name, reference in (("hub", f"{MODEL}+org/lora"), ("disk", f"{tiny_model}+{adapter}")):
        (tmp_path / f"{name}.yml").write_text(f"merge_method: passthrough\nmodels:\n  - model: {reference}\n")
        done = here("convert", tmp_path / f"{name}.yml", tmp_path / f"{name}.gguf", "--type", "q8_0")
        assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "hub.gguf") == tensor_bytes(tmp_path / "disk.gguf")
    hub.forget()
    assert "nothing to do" in here("convert", tmp_path / "hub.yml", tmp_path / "hub.gguf", "--type", "q8_0").out
    assert hub.requests == []


def test_a_model_in_torch_files_converts(
    hub: Hub, here: Run, tmp_path: Path, tiny_model: Path, expected: bytes
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "torch")
    (folder / "pytorch_model.bin").write_bytes(torch_files.checkpoint(read_safetensors(tiny_model / WEIGHTS)))
    (folder / WEIGHTS).unlink()
    hub.add("org/torch", folder)
    done = here("convert", "org/torch", tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected


def test_a_job_killed_while_it_fetches_asks_only_for_what_is_missing(
    hub: Hub, start: Start, run: Run, tmp_path: Path, expected: bytes, here: Run, cache: Path
) -> None:
    here("plan", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    hub.fault = lambda ask: Slow(4e6) if ask.path == WEIGHTS else None
    process = start("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    time.sleep(1.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.communicate()
    hub.fault = lambda ask: None
    hub.wait_until_quiet()
    hub.forget()
    done = run("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert_nothing_twice(hub)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_cuts_cost_at_most_a_range_each(hub: Hub, here: Run, tmp_path: Path, expected: bytes, seed: int) -> None:
    """200 random cuts over several downloads (20 in the quick run)."""
    rng, wanted, cuts = random.Random(seed), 20 if seed == 0 else 200, 0

    def cut(ask: Ask) -> Fault | None:
        nonlocal cuts
        if ask.path != WEIGHTS or ask.at_hub or ask.stop - ask.start < 4096 or rng.random() < 0.2:
            return None
        cuts += 1
        return Cut(rng.randrange(ask.stop - ask.start))

    hub.fault = cut
    round_ = 0
    while cuts < wanted:
        before, round_ = cuts, round_ + 1
        hub.forget()
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        out = tmp_path / f"{round_}.gguf"
        done = here("convert", MODEL, out, "--type", "q8_0")
        assert done.code == 0, done.err
        assert tensor_bytes(out) == expected
        assert hub.bytes_served(WEIGHTS) <= sizes(hub)[WEIGHTS] + (cuts - before) * (256 << 10)
        out.unlink()
