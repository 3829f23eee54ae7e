"""What ``--cluster`` takes, what it refuses, what a plan says of it, and what is loaded without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import streamconv
from streamconv import cluster
from streamconv.cluster import where
from streamconv.cluster.where import Where
from streamconv.conversion import Options
from streamconv.engine.network import is_network, kind_of
from streamconv.errors import InputMissing, UsageError
from streamconv.progress import Silent


@pytest.fixture
def _dask_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, "find_spec", lambda name: object())


@pytest.mark.usefixtures("_dask_is_there")
def test_workers_are_named_in_three_ways() -> None:
    assert Where.parse("tcp://host:8786") == Where(address="tcp://host:8786")
    assert Where.parse("local:3") == Where(n_local=3)
    assert Where.parse("/shared/s.json") == Where(file=Path("/shared/s.json"))


@pytest.mark.usefixtures("_dask_is_there")
@pytest.mark.parametrize("text", ["local:0", "local:x", "local", "host:8786", "tcp://host", "http://host:1", ""])
def test_what_names_no_workers_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no workers"):
        Where.parse(text)


@pytest.mark.usefixtures("_dask_is_there")
def test_certificates_and_addresses_belong_together(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("")
    assert Where.parse("tls://host:1", f"{pem},{pem},{pem}").tls == (str(pem),) * 3
    with pytest.raises(UsageError, match="needs certificates"):
        Where.parse("tls://host:1")
    for text in ("tcp://host:1", "local:2"):
        with pytest.raises(UsageError, match="no effect"):
            Where.parse(text, f"{pem},{pem},{pem}")
    with pytest.raises(UsageError, match="three files"):
        Where.parse("tls://host:1", str(pem))
    with pytest.raises(InputMissing):
        Where.parse("tls://host:1", f"{pem},{pem},{tmp_path / 'none'}")


def test_without_dask_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(where, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"streamconv\[dask\]"):
        streamconv.convert(tiny_model, tmp_path / "x.gguf", cluster="local:2")
    assert not list(tmp_path.iterdir())


def test_nothing_of_dask_is_loaded_without_a_cluster(tiny_model: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from streamconv.cli import main\n"
        f"assert main(['convert', {str(tiny_model)!r}, {str(tmp_path / 'x.gguf')!r}, '--type', 'F16', '--quiet']) == 0\n"
        "found = [m for m in sys.modules if m.partition('.')[0] in ('dask', 'distributed', 'tornado', 'msgpack')]\n"
        "found += [m for m in sys.modules if m in ('streamconv.cluster.dask_pool', 'streamconv.cluster.worker')]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("_dask_is_there")
def test_ranges_are_not_freed_that_workers_read(tiny_model: Path, tmp_path: Path) -> None:
    options = Options(type="F16", cluster="local:2")
    prepared = streamconv.conversion.prepare(tiny_model, tmp_path / "x.gguf", options)
    with pytest.raises(UsageError, match="--evict cannot be used with --cluster"):
        cluster.execute(prepared, Options(type="F16", cluster="local:2", evict=True), Silent())


@pytest.mark.usefixtures("_dask_is_there")
def test_a_plan_says_whether_workers_will_pay(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamconv.cluster.advice.default_threads", lambda: 8)

    def of(type_: str, name: str) -> dict[str, object]:
        facts = streamconv.plan(tiny_model, tmp_path / "x.gguf", type=type_, cluster=name)
        found: dict[str, object] = facts["cluster"]
        return found

    quick, slow = of("Q4_K_M", "tcp://host:1"), of("IQ3_S", "tcp://host:1")
    assert "will not pay" in str(quick["advice"])
    assert "feeds" in str(slow["advice"])
    assert "will not pay" not in str(slow["advice"])
    assert "no faster than its 8 threads" in str(of("IQ3_S", "local:2")["advice"])
    assert "cluster" not in streamconv.plan(tiny_model, tmp_path / "x.gguf", type="Q8_0")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("36 35 0:45 / /m rw shared:1 - nfs4 store:/m rw", "nfs4"),
        ("36 35 0:45 / /m rw - fuse.sshfs me@there: rw", "fuse.sshfs"),
        ("36 35 0:45 / /m rw - ext4 /dev/sda1 rw", ""),
        ("36 35 0:46 / /m rw - nfs4 store:/m rw", ""),
        ("", ""),
    ],
)
def test_network_file_systems_are_known_by_their_kind(line: str, kind: str) -> None:
    assert kind_of("0:45", line) == kind


def test_a_path_that_is_not_there_is_on_no_network(tmp_path: Path) -> None:
    assert not is_network(tmp_path / "none")
