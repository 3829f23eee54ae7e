"""A cache of kernels is code: it is taken only from folders that nobody else could have filled, and nothing else is touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamconv.kernels import cache

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")

PROGRAM = """
import numpy as np, streamconv
from streamconv.kernels import cache
x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
streamconv.quantize(x, "BF16", threads=1)
print(cache.not_kept())
"""
CLI = "from streamconv import cli\ncli.main({!r})"
#: what an attacker runs who knows all about the files: each kernel that is loaded makes the file ``{}``
POISON = """
from pathlib import Path
from streamconv.kernels import load
load(".kernels.tiles")
from streamconv.kernels import disk_cache
class Evil:
    def __reduce__(self): return Path.touch, (Path({!r}),)
real = disk_cache._dumps
disk_cache._dumps = lambda value: real(value if value == () else Evil())
"""


def run(program: str, cwd: Path, without: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", without)}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty working folder."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cache that runs code of its maker, and the file which that makes."""
    at = tmp_path_factory.mktemp("poison")
    cwd, folder, trace = at / "cwd", at / "cache", at / "was-here"
    cwd.mkdir()
    assert run(POISON.format(str(trace)) + PROGRAM, cwd, NUMBA_CACHE_DIR=str(folder)).returncode == 0
    assert not trace.exists()
    assert list(folder.rglob("*.kernel"))
    run(PROGRAM, cwd, NUMBA_CACHE_DIR=str(folder))
    assert trace.exists(), "the poison does not work, so nothing is shown by its absence"
    return folder, trace


def _give_away(path: Path) -> None:
    for each in (path, *path.rglob("*")):
        os.chown(each, NOBODY, NOBODY)


SPOILED = {
    "world-writable": lambda folder: folder.chmod(0o777),
    "sticky": lambda folder: folder.chmod(0o1777),
    "above, world-writable": lambda folder: folder.parent.chmod(0o777),
    "far above, world-writable": lambda folder: folder.parent.parent.chmod(0o777),
}
FOREIGN = {
    "of another user": _give_away,
    "in a folder of another user": lambda folder: os.chown(folder.parent, NOBODY, NOBODY),
    "of another group": lambda folder: (os.chown(folder, -1, NOBODY), folder.chmod(0o775)),
}


@pytest.mark.parametrize("how", [*SPOILED, *(pytest.param(f, marks=as_root) for f in FOREIGN)])
def test_kernels_in_a_folder_that_others_can_fill_are_not_run(
    poisoned: tuple[Path, Path], tmp_path: Path, here: Path, how: str
) -> None:
    given, trace = poisoned
    trace.unlink(missing_ok=True)
    folder = tmp_path / "above" / "cache"
    shutil.copytree(given, folder)
    (SPOILED | FOREIGN)[how](next(folder.iterdir()))
    before = listing(folder)
    done = run(PROGRAM, here, NUMBA_CACHE_DIR=str(folder))
    assert done.returncode == 0, done.stderr
    assert re.search("can be written by others|belongs to user", done.stdout)
    assert not trace.exists()
    assert listing(folder) == before
    assert not list(here.iterdir())


