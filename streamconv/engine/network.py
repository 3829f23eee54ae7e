"""Which file systems other machines write to as well."""

from __future__ import annotations

import os
from pathlib import Path

_KINDS = (
    "nfs",
    "nfs4",
    "cifs",
    "smb2",
    "smb3",
    "lustre",
    "ceph",
    "gpfs",
    "beegfs",
    "orangefs",
    "afs",
    "9p",
    "virtiofs",
)


def is_network(path: Path) -> bool:
    """Whether ``path`` lies on a file system that other machines may have mounted too; False where the system does not tell."""
    try:
        device = os.stat(path).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            return kind_of(f"{os.major(device)}:{os.minor(device)}", file.read()) != ""
    except OSError:
        return False


def kind_of(device: str, mountinfo: str) -> str:
    """The kind of the network file system that is mounted with the numbers ``device``, major:minor; "" if it is another kind.

    >>> kind_of("0:45", "36 35 0:45 / /models rw,relatime shared:1 - nfs4 store:/models rw,vers=4.2")
    'nfs4'
    """
    for line in mountinfo.splitlines():
        mount, _, system = line.partition(" - ")
        fields, kind = mount.split(), system.partition(" ")[0]
        if len(fields) > 2 and fields[2] == device and (kind in _KINDS or kind.startswith("fuse")):
            return kind
    return ""
