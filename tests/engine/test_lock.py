"""Who holds a job."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from streamconv.engine import files
from streamconv.engine.lock import JobLock
from streamconv.errors import Locked


def test_a_holder_is_named_that_has_not_said_yet_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    fd = files.open_or_create(path)
    assert files.lock_exclusively(fd)
    me = json.dumps({"pid": 4711, "host": "elsewhere", "start": 0}).encode()
    writer = threading.Timer(0.2, lambda: files.pwrite_all(fd, me, 0, path))
    writer.start()
    with pytest.raises(Locked, match="pid 4711 on elsewhere, since"):
        JobLock(path)
    writer.join()