def test_nothing_is_made_in_a_folder_that_others_can_fill(tmp_path: Path, here: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "can be written by others" in run(PROGRAM, here, NUMBA_CACHE_DIR=str(tmp_path / "open" / "cache")).stdout
    assert not list((tmp_path / "open").iterdir())


@as_root
@pytest.mark.parametrize("whose", ["another user's", "ours"])
def test_a_link_is_followed_only_where_it_is_ours(
    poisoned: tuple[Path, Path], tmp_path: Path, here: Path, whose: str
) -> None:
    given, trace = poisoned
    trace.unlink(missing_ok=True)
    folder = tmp_path / "ours"
    shutil.copytree(given, folder)
    (tmp_path / "link").symlink_to(folder)
    if whose == "another user's":
        os.lchown(tmp_path / "link", NOBODY, NOBODY)
    run(PROGRAM, here, NUMBA_CACHE_DIR=str(tmp_path / "link"))
    assert trace.exists() == (whose == "ours")


def test_a_link_in_the_place_of_our_folder_leads_nowhere(tmp_path: Path, here: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"kernels-{cache._version()}").symlink_to(precious)
    assert "is a symbolic link" in run(PROGRAM, here, NUMBA_CACHE_DIR=str(tmp_path / "cache")).stdout
    assert not list(precious.iterdir())


NO_ENTRY = "import pwd\ndef none(uid): raise KeyError(uid)\npwd.getpwuid = none\n"


@pytest.mark.parametrize(
    ("program", "environment"),
    [
        (PROGRAM, {"NUMBA_CACHE_DIR": "cache"}),
        (PROGRAM, {"NUMBA_CACHE_DIR": "."}),
        (PROGRAM, {"XDG_CACHE_HOME": "cache"}),
        (PROGRAM, {"HOME": "home"}),
        (NO_ENTRY + PROGRAM, {"without": "HOME"}),
    ],
)
def test_no_kernels_are_kept_in_or_taken_from_the_working_folder(
    program: str, environment: dict[str, str], here: Path
) -> None:
    done = run(program, here, **environment)
    assert done.returncode == 0, done.stderr
    assert "is not an absolute path" in done.stdout
    assert not list(here.iterdir())


@pytest.mark.parametrize("given", ["/dev/null", "/proc/self/cwd/cache", "/proc/nowhere"])
def test_a_place_that_cannot_be_a_folder_costs_nothing_but_compiling(given: str, here: Path) -> None:
    done = run(PROGRAM, here, NUMBA_CACHE_DIR=given)
    assert done.returncode == 0, done.stderr
    if given != "/proc/self/cwd/cache":  # the same folder under another name, and ours
        assert given in done.stdout
        assert not list(here.iterdir())


def test_a_conversion_says_once_why_its_kernels_are_not_kept(here: Path, data: Path) -> None:
    source = str(data / "checkpoints" / "mistral-spm" / "hf")
    done = run(CLI.format(["convert", source, str(here / "x.gguf"), "--type", "Q8_0"]), here, NUMBA_CACHE_DIR="cache")
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if "are used for this run only" in line]
    assert len(notes) == 1, done.stderr
    assert re.search(r"note: .*\(cache/kernels-\S+ is not an absolute path\)", notes[0])
    assert not [p.name for p in here.iterdir() if "x.gguf" not in p.name]


