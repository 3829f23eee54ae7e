"""log(1 + exp(x)) has the bits that torch gives with AVX-512, on every processor."""

from __future__ import annotations

import numpy as np

from streamconv.kit.softplus import softplus

#: x -> what torch 2.13 gives among many numbers, and alone
_OF_TORCH = {
    0.10107421875: ("0x1.7d6b7ep-1", "0x1.7d6b80p-1"), 7.40625: ("0x1.da09f2p+2", "0x1.da09f4p+2"),
    -3.359375: ("0x1.17e488p-5", "0x1.17e48ap-5"), -1.8359375: ("0x1.2f047ep-3", "0x1.2f047cp-3"),
    -8.625: ("0x1.788800p-13", "0x1.7887fep-13"), 3.03125: ("0x1.8a0842p+1", "0x1.8a0844p+1"),
    0.443359375: ("0x1.e0deb6p-1", "0x1.e0deb8p-1"), 0.275390625: ("0x1.ae3ad6p-1", "0x1.ae3ad8p-1"),
    1.6640625: ("0x1.d66566p+0", "0x1.d66564p+0"), -0.796875: ("0x1.7d0010p-2", "0x1.7d000ep-2"),
    0.640625: ("0x1.105c22p+0", "0x1.105c20p+0"), -6.3125: ("0x1.daf74cp-10", "0x1.daf74ap-10"),
}  # fmt: skip


def test_numbers_come_out_as_torch_computes_them_32_at_a_time_and_alone() -> None:
    x = np.array([*_OF_TORCH], np.float32)
    among_many, alone = softplus(np.resize(x, 32 * 3)), softplus(x)
    assert [float(y).hex() for y in among_many[:12]] == [float.fromhex(y).hex() for y, _ in _OF_TORCH.values()]
    assert [float(y).hex() for y in alone] == [float.fromhex(y).hex() for _, y in _OF_TORCH.values()]


def test_every_number_is_within_two_units_of_the_true_one() -> None:
    x = np.linspace(-80, 25, 31 * 640, dtype=np.float32)
    true = np.log1p(np.exp(x.astype(np.float64)))
    for made in (softplus(x), softplus(x.reshape(-1, 31)).reshape(-1)):
        assert made.dtype == np.float32
        assert np.max(np.abs(made - true) / np.spacing(true.astype(np.float32))) < 2


def test_ends_of_the_range_are_kept() -> None:
    x = np.array([-np.inf, -1e30, 20.5, 1e30, np.inf, np.nan], np.float32)
    assert np.array_equal(softplus(x), np.array([0, 0, 20.5, 1e30, np.inf, np.nan], np.float32), equal_nan=True)
