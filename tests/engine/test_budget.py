"""The memory budget."""

from __future__ import annotations

import pytest

from streamconv.engine.budget import default_ram, default_threads, parse_size, share
from streamconv.errors import UsageError
from streamconv.units import MIB


@pytest.mark.parametrize(
    ("text", "n"), [("1", 1), ("2KiB", 2048), ("1.5GiB", 3 << 29), ("3g", 3_000_000_000), (" 64 MB ", 64_000_000)]
)
def test_sizes_are_read_in_both_powers(text: str, n: int) -> None:
    assert parse_size(text) == n


@pytest.mark.parametrize("text", ["", "x", "1.2.3G", ".", "-1", "5 parsecs"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("ram_mib", [32, 64, 128, 256, 1024, 8192])
def test_the_shares_stay_within_the_budget(ram_mib: int) -> None:
    b = share(ram_mib * MIB, 8, 28672, 28672 * 4)
    assert b.threads * (b.buffer_bytes + 4 * b.scratch_floats) <= ram_mib * MIB
    assert b.buffer_bytes >= 28672 * 4
    assert b.scratch_floats >= 2 * 28672
    assert 1 <= b.threads <= 8


@pytest.mark.parametrize("row_bytes", [1, 4096, 600_000, 3 << 20])
@pytest.mark.parametrize("n_cols", [1, 65_537, 300_000])
def test_however_tight_it_is_nothing_is_shared_out_beyond_the_budget(n_cols: int, row_bytes: int) -> None:
    shared = 0
    for ram in range(MIB // 2, 24 * MIB, MIB // 2):
        for threads in (1, 3, 8):
            try:
                b = share(ram, threads, n_cols, row_bytes)
            except UsageError:
                continue
            shared += 1
            assert b.threads * (b.buffer_bytes + 4 * b.scratch_floats) <= ram, f"{ram} bytes, {threads} threads"
    assert shared


def test_threads_are_given_up_before_the_job_is() -> None:
    assert share(8 * MIB, 16, 100_000, 400_000).threads < 16


def test_a_row_too_wide_for_the_budget_is_refused_with_the_number_that_would_do() -> None:
    with pytest.raises(UsageError, match="--ram 1 MiB is too little") as caught:
        share(MIB, 1, 1_000_000, 4_000_000)
    wanted = int(caught.value.hint.split("--ram ")[1].split("MiB")[0])
    assert share(wanted * MIB, 1, 1_000_000, 4_000_000).threads == 1


def test_the_default_is_modest_and_the_threads_exist() -> None:
    assert 0 < default_ram() <= 2 << 30
    assert default_threads() >= 1
