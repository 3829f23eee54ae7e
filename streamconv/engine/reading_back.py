"""What is in the part files, read from files opened for it: what others wrote there may not show in a file opened before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import groupby

from . import files
from .index_file import CommitRecord
from .plan import Plan
from .verify import digest_of


def damaged(plan: Plan, made: Iterable[CommitRecord], go_on: Callable[[], None] = lambda: None) -> list[CommitRecord]:
    """Those of the chunks ``made`` whose bytes on disk do not have their digest; reads them all.

    Parameters
    ----------
    go_on : called before every chunk; raises what is to end it

    Raises
    ------
    WriteFailed : they cannot be read
    CannotCreate : a file is not there
    """
    found = []
    for file, group in groupby(sorted(made, key=lambda s: (s.file, s.offset)), key=lambda s: s.file):
        path = plan.part_path(file)
        with files.guard(path, "cannot open"):
            fd = files.open_own(path, os.O_RDONLY)
        try:
            for s in group:
                go_on()
                files.drop_cache(fd, s.offset, s.length)
                if digest_of(fd, s.offset, s.length, path) != s.digest:
                    found.append(s)
                files.drop_cache(fd, s.offset, s.length)
        finally:
            os.close(fd)
    return found
