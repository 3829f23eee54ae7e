"""Jobs that fetch, killed or cut off from power again and again: nothing committed is asked for again, the result is right."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from faults.injector import flip, killed_after
from faults.jobs import DOCUMENTS, SOAK, contents, false_stamps
from faults.power import Disk, recording
from running import Run
from server import Ask, Cut, Fault, Hub, Slow, Status
from small_models import gemma2

from streamconv import cli
from streamconv.conversion import execution, hub_models
from streamconv.engine.index_file import read_progress
from streamconv.engine.transfer import Settings

SLOW = pytest.mark.slow
Tell = Callable[[str], None]
SMALL = Settings(head_bytes=8 << 10, range_bytes=16 << 10, span_bytes=64 << 10)
#: kind of job -> source, name of the output, further options
KINDS = {
    "convert": ("org/a", "x.gguf", ["--type", "q8_0"]),
    "convert --evict": ("org/a", "x.gguf", ["--type", "q8_0", "--evict"]),
    "merge of documents": ("documents.yml", "x", []),
}


@dataclass(frozen=True)
class Bench:
    """One job, its command and its right answer; everything it writes lies below ``root``."""

    kind: str
    root: Path
    out: Path
    command: list[str]
    log: Path
    right: dict[str, str]

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def clean(self) -> None:
        shutil.rmtree(self.root)
        self.root.mkdir()

    def made(self) -> dict[str, str]:
        """What lies beside the cache: the output, and what was left behind."""
        return {name: digest for name, digest in contents(self.root).items() if not name.startswith("cache/")}

    def violations(self, where: str) -> list[str]:
        """Slots over wrong bytes, of the job and of what is fetched; wrong files under final names."""
        found = []
        for index in self.root.rglob("*.wal"):
            own = [index.with_suffix(".part")]
            if index.name == "index.wal":
                own = self._parts
            commits = read_progress(index)
            if commits is not None and all(p.exists() for p in own):
                found += [f"{where}: {index} lies about {c}" for c in false_stamps(commits.commits, own)]
        now = self.made()
        return found + [f"{where}: wrong {n}" for n, digest in self.right.items() if now.get(n, digest) != digest]

    @property
    def _parts(self) -> list[Path]:
        job = self.out.with_name(self.out.name + ".streamconv")
        return sorted([*job.glob("data-*.part"), *job.glob("out/*.safetensors")]) or [job / "none"]


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder in memory where there is one, for everything the jobs write."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="streamconv-", dir=memory if os.access(memory, os.W_OK) else None)).resolve()
    (path / "work").mkdir()
    yield path / "work"
    shutil.rmtree(path)


@pytest.fixture
def cache(root: Path) -> Path:
    """Where fetched models are kept."""
    return root / "cache"


@pytest.fixture
def small(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Run) -> Path:
    """Two models of 0.4 MB on the hub, whose weights have different names, small ranges and frequent commits."""
    for number, name in enumerate("ab"):
        gemma2(tmp_path / name, number)
    (tmp_path / "b" / "model.safetensors").rename(tmp_path / "b" / "model-00001-of-00001.safetensors")
    for name in "ab":
        hub.add(f"org/{name}", tmp_path / name)
    (tmp_path / "documents.yml").write_text(DOCUMENTS.format("org/a", "org/b"))
    (tmp_path / "here.yml").write_text(DOCUMENTS.format(tmp_path / "a", tmp_path / "b"))
    monkeypatch.setattr(hub_models, "KEEPING", SMALL)
    monkeypatch.setattr(hub_models, "EVICTING", replace(SMALL, span_bytes=32 << 10, ahead_bytes=96 << 10))
    real = execution.budget_of
    monkeypatch.setattr(execution, "budget_of", lambda *args: replace(real(*args), window_bytes=16 << 10))
    return tmp_path


@pytest.fixture
def bench(request: pytest.FixtureRequest, small: Path, root: Path, tmp_path: Path) -> Bench:
    """The job of a kind."""
    source, name, options = KINDS[request.param]
    at = str(small / source) if source.endswith(".yml") else source
    out = root / name
    command = ["convert", at, str(out), "--chunk-size", "8KiB", "--threads", "1", "--ram", "8MiB", "--quiet", *options]
    bench = Bench(request.param, root, out, command, tmp_path / "log", {})
    assert cli.main(command) == 0
    bench.right.update(bench.made())
    bench.clean()
    return bench


def committed(hub: Hub, cache: Path) -> dict[str, list[tuple[int, int]]]:
    """Byte ranges of weights that are here for good, by name."""
    found: dict[str, list[tuple[int, int]]] = {}
    for models in hub.models.values():
        for name, stored in (
            (n, s) for files in models.values() for n, s in files.items() if n.endswith(".safetensors")
        ):
            for blobs in cache.glob("*/blobs"):
                part, whole = blobs / f"{stored.sha256}.part", blobs / stored.sha256
                progress = read_progress(part.with_suffix(".wal")) if part.exists() else None
                if whole.exists():
                    found[name] = [(0, stored.size)]
                elif progress is not None and part.stat().st_size == stored.size:
                    found[name] = [(s.offset, s.offset + s.length) for s in progress.commits]
    return found


def overlap(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> int:
    return sum(max(0, min(x[1], y[1]) - max(x[0], y[0])) for x in a for y in b)


def trouble(rng: random.Random) -> Callable[[Ask], Fault | None]:
    """A slow line, which half of the time breaks now and then."""
    breaks = rng.random() < 0.5

    def fault(ask: Ask) -> Fault | None:
        if breaks and not ask.at_hub and rng.random() < 0.1:
            return rng.choice([Cut(rng.randrange(64 << 10)), Status(503), Status(429, {"Retry-After": "0"})])
        return Slow(1e6) if ask.path.endswith(".safetensors") else None

    return fault


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bench", "kills"),
    [
        pytest.param("merge of documents", 4, id="merge of documents-some"),
        *(pytest.param(kind, SOAK // 5 or 20, marks=SLOW, id=f"{kind}-many") for kind in KINDS),
    ],
    indirect=["bench"],
)
def test_kills_lose_nothing_that_was_committed(
    hub: Hub,
    bench: Bench,
    kills: int,
    seed: int,
    tell: Tell,
) -> None:
    rng = random.Random(f"{seed} {bench.kind}")
    hub.fault = lambda ask: Slow(1e6) if ask.path.endswith(".safetensors") else None
    began = time.monotonic()
    assert killed_after(60, bench.command, bench.log) == 0
    whole = time.monotonic() - began
    count, jobs, kept = 0, 0, 0
    while count < kills:
        jobs += 1
        bench.clean()
        hub.forget()
        hub.fault = trouble(rng)
        where = f"{bench.kind}, seed {seed}, job {jobs}"
        code: int | None = None
        while code is None:
            before = committed(hub, bench.cache)
            hub.served.clear()
            code = killed_after(rng.uniform(0, whole), bench.command, bench.log)
            count += code is None
            hub.wait_until_quiet()  # answers are counted when they end
            for name, ranges in before.items() if "--evict" not in bench.command else ():
                again = overlap(ranges, hub.served.get(name, []))
                assert again == 0, f"{where}: {again} committed bytes of {name} were asked for again"
                kept += sum(b - a for a, b in ranges)
            assert bench.violations(where) == []
        assert code == 0, f"{where}: {bench.log.read_text()}"
        assert bench.made() == bench.right, where
        hub.served.clear()
        hub.requests.clear()
        assert killed_after(60, bench.command, bench.log) == 0
        assert hub.requests == [], where
    tell(
        f"{count} kills of {jobs} jobs that fetch ({bench.kind}): 0 wrong, 0 of {kept} committed bytes asked for again,"
        f" seed {seed}"
    )


@pytest.mark.parametrize(
    ("bench", "n"),
    [
        pytest.param("merge of documents", 4, id="merge of documents-some"),
        *(pytest.param(kind, SOAK // 5 or 15, marks=SLOW, id=f"{kind}-many") for kind in KINDS),
    ],
    indirect=["bench"],
)
def test_a_power_cut_costs_work_at_most(bench: Bench, n: int, seed: int, tell: Tell) -> None:
    rng = random.Random(f"{seed} {bench.kind}")
    disk, found = Disk(bench.root), []
    with recording(bench.root) as calls:
        assert cli.main(bench.command) == 0
    cuts = sorted(rng.randint(0, len(calls)) for _ in range(n))
    for at in range(len(calls) + 1):
        while cuts and cuts[0] == at:
            cuts.pop(0)
            disk.leave(bench.root, rng)
            where = f"{bench.kind}, power cut after call {at} of {len(calls)}"
            found += bench.violations(where)
            code = cli.main(bench.command)
            if code or bench.made() != bench.right:
                found.append(f"{where}: the next run ended with {code}, made {sorted(bench.made())}")
        if at < len(calls):
            disk.take(calls[at])
    tell(f"{n} power cuts of a job that fetches ({bench.kind}): {len(found)} wrong, seed {seed}")
    assert found == []


@pytest.mark.parametrize("what", ["part", "wal"])
@pytest.mark.parametrize(
    ("bench", "trials"), [pytest.param("convert", SOAK // 2 or 20, marks=SLOW)], indirect=["bench"]
)
def test_rot_of_what_was_fetched_is_found_or_harmless(
    hub: Hub,
    bench: Bench,
    what: str,
    trials: int,
    seed: int,
    tell: Tell,
) -> None:
    rng = random.Random(f"{seed} {what}")
    unfinished = bench.root.with_name("unfinished")
    hub.fault = lambda ask: Status(503) if ask.path.endswith(".safetensors") and ask.start > 200_000 else None
    assert cli.main(bench.command) == 69
    hub.fault = lambda ask: None
    shutil.copytree(bench.root, unfinished, symlinks=True)
    for trial in range(trials):
        shutil.rmtree(bench.root)
        shutil.copytree(unfinished, bench.root, symlinks=True)
        (hit,) = bench.cache.rglob(f"*.{what}")
        flip(hit, rng)
        assert cli.main(bench.command) == 0
        assert bench.made() == bench.right, f"trial {trial}, seed {seed}"
    tell(f"{trials} flips in the {what} of what was fetched: all found or harmless, seed {seed}")
