"""--keep-packed: what is fetched is kept at two thirds of its size, and read there by every later command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from faults.injector import Fault
from faults.injector import run as inject
from hub_cases import MODEL, WEIGHTS, tensor_bytes
from running import Run
from server import Hub

from streamconv.engine import files
from streamconv.engine.budget import RESERVE_BYTES


def kept(cache: Path) -> dict[str, int]:
    """The files of weights in the store, and their sizes."""
    blobs = cache / "org--tiny-gemma3" / "blobs"
    return {p.name: p.stat().st_size for p in blobs.iterdir() if p.stat().st_size > 1 << 20}


def test_a_conversion_keeps_the_packed_file_only_and_gives_the_same_bytes(
    hub: Hub, here: Run, cache: Path, tiny_model: Path, tmp_path: Path, expected: bytes
) -> None:
    done = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--keep-packed")
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    ((name, size),) = kept(cache).items()
    assert name.endswith(".scpack")
    assert size < 0.68 * (tiny_model / WEIGHTS).stat().st_size


def test_the_next_type_is_made_of_it_without_the_network(
    hub: Hub, here: Run, cache: Path, tmp_path: Path, expected: bytes
) -> None:
    assert here("fetch", MODEL, "--keep-packed").code == 0
    served = len(hub.requests)
    done = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--offline")
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert len(hub.requests) == served
    again = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--offline")
    assert "already complete" in again.out


def test_the_folder_that_fetch_prints_is_a_packed_model(hub: Hub, here: Run, tiny_model: Path, tmp_path: Path) -> None:
    found = json.loads(here("fetch", MODEL, "--keep-packed", "--json").out.splitlines()[-1])
    folder = Path(found["folder"])
    assert not (folder / WEIGHTS).is_symlink()
    assert (folder / f"{WEIGHTS}.scpack").exists()
    assert here("unpack", folder, tmp_path / "plain").code == 0
    assert (tmp_path / "plain" / WEIGHTS).read_bytes() == (tiny_model / WEIGHTS).read_bytes()


def test_the_plan_states_what_keeping_packed_takes_and_what_cannot_fit_is_refused(
    hub: Hub, here: Run, cache: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--keep-packed"]
    facts = json.loads(here("plan", *command, "--json").out)["fetch"]
    size, estimate = (tiny_model / WEIGHTS).stat().st_size, facts["disk_bytes_keep_packed"] - facts["missing_bytes"]
    assert "--keep-packed 1" in here("plan", *command).out
    with monkeypatch.context() as full:
        full.setattr(files, "free_bytes", lambda folder: RESERVE_BYTES + facts["disk_bytes_keep_packed"] - 1)
        refused = here("convert", *command)
        assert refused.code == 74
        assert "needed to fetch and pack" in refused.err
    assert hub.bytes_served(WEIGHTS) < 1 << 20, "heads only"
    assert here("fetch", MODEL, "--keep-packed").code == 0
    assert sum(kept(cache).values()) <= estimate < 0.68 * size
    facts = json.loads(here("plan", *command, "--json").out)
    assert facts["fetch"] is None or facts["fetch"]["disk_bytes_keep_packed"] == 0
    assert facts["packed"] == {"files": 1, "bytes": sum(kept(cache).values()), "content_bytes": size}
    assert "(1 packed file of " in here("plan", *command).out


def test_what_was_kept_plain_is_packed_in_its_place_and_nothing_is_fetched_again(
    hub: Hub, here: Run, cache: Path
) -> None:
    assert here("fetch", MODEL).code == 0
    assert [name for name in kept(cache) if name.endswith(".scpack")] == []
    sent = hub.bytes_served(WEIGHTS)
    done = here("fetch", MODEL, "--keep-packed")
    assert done.code == 0, done.err
    assert hub.bytes_served(WEIGHTS) == sent
    (name,) = kept(cache)
    assert name.endswith(".scpack")
    assert "already complete" in here("fetch", MODEL).out


def test_a_job_that_was_begun_with_the_plain_file_goes_on_with_the_packed_one(
    hub: Hub, here: Run, cache: Path, tmp_path: Path, expected: bytes
) -> None:
    command = ["convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--chunk-size", "64KiB", "--threads", "1"]
    assert here(*command, "--stop-after", "0").code == 75
    assert here("fetch", MODEL, "--keep-packed").code == 0
    done = here(*command)
    assert done.code == 0, done.err
    assert "were finished by earlier runs" in done.out
    assert tensor_bytes(tmp_path / "x.gguf") == expected


def test_a_plain_file_that_a_killed_run_left_beside_the_packed_one_goes(
    hub: Hub, here: Run, cache: Path, tiny_model: Path
) -> None:
    assert here("fetch", MODEL, "--keep-packed").code == 0
    (name,) = kept(cache)
    blob = cache / "org--tiny-gemma3" / "blobs" / name.removesuffix(".scpack")
    shutil.copyfile(tiny_model / WEIGHTS, blob)
    assert here("fetch", MODEL, "--keep-packed").code == 0
    assert [*kept(cache)] == [name]


def test_it_excludes_evict_and_keep(here: Run, tmp_path: Path) -> None:
    for other in ("--evict", "--keep"):
        assert here("convert", MODEL, tmp_path / "x.gguf", "--keep-packed", other).code == 64


def test_a_packed_file_that_is_damaged_is_named_and_no_output_is_made(
    hub: Hub, here: Run, cache: Path, tmp_path: Path
) -> None:
    assert here("fetch", MODEL, "--keep-packed").code == 0
    (name,) = kept(cache)
    path = cache / "org--tiny-gemma3" / "blobs" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 65
    assert "the frame at byte" in done.err
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.slow
def test_one_file_of_a_model_is_kept_packed_too(
    hub: Hub, here: Run, cache: Path, tiny_model: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made" / "x.gguf"
    made.parent.mkdir()
    assert here("convert", tiny_model, made, "--type", "bf16").code == 0
    hub.add("org/tiny-gemma3", made.parent)
    done = here("convert", f"{MODEL}/x.gguf", tmp_path / "y.gguf", "--type", "q8_0", "--keep-packed")
    assert done.code == 0, done.err
    assert [name.endswith(".scpack") for name in kept(cache)] == [True]


def test_verify_finds_a_damaged_pack_and_fetch_verify_replaces_it(hub: Hub, here: Run, cache: Path) -> None:
    assert here("fetch", MODEL, "--keep-packed").code == 0
    assert here("verify", "--store").code == 0
    (name,) = kept(cache)
    path = cache / "org--tiny-gemma3" / "blobs" / name
    good = path.read_bytes()
    path.write_bytes(good[:-30_000] + bytes([good[-30_000] ^ 1]) + good[-29_999:])
    found = here("verify", "--store")
    assert found.code == 65
    assert f"{MODEL}: {WEIGHTS}" in found.out
    assert here("fetch", MODEL, "--keep-packed", "--verify").code == 0
    assert path.read_bytes() == good


@pytest.mark.parametrize("step", [pytest.param(5, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.soak)])
def test_a_kill_at_any_write_leaves_a_store_that_the_next_run_completes(
    hub: Hub, here: Run, cache: Path, tiny_model: Path, tmp_path: Path, step: int
) -> None:
    words = ["fetch", MODEL, "--keep-packed"]
    whole = inject(words, tmp_path / "log")
    assert whole.code == 0, whole.stderr
    right = packs(cache)
    # The first writes are those of ranges as they arrive, the last ones what is tested here.
    for at in [*range(1, whole.calls - 60, 25), *range(max(1, whole.calls - 60), whole.calls + 1, step)]:
        shutil.rmtree(cache)
        inject(words, tmp_path / "log", Fault(at, "kill after"))
        again = inject(words, tmp_path / "log")
        assert again.code == 0, (at, again.stderr)
        assert packs(cache) == right, at
        assert len(kept(cache)) == 1, at
        (link,) = cache.glob(f"org--tiny-gemma3/*/*/{WEIGHTS}*")
        assert link.name.endswith(".scpack"), at


def packs(cache: Path) -> dict[str, bytes]:
    """The packed files, by name."""
    return {p.name: p.read_bytes() for p in cache.glob("org--tiny-gemma3/blobs/*.scpack")}
