"""Other users: what they put in the place of a store, or of anything in it, is neither used nor waited for nor written to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_cases import MODEL, WEIGHTS, in_hf_cache, tensor_bytes
from running import Run
from server import Hub, Status

pytestmark = pytest.mark.slow

HOME = "org--tiny-gemma3"
FOREIGN = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.fixture
def fetched(here: Run) -> None:
    """The model is in the store."""
    assert here("fetch", MODEL).code == 0


@pytest.fixture
def half(hub: Hub, here: Run) -> None:
    """A part of the weights is in the store."""
    hub.fault = lambda ask: Status(503) if ask.path == WEIGHTS and ask.start > 3_000_000 else None
    assert here("fetch", MODEL).code == 69
    hub.fault = lambda ask: None


def place(hub: Hub, cache: Path, what: str) -> Path:
    """Where ``what`` lies in the store."""
    ((commit, files),) = hub.models[MODEL].items()
    key = files[WEIGHTS].sha256
    return cache / what.format(home=HOME, commit=commit, key=key)


def taken(path: Path, how: str, elsewhere: Path) -> None:
    """What has the name ``path`` becomes somebody else's doing."""
    if how == "link":
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    elif how == "foreign":
        os.chown(path, FOREIGN, FOREIGN, follow_symlinks=False)
    elif how == "writable":
        path.chmod(path.stat().st_mode | 0o022)
    elif how == "hard link":
        os.link(path, elsewhere)
    else:
        path.unlink(missing_ok=True)
        os.mkfifo(path)


FOLDERS = [
    "",
    "{home}",
    "{home}/blobs",
    "{home}/refs",
    "{home}/listings",
    "{home}/{commit}",
    "{home}/{commit}/tiny-gemma3",
]


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("how", ["link", "writable", pytest.param("foreign", marks=as_root)])
@pytest.mark.parametrize("what", FOLDERS)
def test_a_folder_of_the_store_that_is_not_ours_is_refused(
    hub: Hub, here: Run, cache: Path, tmp_path: Path, what: str, how: str
) -> None:
    path = place(hub, cache, what)
    taken(path, how, tmp_path / "elsewhere")
    refused = here("fetch", MODEL)
    if what == "" and how == "link":  # the user's own link to a larger disk
        assert refused.code == 0, refused.err
        return
    assert refused.code == 77, refused.err
    assert str(path) in refused.err
    assert "STREAMCONV_CACHE" in refused.err
    assert here("fetch", MODEL, "--offline").code == 77


@pytest.mark.parametrize(
    "what",
    ["{home}/refs/main.json", "{home}/listings/{commit}.json", "{home}/blobs/{key}", "{home}/blobs/{key}.checked"],
)
@pytest.mark.parametrize("how", ["link", "pipe", "hard link", pytest.param("foreign", marks=as_root)])
@pytest.mark.usefixtures("fetched")
def test_a_file_of_the_store_that_is_not_ours_is_neither_believed_nor_waited_for(
    hub: Hub, here: Run, cache: Path, tmp_path: Path, what: str, how: str
) -> None:
    path = place(hub, cache, what)
    taken(path, how, tmp_path / "elsewhere")
    refused = here("fetch", MODEL)
    assert refused.code == 77, refused.err
    assert str(path) in refused.err


@pytest.mark.parametrize(
    "what",
    [
        "{home}/blobs/{key}.part",
        "{home}/blobs/{key}.wal",
        "{home}/blobs/{key}.amended",
        "{home}/blobs/{key}",
        "{home}/lock",
    ],
)
@pytest.mark.parametrize("how", ["link", "pipe"])
@pytest.mark.usefixtures("half")
def test_what_a_fetch_goes_on_with_must_be_ours(
    hub: Hub, here: Run, cache: Path, tmp_path: Path, what: str, how: str
) -> None:
    path, victim = place(hub, cache, what), tmp_path / "victim"
    victim.write_bytes(b"precious" * 500)
    if not path.exists():
        path.write_bytes(b"")
    if how == "link":
        path.unlink()
        path.symlink_to(victim)
    else:
        taken(path, how, victim)
    refused = here("fetch", MODEL)
    assert refused.code == 77, refused.err
    assert str(path) in refused.err
    assert victim.read_bytes() == b"precious" * 500


@pytest.mark.usefixtures("half")
def test_an_index_with_two_names_is_ours_where_the_other_is_its_own_temporary_one(
    hub: Hub, here: Run, cache: Path, tmp_path: Path
) -> None:
    index = place(hub, cache, "{home}/blobs/{key}.wal")
    twin = index.with_name(f"{index.name}.0123456789abcdef.tmp")
    os.link(index, tmp_path / "elsewhere")
    refused = here("fetch", MODEL)
    assert refused.code == 77
    assert "2 names" in refused.err
    (tmp_path / "elsewhere").unlink()
    os.link(index, twin)  # by a run that was killed before it took that name away
    hub.forget()
    done = here("fetch", MODEL)
    assert done.code == 0, done.err
    assert not twin.exists()
    assert 0 < hub.bytes_served(WEIGHTS) < next(iter(hub.models[MODEL].values()))[WEIGHTS].size


