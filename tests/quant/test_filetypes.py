"""File types by name, alias and number."""

from __future__ import annotations

import pytest

from streamconv.errors import UsageError
from streamconv.quant.filetypes import (
    AUTO,
    BY_NUMBER,
    COPY,
    FILE_TYPES,
    GUESSED,
    TARGET_TYPES,
    guess_file_type,
    parse_file_type,
    parse_tensor_type,
)


@pytest.mark.parametrize(
    ("text", "name", "number", "default"),
    [
        ("q4_k_m", "Q4_K_M", 15, "Q4_K"),
        ("Q4_K", "Q4_K_M", 15, "Q4_K"),
        ("q3_k", "Q3_K_M", 12, "Q3_K"),
        ("Q5_k", "Q5_K_M", 17, "Q5_K"),
        (" 15 ", "Q4_K_M", 15, "Q4_K"),
        ("0", "F32", 0, "F32"),
        ("IQ2_S", "IQ2_S", 28, "IQ2_XS"),
        ("iq2_m", "IQ2_M", 29, "IQ2_S"),
        ("IQ3_XS", "IQ3_XS", 22, "IQ3_S"),
        ("mxfp4_moe", "MXFP4_MOE", 38, "MXFP4"),
        ("bf16", "BF16", 32, "BF16"),
        ("Q1_0", "Q1_0", 40, "Q1_0"),
    ],
)
def test_names_aliases_and_numbers_are_accepted_in_any_case(text: str, name: str, number: int, default: str) -> None:
    found = parse_file_type(text)
    assert found.default
    assert (found.name, found.number, found.default.name) == (name, number, default)


def test_copy_and_auto_are_types_without_a_number() -> None:
    assert parse_file_type("Copy") is COPY
    assert parse_file_type("AUTO") is AUTO
    assert COPY.number is AUTO.number is COPY.default is AUTO.default is None


@pytest.mark.parametrize(
    ("text", "hint"),
    [("Q4_KM", "Q4_K_M"), ("IQ4XS", "IQ4_XS"), ("mxfp4", "MXFP4_MOE"), ("nonsense", "BF16"), ("", "BF16")],
)
def test_unknown_names_are_refused_with_near_ones(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match="unknown file type") as e:
        parse_file_type(text)
    assert hint in e.value.hint


@pytest.mark.parametrize("text", ["4", "39", "99", "1024", "9" * 30])
def test_numbers_that_are_retired_or_cannot_be_chosen_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no file type number") as e:
        parse_file_type(text)
    assert "15 Q4_K_M" in e.value.hint


def test_numbers_are_unique_and_files_may_hold_what_cannot_be_chosen() -> None:
    assert len(BY_NUMBER) == 36
    assert BY_NUMBER[39].name == "NVFP4"
    assert "NVFP4" not in FILE_TYPES


def test_tensor_types_are_those_with_a_quantizer() -> None:
    assert parse_tensor_type("nvfp4").name == "NVFP4"
    assert parse_tensor_type("bf16").block_size == 1
    assert "I32" not in TARGET_TYPES
    for text in ("I32", "Q4", "Q8_1"):
        with pytest.raises(UsageError, match="unknown tensor type"):
            parse_tensor_type(text)


def test_a_guess_is_the_most_frequent_type_marked_as_one() -> None:
    assert guess_file_type([]) == GUESSED
    assert guess_file_type(["F32", "Q4_K", "Q4_K", "Q6_K"]) == 15 | GUESSED
    assert guess_file_type(["F16", "F32", "F32", "F16"]) == 0 | GUESSED
    assert guess_file_type(["IQ2_S"]) == 28 | GUESSED
    assert guess_file_type(["I32"]) == GUESSED
