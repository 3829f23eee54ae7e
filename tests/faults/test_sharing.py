"""Where the filesystem can, what is copied from an older output shares its blocks of the disk: a real XFS, in a file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from streamconv.engine import copying

from .mounting import apart, mount, refusal

pytestmark = pytest.mark.slow
#: the smallest that mkfs.xfs makes
_IMAGE_BYTES = 400 << 20


@pytest.mark.parametrize(("start", "offset", "shares"), [(0, 4096, True), (904, 5000, True), (904, 905, False)])
def test_ranges_that_lie_alike_in_their_blocks_share_them(
    tmp_path: Path, start: int, offset: int, shares: bool
) -> None:
    why = refusal() or next((f"{tool} is missing" for tool in ("mkfs.xfs", "filefrag") if not shutil.which(tool)), "")
    if why:
        pytest.skip(why)
    image, point = tmp_path / "image", tmp_path / "point"
    point.mkdir()
    image.touch()
    os.truncate(image, _IMAGE_BYTES)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)

    def copied() -> None:
        mount("-o", "loop", image, point)
        data = os.urandom(4 << 20)
        (point / "old").write_bytes(data)
        new = os.open(point / "new", os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(new, 0, offset + len(data))
        old = os.open(point / "old", os.O_RDONLY)
        assert copying.copy_range(old, start, new, offset, len(data) - start, point / "new") == len(data) - start
        os.fdatasync(new)
        for fd in (old, new):
            os.close(fd)
        assert (point / "new").read_bytes()[offset:].startswith(data[start:])
        listed = subprocess.run(["filefrag", "-v", point / "new"], capture_output=True, text=True, check=True).stdout
        # number: blocks of the file: blocks of the disk: how many: …: flags
        found = [int(line.split(":")[3]) for line in listed.splitlines() if "shared" in line]
        assert (sum(found) >= 1000) == shares, listed

    apart(copied)