@pytest.mark.usefixtures("fetched")
def test_a_listing_that_others_can_write_to_is_asked_for_again(hub: Hub, here: Run, cache: Path) -> None:
    path = place(hub, cache, "{home}/listings/{commit}.json")
    path.write_text(path.read_text().replace(hub.find(MODEL, "main")[1][WEIGHTS].sha256, "0" * 64))
    path.chmod(0o666)
    hub.forget()
    assert here("fetch", MODEL).code == 0
    assert any("/tree/" in r for r in hub.requests)
    assert path.stat().st_mode & 0o022 == 0


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_a_store_is_ours_alone_to_write_whatever_the_umask(hub: Hub, here: Run, cache: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert here("fetch", MODEL).code == 0
        again = here("fetch", MODEL)
    finally:
        os.umask(before)
    assert again.code == 0, again.err
    for folder in [cache, *(p for p in cache.rglob("*") if p.is_dir() and not p.is_symlink())]:
        assert folder.stat().st_mode & 0o022 == 0, folder
    for path in (cache / HOME).glob("[blr]*/*"):
        assert path.stat().st_mode & 0o022 == 0, path


def test_a_store_in_the_users_cache_that_others_can_write_to_is_replaced_by_one_beside_the_output(
    here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bytes
) -> None:
    monkeypatch.delenv("STREAMCONV_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    usual = tmp_path / "xdg" / "streamconv" / "models"
    usual.mkdir(parents=True)
    usual.chmod(0o777)
    (tmp_path / "o").mkdir()
    done = here("convert", MODEL, tmp_path / "o" / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert f"{usual} can be written by others" in done.err
    assert (tmp_path / "o" / ".streamconv-models" / HOME).is_dir()
    assert not list(usual.iterdir())
    assert tensor_bytes(tmp_path / "o" / "x.gguf") == expected


@pytest.mark.parametrize("how", ["link", "writable", "pipe", pytest.param("foreign", marks=as_root)])
def test_a_store_beside_the_output_that_somebody_else_made_is_refused(
    here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.delenv("STREAMCONV_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    store = tmp_path / "o" / ".streamconv-models"
    store.mkdir(parents=True)
    if how == "pipe":
        store.rmdir()
    taken(store, how, tmp_path / "elsewhere")
    refused = here("convert", MODEL, tmp_path / "o" / "x.gguf", "--type", "q8_0")
    assert refused.code == 77, refused.err
    assert str(store) in refused.err
    assert not (tmp_path / "elsewhere").is_dir() or not list((tmp_path / "elsewhere").iterdir())


def test_a_file_in_the_place_of_a_name_is_not_taken_for_what_was_fetched(hub: Hub, here: Run, cache: Path) -> None:
    assert here("fetch", MODEL).code == 0
    name = place(hub, cache, "{home}/{commit}/tiny-gemma3/config.json")
    right = os.readlink(name)
    name.unlink()
    name.symlink_to("/etc/hostname")  # a link is only a name
    assert here("fetch", MODEL).code == 0
    assert os.readlink(name) == right
    name.unlink()
    name.write_text("{}")
    refused = here("fetch", MODEL)
    assert refused.code == 73
    assert str(name) in refused.err
    assert name.read_text() == "{}"


@pytest.fixture
def shared(hub: Hub, here: Run, tmp_path: Path, tiny_model: Path) -> Path:
    """The weights in a cache of huggingface_hub that others can write to."""
    folder = in_hf_cache(hub, tmp_path / "hf" / "hub", tiny_model)
    for path in (tmp_path / "hf").rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o020)
    return (folder / WEIGHTS).resolve()


def test_a_shared_cache_of_huggingface_hub_is_believed_after_its_digests_were_seen(
    hub: Hub, here: Run, tmp_path: Path, shared: Path, expected: bytes
) -> None:
    done = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert hub.bytes_served(WEIGHTS) == 0
    assert tensor_bytes(tmp_path / "x.gguf") == expected


def test_what_others_changed_in_a_shared_cache_is_fetched_instead(
    hub: Hub, here: Run, tmp_path: Path, shared: Path, expected: bytes
) -> None:
    assert here("plan", MODEL, tmp_path / "x.gguf").code == 0  # seen to be right once
    times = shared.stat()
    with shared.open("r+b") as f:
        f.seek(-1000, os.SEEK_END)
        f.write(b"somebody else's")
    os.utime(shared, ns=(times.st_atime_ns, times.st_mtime_ns))
    offline = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--offline")
    assert offline.code == 65
    assert WEIGHTS in offline.err
    changed = shared.read_bytes()
    done = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert "damaged" in done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert shared.read_bytes() == changed, "it is not ours to write"


@pytest.mark.parametrize("what", ["refs", "snapshot"])
def test_pipes_in_the_cache_of_huggingface_hub_are_not_waited_for(
    hub: Hub, here: Run, tmp_path: Path, tiny_model: Path, what: str
) -> None:
    folder = in_hf_cache(hub, tmp_path / "hf" / "hub", tiny_model)
    path = folder.parent.parent / "refs" / "main" if what == "refs" else folder / WEIGHTS
    path.unlink()
    os.mkfifo(path)
    failed = here("convert", MODEL, tmp_path / "x.gguf", "--offline")
    assert failed.code in (66, 69), failed.err


def test_a_read_only_store_of_an_administrator_is_used(
    hub: Hub, here: Run, cache: Path, tmp_path: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert here("fetch", MODEL).code == 0
    copy = shutil.copytree(
        cache, tmp_path / "copy", symlinks=True
    )  # other times and inodes, so the digests are made again
    monkeypatch.setenv("STREAMCONV_CACHE", str(copy))
    real: Callable[..., bool] = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **k: not mode & os.W_OK and real(path, mode, **k))
    hub.forget()
    done = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert hub.requests == []
    assert tensor_bytes(tmp_path / "x.gguf") == expected
