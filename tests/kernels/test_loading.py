"""Modules of kernels by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from streamconv.kernels import cache, load

KERNELS = """
from streamconv.kernels.lanes import kernel, round_half_away

@kernel
def rounded(x):
    for i in range(len(x)):
        x[i] = round_half_away(x[i])
"""


def test_a_name_that_begins_with_a_dot_is_below_streamconv() -> None:
    found = load(".kernels.rounding")
    assert found is sys.modules["streamconv.kernels.rounding"]
    assert load("streamconv.kernels.rounding") is found


def test_another_package_has_kernels_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    (tmp_path / "acme_kernels.py").write_text(KERNELS)
    monkeypatch.syspath_prepend(tmp_path)
    x = np.array([0.5, 1.25, -2.5], np.float32)
    load("acme_kernels").rounded(x)
    assert x.tolist() == [1, 1, -3]

    monkeypatch.setattr(cache, "_place", lambda: (None, "why"))
    assert not cache.knows("acme", "acme_kernels")
    cache.learn("acme", "acme_kernels")
    assert cache.knows("acme", "acme_kernels")
    (tmp_path / "acme_kernels.py").write_text(KERNELS + "# changed\n")
    from streamconv.kernels import cache_stamp

    cache_stamp.stamp.cache_clear()
    assert not cache.knows("acme", "acme_kernels")


def test_a_module_that_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"streamconv\.kernels\.absent"):
        load(".kernels.absent")
