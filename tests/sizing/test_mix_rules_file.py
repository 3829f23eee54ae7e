"""Comments in a file of rules for tensor types."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamconv.conversion import Options, rules_of
from streamconv.errors import BadInput


def test_comments_reach_to_the_end_of_their_line_and_rules_of_the_command_line_come_first(tmp_path: Path) -> None:
    path = tmp_path / "rules.txt"
    path.write_text("# ffn_up=Q2_K is no rule\nffn_up=Q4_K # because=Q8_0\n\tattn_v=Q8_0  attn_k#x=Q6_K\n#\n")
    assert rules_of(Options(tensor_types=("a=F16",), tensor_type_file=path)) == (
        "a=F16", "ffn_up=Q4_K", "attn_v=Q8_0", "attn_k#x=Q6_K",
    )  # fmt: skip


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.txt"
    path.write_bytes(b"# \xff\n")
    with pytest.raises(BadInput, match=r"not UTF-8 \(byte 2\)"):
        rules_of(Options(tensor_type_file=path))
