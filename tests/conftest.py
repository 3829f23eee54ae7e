"""Shared fixtures: the bundled model, the big reference data and the peers, where they are."""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import gguf_witness
import pytest
from hypothesis import HealthCheck, settings
from reference_data import reference_dir
from running import Run, in_this_process

from streamconv.targets import gguf

# Tests start Python hundreds of times; without bytecode each would compile the whole package (1.3 s), and every worker all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

# Shells ignore SIGINT in what they run in the background; what tests start inherits that, unless it is handled here.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"


def _peers_python() -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamconv"
    python = Path(os.environ.get("STREAMCONV_PEERS", cache / "peers")) / "bin" / "python"
    return python if python.exists() else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """More workers than processors: many tests wait, for time limits, for signals, for processes that they started."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return n + max(1, n // 4)


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with golden/, models/, spec/ of the reference data; skips where it is not there."""
    found = reference_dir()
    if found is None:
        pytest.skip("no reference data (STREAMCONV_REFERENCE, or ../shared beside the checkout)")
    return found


@pytest.fixture(scope="session")
def recipes(reference: Path) -> ModuleType:
    """What writes the checkpoint of a case."""
    path = reference / "accept" / "zoo.py"
    spec = importlib.util.spec_from_file_location("zoo_recipes", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        pytest.skip("no recipes beside the reference data")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def peers() -> Path:
    """Python of the peers' environment (torch, transformers, llama_cpp); skips where it is not built."""
    found = _peers_python()
    if found is None:
        pytest.skip("no peers: `make peers` builds llama.cpp and torch for the oracle tests")
    return found


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The bundled, trained checkpoint: Gemma 3 layout, 6.2M parameters, bf16."""
    return ROOT / "examples" / "tiny-gemma3"


@pytest.fixture(scope="session")
def data() -> Path:
    """Small reference cases kept in the repository."""
    return DATA


@pytest.fixture(scope="session", autouse=True)
def every_gguf_file_is_opened_by_the_gguf_package() -> Iterator[None]:
    """What is converted in the tests' own process is read by ``gguf.GGUFReader`` before it gets its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "layout", gguf_witness.layout)
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk() -> Iterator[None]:
    """Syncs in the tests' own process are done at once: no test outlasts a power cut, and those of faults put in their own."""

    def at_once(sync: Callable[[int], None]) -> Callable[[int], None]:
        def call(fd: int) -> None:
            kind = os.fstat(fd).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                sync(fd)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", at_once(os.fsync))
        patch.setattr(os, "fdatasync", at_once(os.fdatasync))
        yield


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Run:
    """Function that runs a command in this process."""
    return in_this_process(capfd)


@pytest.fixture
def seed() -> int:
    """STREAMCONV_SEED, else a new one where the full numbers are asked for, else always the same."""
    return int(
        os.environ.get("STREAMCONV_SEED") or (random.randrange(1 << 30) if "STREAMCONV_SOAK" in os.environ else 7)
    )


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Function that has a line printed at the end of all tests."""
    return lambda text: record_property("told", text)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what stays until the end: it would go through it in every process that tests fork off."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests of many faults have counted, and loudly what was not compared with the real thing."""
    for report in (r for outcome in ("passed", "failed") for r in terminalreporter.getreports(outcome)):
        for name, text in report.user_properties:
            if name == "told":
                terminalreporter.write_line(text)
    if _peers_python() is None:
        terminalreporter.write_line("NOTE: no peers (make peers): nothing was compared with real llama.cpp", red=True)
    if reference_dir() is None:
        terminalreporter.write_line("NOTE: the reference data is absent, only the small copies were used", yellow=True)
