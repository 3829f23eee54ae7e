"""gemma.cpp's types: the bytes of its own encoders and of slow, obvious models, whole or in pieces, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sbs_naive

from streamconv import sbs
from streamconv.errors import BadInput, UsageError
from streamconv.quant.sbs.types import SBS_TYPES, codec, scale_of
from streamconv.rows import Floats

F = np.float32
with np.load(Path(__file__).resolve().parents[1] / "data" / "sbs" / "codecs.npz") as _file:
    GOLDEN = dict(_file)
CASES = sorted(name.removesuffix(".input") for name in GOLDEN if name.endswith(".input"))
PACKED = ["sfp", "nuq", "i8"]


def awkward() -> dict[str, Floats]:
    """Values that take each way through the search: ties, sums that cancel in float32, few values, far ones, and tiny ones."""
    r = np.random.default_rng(11)
    made = {
        "normal": r.standard_normal(768) * 0.02,
        "heavy": r.standard_t(2, 768) * 0.05,
        "large": r.standard_cauchy(700) * 30,
        "far from zero": -0.3 + r.standard_normal(512) * 1e-4,
        "rounded": np.round(r.standard_normal(512) * 20) / 64,
        "two places": np.where(r.random(512) < 0.5, -1, 1) + r.standard_normal(512) * 1e-3,
        "equal": np.full(300, 0.3),
        "a few large": np.where(r.random(512) < 0.01, 1.8, r.standard_normal(512) * 1e-3),
        "sparse": np.where(r.random(512) < 0.9, 0, r.standard_normal(512)),
        "tiny": r.standard_normal(400) * 1e-39,
        "of all sizes": np.copysign(10 ** r.uniform(-8, 0, 512), r.standard_normal(512)),
        "both zeros": np.copysign(0.0, r.standard_normal(300)),
        "negative": -r.random(511),
        "one": np.array([-0.7]),
    }
    return {name: x.astype(F) for name, x in made.items()}


# -- the same bytes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_bytes_scale_and_values_are_those_of_gemma_cpp(case: str) -> None:
    type_ = case.partition("_")[0]
    x, packed = GOLDEN[f"{case}.input"], GOLDEN[f"{case}.packed"]
    got, scale = sbs.encode(x, type_)
    assert got.tobytes() == packed.tobytes()
    assert scale == GOLDEN[f"{case}.scale"]
    assert sbs.decode(packed, type_, len(x)).tobytes() == GOLDEN[f"{case}.decoded"].tobytes()


def test_every_byte_of_sfp_means_what_it_means_to_gemma_cpp() -> None:
    got = sbs.decode(np.arange(256, dtype=np.uint8), "sfp", 256)
    assert got.tobytes() == GOLDEN["sfp.table"].tobytes()


@pytest.mark.parametrize("type_", PACKED)
@pytest.mark.parametrize("kind", awkward())
def test_bytes_equal_those_of_a_model_that_looks_at_everything(kind: str, type_: str) -> None:
    x = awkward()[kind]
    assert sbs.encode(x, type_)[0].tobytes() == sbs_naive.ENCODERS[type_](x)


# -- pieces, stored numbers, sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SBS_TYPES)
def test_a_tensor_may_be_encoded_in_pieces_of_whole_groups(name: str) -> None:
    type_, x = SBS_TYPES[name], awkward()["heavy"][:700] * F(9)
    scale = scale_of(type_, float(np.abs(x).max()))
    whole, pieces = sbs.encode(x, name)[0], []
    for a in range(0, len(x), 256):
        piece = x[a : a + 256]
        pieces.append(np.full(type_.n_bytes(len(piece)), 255, np.uint8))
        codec(type_).encode(piece, pieces[-1], scale)
    assert np.concatenate(pieces).tobytes() == whole.tobytes()


@pytest.mark.parametrize("factor", [1, 64])
@pytest.mark.parametrize("name", SBS_TYPES)
def test_bfloat16_numbers_are_encoded_as_the_float32_numbers_that_they_are(name: str, factor: int) -> None:
    words = ((awkward()["normal"] * F(factor)).view(np.uint32) >> 16).astype(np.uint16)
    x = (words.astype(np.uint32) << 16).view(F)
    for part in (slice(None), slice(0, 300), slice(5, 6)):
        for sign in (0, 0x8000):  # all of one sign, too
            w, v = words[part] & 0x7FFF | sign if sign else words[part], x[part]
            v = -np.abs(v) if sign else v
            data, scale = sbs.encode(v, name)
            got = np.empty_like(data)
            codec(SBS_TYPES[name]).encode(w, got, scale)
            assert got.tobytes() == data.tobytes()


@pytest.mark.parametrize("name", SBS_TYPES)
def test_no_values_are_no_bytes(name: str) -> None:
    data, scale = sbs.encode(np.empty(0, F), name)
    assert (len(data), float(scale), len(sbs.decode(data, name, 0))) == (0, 1.0, 0)


def test_decoding_multiplies_by_the_scale_and_stays_near() -> None:
    x = awkward()["normal"].reshape(3, -1) * F(1000)
    for name, near in (("sfp", 0.07), ("nuq", 0.25), ("i8", 0.02)):
        data, scale = sbs.encode(x, name.upper())
        error = np.abs(sbs.decode(data, name, x.size, float(scale)) - x.reshape(-1))
        assert error.mean() < near * np.abs(x).mean()


def test_equal_values_of_i8_that_are_next_to_nothing_become_zero_and_not_nan() -> None:
    x = np.array([1e-38, -1e-38, 0], F)
    assert (sbs.decode(sbs.encode(x, "i8")[0], "i8", 3) == 0).all()


# -- refused ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_its_place(value: float) -> None:
    with pytest.raises(BadInput, match="value 2 is"):
        sbs.encode([0, 1, value], "sfp")


@pytest.mark.parametrize("name", ["bf16", "i8"])
def test_what_the_type_would_make_infinite_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="too large for"):
        sbs.encode([3.4e38, -3.4e38], name)


def test_an_unknown_type_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(UsageError, match="f32, bf16, sfp, nuq, i8"):
        sbs.encode([0], "q8_0")


def test_bytes_of_another_number_of_values_are_refused() -> None:
    with pytest.raises(UsageError, match="5 values are 9 bytes as I8, not 8"):
        sbs.decode(np.zeros(8, np.uint8), "i8", 5)