def listing(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """What is below ``folder``, so that any change shows."""
    return {str(p): (s.st_ino, s.st_mode, s.st_mtime_ns, s.st_size) for p in folder.rglob("*") for s in [p.lstat()]}


def _commands(source: str, out: str) -> dict[str, list[str]]:
    convert = ["convert", source, out, "--type"]
    return {
        "convert": [CLI.format([*convert, "BF16"])],
        "replace": [CLI.format([*convert, t, f]) for t, f in (("Q8_0", "--force"), ("BF16", "--update"))],
        "look": [CLI.format(["inspect", source]), CLI.format(["plan", source, out, "--type", "Q4_K_M"])],
    }


@pytest.mark.parametrize("what", ["library", "convert", pytest.param("replace", marks=pytest.mark.slow), "look"])
def test_nothing_of_others_in_the_users_cache_folder_is_touched_or_gone(
    here: Path, tmp_path: Path, data: Path, what: str
) -> None:
    folder = tmp_path / "cache"
    ours = folder / f"kernels-{cache._version()}"
    others = [
        folder,
        folder / "other_01",
        ours,
        ours / "quant_01",
        folder / "kernels-0.0.9-x86_64-py3.11.7-numba0.68.1",
    ]
    for place in others:
        place.mkdir(exist_ok=True)
        for name in ("lecture.nbp", "f-1.py311.nbi", "f-1.py311.1.nbc", "seal.json", "x.kernel", "notes.txt"):
            (place / name).write_bytes(b"of somebody else")
            os.utime(place / name, (1e9, 1e9))
        (place / "link.nbi").symlink_to(place / "lecture.nbp")
    before = listing(folder)
    commands = _commands(str(data / "checkpoints" / "mistral-spm" / "hf"), str(here / "x.gguf"))
    for program in commands.get(what, [PROGRAM]):
        done = run(program, here, NUMBA_CACHE_DIR=str(folder))
        assert done.returncode == 0, done.stderr
    after = listing(folder)
    assert {k: v for k, v in before.items() if k != str(ours)}.items() <= after.items()
    new = {Path(name) for name in after.keys() - before.keys()}
    assert bool(new) == (what != "look")
    assert {p.parent for p in new} <= {ours}
    assert {p.suffix for p in new} <= {".kernel"}


def test_a_folder_of_ours_below_a_sticky_one_is_used(tmp_path: Path, here: Path) -> None:
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    for given in (tmp_path / "sticky", tmp_path / "sticky" / "deep" / "er"):
        assert run(PROGRAM, here, NUMBA_CACHE_DIR=str(given)).stdout == "\n"
        assert list(given.glob("kernels-*/*.kernel"))


def test_what_we_make_is_writable_for_nobody_else_whatever_the_umask(tmp_path: Path, here: Path) -> None:
    assert run("import os; os.umask(0)\n" + PROGRAM, here, NUMBA_CACHE_DIR=str(tmp_path / "a" / "b")).stdout == "\n"
    made = [tmp_path / "a", *(tmp_path / "a").rglob("*")]
    assert len(made) > 3
    assert not [p for p in made if p.stat().st_mode & 0o022]


@pytest.fixture
def visible() -> Iterator[Path]:
    """A folder that every user may enter, as those of tests are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@as_root
@pytest.mark.parametrize("owner", [0, NOBODY, 1234])
def test_kernels_that_root_kept_are_there_for_all_users_and_those_of_others_are_not(visible: Path, owner: int) -> None:
    # a user without access to this Python: everything is loaded before
    program = """
import encodings.idna, grp, os, pwd, importlib.metadata, email.parser, sys
from streamconv.kernels import cache
cache._version()
if sys.argv[1:] == ["nobody"]: os.setgroups([]); os.setegid(65534); os.seteuid(65534)
else: cache.save("a.kernel", "sources", b"code")
print(cache.load("a.kernel", "sources"), cache.not_kept())
cache.save("b.kernel", "sources", b"code")
print(cache.load("b.kernel", "sources"), cache.not_kept())
"""

    def lines(*arguments: str) -> list[str]:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(visible)}
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()

    assert lines() == ["b'code' ", "b'code' "]
    (ours,) = visible.iterdir()
    (ours / "b.kernel").unlink()
    for path in (ours, ours / "a.kernel"):
        os.chown(path, owner, owner)
    first, second = lines("nobody")
    if owner == 1234:
        assert first == f"None {ours} belongs to user 1234, not to {NOBODY}"
        assert second == first
    else:
        assert first == "b'code' "
        assert second == (f"None {ours}: Permission denied" if owner == 0 else "b'code' ")


def test_numba_takes_no_settings_from_the_working_folder(here: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("thesis")
    (here / ".numba_config.yaml").write_text(f"chrome_trace: {precious}\ndisable_jit: 1\n")
    jit = "import numba\nprint(numba.config.DISABLE_JIT, int(numba.config.OPT))\n"
    done = run(PROGRAM + jit, here, NUMBA_CACHE_DIR=str(tmp_path / "cache"), NUMBA_OPT="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n0 2\n"  # what the environment says still counts
    assert precious.read_text() == "thesis"


def test_the_image_keeps_no_code_in_its_volume() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    environment = dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", text, re.MULTILINE))))
    shared = re.findall(r"^(?:VOLUME|WORKDIR) (/models\S*)$", text, re.MULTILINE)
    assert shared
    place = Path(environment.get("NUMBA_CACHE_DIR") or environment["XDG_CACHE_HOME"])
    assert place.is_absolute()
    assert not [s for s in shared if place.is_relative_to(s)]
    assert Path(environment["STREAMCONV_CACHE"]).is_relative_to(shared[0])
