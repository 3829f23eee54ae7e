"""What ``--cluster`` and ``--cluster-tls`` say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from ..errors import UsageError, absent

_HINT = "Give tcp://HOST:PORT or tls://HOST:PORT of a Dask scheduler, its FILE.json, or local:N for N processes on this machine."


@dataclass(frozen=True)
class Where:
    """Which workers make the chunks: one of three.

    Attributes
    ----------
    address : of a scheduler; "" where it is in a file or there is none yet
    file : the file in which a scheduler wrote its address
    n_local : processes to start here; 0: none
    tls : files of the certificate authority, of this process's certificate and of its key
    """

    address: str = ""
    file: Path | None = None
    n_local: int = 0
    tls: tuple[str, str, str] | None = None

    @classmethod
    def parse(cls, cluster: str, tls: str | None = None) -> Where:
        """What the options say.

        Raises
        ------
        UsageError : they make no sense, or Dask is not installed
        InputMissing : a file of certificates is not there

        >>> Where.parse("local:4").n_local
        4
        """
        scheme, _, rest = cluster.partition(":")
        certificates = None if tls is None else _certificates(tls)
        if scheme == "local" and rest.isdigit() and int(rest):
            found = cls(n_local=int(rest))
        elif scheme in ("tcp", "tls") and rest.startswith("//") and rest.rpartition(":")[2].isdigit():
            found = cls(address=cluster, tls=certificates)
        elif cluster.endswith(".json"):
            found = cls(file=Path(cluster), tls=certificates)
        else:
            raise UsageError(f"--cluster {cluster!r} names no workers", _HINT)
        if found.file is None:
            replace(found, tls=certificates).refuse(cluster)
        if find_spec("distributed") is None:
            raise UsageError("--cluster needs Dask, which is not installed", "pip install 'streamconv[dask]'")
        return found

    def refuse(self, address: str) -> None:
        """UsageError where there are no certificates for the scheduler at ``address``, or some that it does not ask for."""
        is_tls = address.startswith("tls:")
        if self.tls is not None and not is_tls:
            raise UsageError(
                f"--cluster-tls has no effect on {address}", "It is for tls://HOST:PORT, and for a FILE.json with one."
            )
        if is_tls and self.tls is None:
            raise UsageError(f"--cluster {address} needs certificates", "Add --cluster-tls CA.pem,CERT.pem,KEY.pem.")

    def __str__(self) -> str:
        return self.address or (str(self.file) if self.file else f"local:{self.n_local}")


def _certificates(text: str) -> tuple[str, str, str]:
    parts = text.split(",")
    if len(parts) != 3:
        raise UsageError(f"--cluster-tls {text!r} are not three files", "Write CA.pem,CERT.pem,KEY.pem.")
    for part in parts:
        if not Path(part).is_file():
            raise absent(part)
    return parts[0], parts[1], parts[2]
