"""What is in the store is what was fetched: changes are noticed by what the system knows of a file, rot by reading it again."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hub_cases import MODEL, WEIGHTS, in_hf_cache, tensor_bytes
from running import Run
from server import Hub, Status

from streamconv import conversion, progress
from streamconv.engine import files
from streamconv.engine.transfer.store import Store
from streamconv.errors import Stopped
from streamconv.sources.hub import model as hub_models

pytestmark = pytest.mark.slow


def blob(cache: Path, hub: Hub, name: str = WEIGHTS) -> Path:
    ((_, stored),) = hub.models[MODEL].items()
    return next(iter(cache.glob(f"*/blobs/{stored[name].etag}")))


def flip(path: Path, at: int = -5000) -> None:
    """Change a byte; nothing else that can be helped."""
    before = path.stat()
    with path.open("r+b") as f:
        f.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 4]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rot(path: Path, at: int = -5000) -> None:
    """Change a byte as a failing disk does: the system knows of nothing."""
    flip(path, at)
    status, record = path.stat(), path.with_name(path.name + ".checked")
    known = json.loads(record.read_text())
    record.write_text(json.dumps(known | {"ctime_ns": status.st_ctime_ns}))


CHANGES = {
    "nothing": False, "mtime": True, "ctime": True, "inode": True, "content": True, "content and mtime": True,
    "content and inode": True, "size": True, "longer": True,
}  # fmt: skip


def change(path: Path, what: str) -> None:
    before = path.stat()
    if "content" in what:
        flip(path)
    if "inode" in what:
        shutil.copy2(path, path.with_name("copy"))
        path.with_name("copy").replace(path)
    if "mtime" in what:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 5_000_000_000))
    if what == "ctime":
        path.chmod(0o600)
    if what in ("size", "longer"):
        os.truncate(path, before.st_size + (100 if what == "longer" else -100))


@pytest.mark.parametrize("command", ["fetch", "convert"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_downloaded_file_is_read_again_where_anything_but_its_name_is_new_and_never_believed_wrong(
    hub: Hub, here: Run, cache: Path, tmp_path: Path, expected: bytes, what: str, command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert here("fetch", MODEL).code == 0
    path = blob(cache, hub)
    right = path.read_bytes()
    change(path, what)
    hub.forget()
    read: list[int] = []
    real = hub_models.HubFile.new_hash
    monkeypatch.setattr(hub_models.HubFile, "new_hash", lambda file: read.append(file.size) or real(file))
    words = ["fetch", MODEL] if command == "fetch" else ["convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0"]
    done = here(*words)
    assert done.code == 0, done.err
    is_wrong = "content" in what or what in ("size", "longer")
    assert bool(read) == CHANGES[what]
    assert (hub.bytes_served(WEIGHTS) > 0) == is_wrong
    assert path.read_bytes() == right
    if is_wrong:
        assert WEIGHTS in done.err or path.name in done.err
    if command == "convert":
        assert tensor_bytes(tmp_path / "x.gguf") == expected
    read.clear()
    assert here(*words).code == 0
    assert read == [], "what was seen once is known"


def test_a_file_that_was_damaged_is_kept_aside_and_told(hub: Hub, here: Run, cache: Path) -> None:
    assert here("fetch", MODEL).code == 0
    path = blob(cache, hub)
    flip(path)
    damaged = path.read_bytes()
    done = here("fetch", MODEL)
    assert done.code == 0
    aside = path.with_name(path.name + ".damaged")
    assert aside.read_bytes() == damaged
    assert f"kept as {aside}" in done.err
    assert re.search(rf"{WEIGHTS}: {path} is damaged: its digest is [0-9a-f]{{64}}", done.err)


def test_a_damaged_file_is_refused_by_name_where_it_cannot_be_fetched_again(
    hub: Hub, here: Run, cache: Path, tmp_path: Path
) -> None:
    assert here("fetch", MODEL).code == 0
    path = blob(cache, hub)
    flip(path)
    wrong = path.read_bytes()
    for words in (["fetch", MODEL], ["convert", MODEL, tmp_path / "x.gguf"]):
        refused = here(*words, "--offline")
        assert refused.code == 65, refused.err
        assert WEIGHTS in refused.err
        assert str(path) in refused.err
        assert f"streamconv fetch --verify {MODEL}" in refused.err
    assert path.read_bytes() == wrong
    assert not (tmp_path / "x.gguf").exists()


def test_a_store_without_records_is_read_once_and_then_known(
    hub: Hub, here: Run, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here("fetch", MODEL).code == 0
    records = list(cache.rglob("*.checked"))
    assert records
    for record in records:
        record.unlink()
    hub.forget()
    assert here("fetch", MODEL).code == 0
    assert hub.requests == []
    assert sorted(cache.rglob("*.checked")) == sorted(records)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"size": "x"}', "[" * 4000])
def test_a_damaged_record_costs_a_digest(hub: Hub, here: Run, cache: Path, text: str) -> None:
    assert here("fetch", MODEL).code == 0
    record = blob(cache, hub).with_name(blob(cache, hub).name + ".checked")
    right = record.read_text()
    record.write_text(text)
    hub.forget()
    assert here("fetch", MODEL).code == 0
    assert hub.requests == []
    assert record.read_text() == right


def test_a_full_disk_without_room_for_a_record_costs_a_digest_and_nothing_else(
    hub: Hub, here: Run, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.write_atomically

    def full(path: Path, text: str, mode: int = 0o666) -> None:
        if path.suffix == ".checked":
            raise files.WriteFailed(f"{path}: no space")
        real(path, text, mode)

    monkeypatch.setattr(files, "write_atomically", full)
    assert here("fetch", MODEL).code == 0
    assert here("fetch", MODEL).code == 0
    assert not list(cache.rglob("*.checked"))


def test_looking_at_a_model_writes_nothing_to_a_store_that_has_it(here: Run, cache: Path, tmp_path: Path) -> None:
    assert here("fetch", MODEL).code == 0

    def state() -> dict[Path, tuple[int, int]]:
        return {p: (p.lstat().st_mtime_ns, p.lstat().st_ctime_ns) for p in [cache, *cache.rglob("*")]}

    before = state()
    for words in (["inspect", MODEL], ["plan", MODEL, tmp_path / "x.gguf"], ["inspect", MODEL, "--offline"]):
        assert here(*words).code == 0
        assert state() == before, words


def test_rot_that_the_system_does_not_know_of_is_found_by_fetch_verify(hub: Hub, here: Run, cache: Path) -> None:
    assert here("fetch", MODEL).code == 0
    path = blob(cache, hub)
    right = path.read_bytes()
    rot(path)
    hub.forget()
    assert here("fetch", MODEL).code == 0
    assert hub.requests == [], "the size alone is believed until something else says otherwise"
    offline = here("fetch", "--verify", MODEL, "--offline")
    assert offline.code == 65
    assert str(path) in offline.err
    done = here("fetch", "--verify", MODEL)
    assert done.code == 0, done.err
    assert "damaged" in done.err
    assert path.read_bytes() == right
    assert hub.bytes_served(WEIGHTS) == len(right)
    hub.forget()
    again = here("fetch", "--verify", MODEL, "--json")
    assert again.code == 0
    assert hub.requests == []
    starts = [json.loads(line) for line in again.out.splitlines() if '"start"' in line]
    assert starts[0]["done"] == 0
    assert starts[0]["total"] > len(right)


def test_fetch_verify_reads_what_lies_in_the_cache_of_huggingface_hub(
    hub: Hub, here: Run, cache: Path, tmp_path: Path, tiny_model: Path
) -> None:
    folder = in_hf_cache(hub, tmp_path / "hf" / "hub", tiny_model)
    lying = (folder / WEIGHTS).resolve()
    flip(lying)
    assert here("fetch", MODEL).code == 0
    assert hub.bytes_served(WEIGHTS) == 0
    wrong = lying.read_bytes()
    done = here("fetch", "--verify", MODEL)
    assert done.code == 0, done.err
    assert str(lying.name) in done.err or WEIGHTS in done.err
    assert lying.read_bytes() == wrong
    assert blob(cache, hub).read_bytes() == (tiny_model / WEIGHTS).read_bytes()
    hub.forget()
    assert here("fetch", MODEL).code == 0
    assert hub.requests == []


def verify(cache: Path) -> conversion.VerifiedStore:
    return conversion.verify_store(progress.Silent(), root=cache)


def test_verify_finds_nothing_wrong_with_what_was_fetched_and_asks_nobody(hub: Hub, here: Run, cache: Path) -> None:
    assert verify(cache).n_files == 0
    assert here("fetch", MODEL).code == 0
    hub.forget()
    found = verify(cache)
    assert found.damaged == ()
    assert found.n_files == len(list(cache.rglob("*.checked")))
    assert found.total_bytes == sum(p.stat().st_size for p in cache.glob("*/blobs/*") if not p.suffix)
    assert hub.requests == []


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_verify_names_each_damaged_file_and_it_is_fetched_again_when_it_is_needed(
    hub: Hub, here: Run, cache: Path, name: str
) -> None:
    assert here("fetch", MODEL).code == 0
    path = blob(cache, hub, name)
    right = path.read_bytes()
    rot(path, 10)
    (damage,) = verify(cache).damaged
    assert damage.path == path
    assert damage.name == f"{MODEL}: {name}"
    assert (damage.start, damage.stop) == (0, len(right))
    assert str(path) in str(damage)
    assert name in str(damage)
    assert verify(cache).damaged == (damage,)
    assert here("fetch", MODEL).code == 0
    assert path.read_bytes() == right
    assert verify(cache).damaged == ()


def test_verify_names_the_damaged_range_of_a_file_that_is_not_complete(hub: Hub, here: Run, cache: Path) -> None:
    hub.fault = lambda ask: Status(503) if ask.path == WEIGHTS and ask.start > 3_000_000 else None
    assert here("fetch", MODEL).code == 69
    found = verify(cache)
    assert found.damaged == ()
    assert found.n_parts == 1
    (part,) = cache.rglob("*.part")
    flip(part, 100_000)
    (damage,) = verify(cache).damaged
    assert damage.path == part
    assert damage.start <= 100_000 < damage.stop
    assert damage.stop - damage.start == 256 << 10
    hub.fault = lambda ask: None
    assert here("fetch", MODEL).code == 0
    assert verify(cache).damaged == ()


def test_verify_can_be_stopped(here: Run, cache: Path) -> None:
    assert here("fetch", MODEL).code == 0
    with pytest.raises(Stopped, match="0 damaged files"):
        conversion.verify_store(progress.Silent(), root=cache, stop_after_s=0)


def test_files_of_names_that_differ_in_case_or_end_like_ours_keep_their_own_contents(
    hub: Hub, here: Run, tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "odd")
    contents = {
        "Notes.txt": b"one", "notes.txt": b"two", "a.txt": b"three", "a.txt.tmp": b"four", "lock": b"five", "blobs": b"six",
        "n" * 251 + ".txt": b"seven", "refs/main.json": b"eight", "x.checked": b"nine",
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    hub.add("org/odd", folder)
    done = here("fetch", "--all", "org/odd", "--json")
    assert done.code == 0, done.err
    where = Path(json.loads(done.out.splitlines()[-1])["folder"])
    assert {name: (where / name).read_bytes() for name in contents} == contents


def test_a_store_of_an_earlier_link_is_followed_to_where_its_owner_put_it(
    here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "named").symlink_to(tmp_path / "large-disk")
    monkeypatch.setenv("STREAMCONV_CACHE", str(tmp_path / "named"))
    assert here("fetch", MODEL).code == 0
    assert list((tmp_path / "large-disk").glob("*/blobs/*"))
    assert Store(tmp_path / "large-disk").load("org--tiny-gemma3", "refs", "main.json")


def test_a_downloaded_file_that_changes_while_it_is_converted_ends_the_run(
    here: Run, hub: Hub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamconv.conversion import execution

    assert here("fetch", MODEL).code == 0
    path, real = blob(cache, hub), execution.warm_up

    def changes(*args: Any) -> None:
        change(path, "content and mtime")
        real(*args)

    monkeypatch.setattr(execution, "warm_up", changes)
    failed = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    assert failed.code == 65
    assert f"{path} changed while it was being read" in failed.err
    assert not (tmp_path / "x.gguf").exists()
