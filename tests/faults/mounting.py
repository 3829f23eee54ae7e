"""Real filesystems, mounted where only one forked child sees them; nothing is left when it ends."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

_CLONE_NEWNS = 0x00020000
_SYNCS = (os.fsync, os.fdatasync)  # as they are before the tests' own are put in: these filesystems do fail


def refusal() -> str:
    """Why nothing can be mounted here, "" where it can."""
    if not sys.platform.startswith("linux"):
        return "mount namespaces are Linux's"
    if os.geteuid() != 0:
        return "only root can mount"
    for tool in ("mount", "umount", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is missing"
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return tried.stderr.decode().strip() if tried.returncode else ""


def apart(body: Callable[[], None]) -> None:
    """Run ``body`` in a child with mounts of its own; what it raises fails or skips the test."""
    reads, writes = os.pipe()
    with warnings.catch_warnings():  # of forking beside other threads: the child has none
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        told = ""
        try:
            os.close(reads)
            os.fsync, os.fdatasync = _SYNCS
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
                raise OSError(ctypes.get_errno(), "unshare")
            mount("--make-rprivate", "/")
            before = set(_points())
            try:
                body()
            finally:
                os.chdir("/")
                for point in reversed([p for p in _points() if p not in before]):  # daemons of FUSE end then
                    subprocess.run(["umount", "-l", point], capture_output=True, check=False)
        except pytest.skip.Exception as e:
            told = f"skip {e}"
        except BaseException:
            told = traceback.format_exc()
        finally:
            os.write(writes, told.encode()[-60_000:])
            os._exit(0)
    os.close(writes)
    with open(reads, "rb") as f:
        told = f.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    if told.startswith("skip "):
        pytest.skip(told.removeprefix("skip "))
    if told or status:
        pytest.fail(told or f"the child ended with status {status}", pytrace=False)


def _points() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4].encode().decode("unicode_escape") for line in lines]


def mount(*words: str | Path) -> None:
    """Call ``mount``; skip where the system has no such filesystem."""
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        if "unknown filesystem" in done.stderr or "No such device" in done.stderr:
            pytest.skip(done.stderr.strip())
        raise AssertionError(f"mount {words}: {done.stderr}")


def umount(path: Path) -> None:
    subprocess.run(["umount", str(path)], check=True, capture_output=True)


def made(tool: str, image: Path, size: int, *options: str) -> Path:
    """A file with a new filesystem; skip where the ``tool`` to make it is missing."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is missing")
    with image.open("wb") as f:
        f.truncate(size)
    subprocess.run([tool, *options, str(image)], check=True, capture_output=True)
    return image


def ext4(place: Path, size: int = 256 << 20, *options: str) -> None:
    image = made("mkfs.ext4", place.with_suffix(".image"), size, "-q", "-m", "0", "-b", "1024", *options)
    mount("-o", "loop,errors=remount-ro", image, place)


def xfs(place: Path) -> None:
    mount("-o", "loop", made("mkfs.xfs", place.with_suffix(".image"), 320 << 20, "-q"), place)


def btrfs(place: Path) -> None:
    mount("-o", "loop", made("mkfs.btrfs", place.with_suffix(".image"), 256 << 20, "-q"), place)


def exfat(place: Path) -> None:
    """Neither owners nor modes, nor hard links, nor renames that exchange; everything is shown as writable by everybody."""
    image = made("mkfs.exfat", place.with_suffix(".image"), 256 << 20)
    device = subprocess.run(
        ["losetup", "-f", "--show", str(image)], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        _fuse("mount.exfat-fuse", "-o", "umask=0,uid=1234,gid=1234", device, str(place))
    finally:
        subprocess.run(["losetup", "-d", device], check=True)  # as soon as nothing uses it


def ntfs(place: Path) -> None:
    image = made("mkfs.ntfs", place.with_suffix(".image"), 256 << 20, "-F", "-q", "-f")
    _fuse("ntfs-3g", "-o", "umask=0,uid=1234", str(image), str(place))


def squashed(place: Path) -> None:
    """As a network share that shows one owner and one mode for everything, whoever made it."""
    real = place.with_name("real")
    real.mkdir(exist_ok=True)
    words = ["--force-user=1234", "--force-group=1234", "--create-for-user=0", "--chown-ignore", "--chmod-ignore"]
    _fuse("bindfs", *words, "--perms=0777", "-o", "attr_timeout=0", str(real), str(place))


def tmpfs(place: Path) -> None:
    mount("-t", "tmpfs", "-o", "size=256m", "none", place)


def overlay(place: Path) -> Path:
    """Returns the lower folder, to be filled before ``restack``."""
    for name in ("lower", "upper", "work"):
        place.with_name(name).mkdir(exist_ok=True)
    lower, upper, work = (place.with_name(n) for n in ("lower", "upper", "work"))
    mount("-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off", "none", place)
    return lower


def restack(place: Path) -> None:
    """Let all that is in the overlay be in its lower layer, as the files of a container's image are."""
    umount(place)
    lower, upper = place.with_name("lower"), place.with_name("upper")
    subprocess.run(["cp", "-a", f"{upper}/.", str(lower)], check=True)
    for name in ("upper", "work"):
        shutil.rmtree(place.with_name(name))
    overlay(place)


def _fuse(tool: str, *words: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is missing")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("/dev/fuse is missing")
    done = subprocess.run([tool, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{tool}: {done.stderr.strip()[-200:]}")


FILESYSTEMS: dict[str, Callable[[Path], object]] = {
    "ext4": ext4, "xfs": xfs, "btrfs": btrfs, "tmpfs": tmpfs, "overlay": overlay,
    "exfat": exfat, "ntfs": ntfs, "squashed": squashed,
}  # fmt: skip
