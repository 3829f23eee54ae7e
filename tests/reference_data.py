"""Where the big reference data are, if they are anywhere."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def reference_dir() -> Path | None:
    """The folder with golden/, models/ and spec/: STREAMCONV_REFERENCE, or ../shared beside the checkout."""
    for candidate in (os.environ.get("STREAMCONV_REFERENCE"), _ROOT.parent / "shared"):
        if candidate and (Path(candidate) / "golden").is_dir():
            return Path(candidate)
    return None
