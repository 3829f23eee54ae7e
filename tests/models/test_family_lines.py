"""Families are short: ``python tests/models/test_family_lines.py`` prints architectures, lines of the family file, and its name."""

from __future__ import annotations

import statistics
from importlib import import_module
from pathlib import Path

from streamconv.models import families

#: what the median family may have, and any
MEDIAN, MOST = 40, 150
FILES = {
    path.stem: len(path.read_text("utf-8").splitlines())
    for path in sorted(Path(families.__file__).parent.glob("*.py"))
    if path.stem != "__init__"
}
FAMILY_FILES = {name: lines for name, lines in FILES.items() if not name.startswith("_")}


def lines_of_architectures() -> dict[str, tuple[int, str]]:
    """Hugging Face architecture -> lines of its family file, and the file."""
    return {
        architecture: (lines, name)
        for name, lines in FAMILY_FILES.items()
        for architecture in import_module(f"{families.__name__}.{name}").FAMILY.architectures
    }


def test_half_of_the_families_are_short_and_none_is_long() -> None:
    assert {name: lines for name, lines in FILES.items() if lines > MOST} == {}
    assert statistics.median(FAMILY_FILES.values()) <= MEDIAN


def test_half_of_the_architectures_have_a_short_family() -> None:
    assert statistics.median(lines for lines, _ in lines_of_architectures().values()) <= MEDIAN


if __name__ == "__main__":
    table = lines_of_architectures()
    for architecture, (lines, name) in sorted(table.items(), key=lambda entry: (entry[1][0], entry[0])):
        print(f"{architecture:40} {lines:4} {name}.py")
    for what, counts in (
        ("family files", FAMILY_FILES.values()),
        ("architectures", [lines for lines, _ in table.values()]),
    ):
        print(f"{len(counts)} {what}: median {statistics.median(counts):g} lines, at most {max(counts)}")
