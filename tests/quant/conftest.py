"""What of the block formats is left to the slow tests."""

from __future__ import annotations

import re

import pytest

#: the searches over grids take a minute to compile
_LATER = re.compile(r"\b(IQ1_S|IQ1_M|IQ2_XXS|IQ2_XS|IQ2_S|IQ3_XXS|IQ3_S)\b")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/quant/" in item.nodeid and _LATER.search(item.name.partition("[")[2].replace("-", " ")):
            item.add_marker(pytest.mark.slow)
