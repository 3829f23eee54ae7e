"""Balance of chat templates."""

from __future__ import annotations

import time

import pytest

from streamconv.check.template import imbalance

GOOD = [
    "",
    "plain text } with %} braces",
    "{{ bos }}{% for m in messages %}{% if m.role == 'user' %}{{ m.text }}{% elif x %}b{% else %}c{% endif %}{% endfor %}",
    "{%- for m in messages -%}{{- m['{%'] -}}{%- else -%}none{%- endfor -%}",
    "{% set x = {'a': {'b': 1}} %}{{ x }}{{ {'a': 1} }}",
    "{% set x %}text{% endset %}",
    "{% set x %}text with '=' in it{% endset %}",
    "{# a comment with {% and ' #}",
    "{% raw %}{{ not closed {% if %}{% endraw %}",
    "{% macro f(a, b='}}') %}{{ a }}{% endmacro %}{{ f(1) }}",
    "{% generation %}x{% endgeneration %}",
    "{{ 'it\\'s }}' }}",
    "{%+ if a +%}{% endif %}",
    "{% break %}{% continue %}{% do x() %}{% include 'y' %}",
]
BAD = {
    "{% if a %}": "'if' of line 1 is never ended",
    "\n\n{{ a": "'{{' of line 3 is never closed",
    "{% if a %}{% endfor %}": "'endfor' of line 1 has no block to end",
    "{% endif %}": "has no block to end",
    "{% else %}": "outside if and for",
    "{% for a in b %}{% elif c %}{% endfor %}": "'elif' of line 1 is outside if",
    "{{ 'open }}": "never closed",
    "{% %}": "is empty",
    "{# never": "'{#' of line 1",
    "{% raw %}{{": "'raw' of line 1 is never ended",
    "{% set x %}": "'set' of line 1 is never ended",
}


@pytest.mark.parametrize("template", GOOD)
def test_a_balanced_template_passes(template: str) -> None:
    assert imbalance(template) == ""


@pytest.mark.parametrize("template", BAD)
def test_the_first_fault_is_named_with_its_line(template: str) -> None:
    assert BAD[template] in imbalance(template)


def test_a_template_of_a_hundred_thousand_lines_is_looked_at_in_a_second() -> None:
    began = time.process_time()
    assert imbalance("{{a}}\n" * 170_000 + "{{") == "'{{' of line 170001 is never closed"
    assert time.process_time() - began < 8
