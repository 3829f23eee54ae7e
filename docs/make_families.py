"""Write the table of families in README.md from the code; ``--check`` fails when it is out of date."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from streamconv.models import FAMILIES, PROJECTORS
from streamconv.models.family import Family

PAGE = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- families -->\n", "<!-- /families -->"


def table() -> str:
    """Every architecture that this package itself knows, a line for text models and one for projectors."""
    texts, projectors = FAMILIES.ours(), PROJECTORS.ours()
    files = [Path(PROJECTORS.home(name)).stem for name in projectors]
    return "\n".join([
        "| | Hugging Face names | become |", "|---|---|---|",
        f"| text | {len(texts)} | {_listed(family.arch for family in _each(texts.values()))} |",
        f"| projectors | {len(projectors)} | {_listed(files)} |", "",
    ])  # fmt: skip


def _each(families: Iterable[Family]) -> list[Family]:
    return list({id(family): family for family in families}.values())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted({*names}))


def page() -> str:
    """The whole of README.md, with the table in its place."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit("the table of families in README.md is out of date: run python docs/make_families.py")
