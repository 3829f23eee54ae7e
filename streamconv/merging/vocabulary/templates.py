"""Chat templates: the one a recipe names, writes down, or leaves to a vote."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...file_names import TEMPLATES, fits
from ...sources.checkpoint import MAX_SIDE_BYTES, Checkpoint
from ...sources.hostile_json import parse_json
from ...sources.small_files import read_small
from .tokens import CONFIG

FILE = "chat_template.jinja"
_OLD_FILE = "chat_template.json"
#: shorter text is a misspelt name, not a template
_SHORTEST = 20

_ALPACA = """\
{% for message in messages -%}
{% if message['role'] == 'assistant' -%}
### Response:
{{ message['content'] }}{{ eos_token }}

{% elif message['role'] == 'system' -%}
{{ message['content'] }}

{% else -%}
### Instruction:
{{ message['content'] }}

{% endif -%}
{% endfor -%}
{% if add_generation_prompt -%}
### Response:
{% endif -%}
"""
_CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""
_EXAONE = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{ '[|user|]' + message['content'] + '\\n' }}
{%- else -%}
{{ '[|' + message['role'] + '|]' + message['content'] + '[|endofturn|]\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '[|assistant|]' }}
{%- endif -%}
"""
_LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif -%}
"""
_MISTRAL = """\
{{- bos_token -}}
{%- set waiting = namespace(text='') -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{%- set waiting.text = message['content'] + '\\n\\n' -%}
{%- elif message['role'] == 'assistant' -%}
{{ ' ' + message['content'] + eos_token }}
{%- else -%}
{{ '[INST] ' + waiting.text + message['content'] + ' [/INST]' }}
{%- set waiting.text = '' -%}
{%- endif -%}
{%- endfor -%}
"""
BUILTIN: Mapping[str, str] = {
    "alpaca": _ALPACA,
    "chatml": _CHATML,
    "exaone": _EXAONE,
    "llama3": _LLAMA3,
    "mistral": _MISTRAL,
}


def chosen_template(wanted: str, models: Mapping[str, Checkpoint]) -> str | None:
    """The template that ``chat_template: wanted`` asks for.

    Parameters
    ----------
    wanted : ``auto``, a builtin name, or Jinja text
    models : the models that are merged, for ``auto``: what most of them have, of equals the first

    Returns
    -------
    str : the template; None when ``auto`` finds none

    Raises
    ------
    UsageError : it is neither a known name nor a template
    """
    if wanted == "auto":
        found = Counter(text for each in models.values() if (text := template_of(each)))
        return found.most_common(1)[0][0] if found else None  # of equals, the one counted first
    if wanted in BUILTIN:
        return BUILTIN[wanted]
    if "{" in wanted and len(wanted) >= _SHORTEST:
        return wanted
    raise UsageError(
        f"chat_template: {wanted!r} is neither a builtin template nor Jinja text",
        f"Use auto, {', '.join(BUILTIN)}, or write the template itself.",
    )


def template_of(checkpoint: Checkpoint) -> str | None:
    """The plain chat template of a model; None when it has none."""
    text = checkpoint.text(FILE)
    if text is not None:
        return text
    for name in (_OLD_FILE, CONFIG):
        found = (checkpoint.json(name) or {}).get("chat_template")
        if isinstance(found, list):  # several with names
            named: dict[Any, Any] = {e.get("name"): e.get("template") for e in found if isinstance(e, Mapping)}
            found = named.get("default")
        if isinstance(found, str):
            return found
    return None


def with_template(side: Mapping[str, Path | bytes], text: str) -> dict[str, Path | bytes]:
    """Tokenizer files with ``text`` as their only chat template: readers differ in which of several they take."""
    kept = {name: f for name, f in side.items() if not fits(name, TEMPLATES)}
    found = kept.get(CONFIG)
    if found is not None:
        config = parse_json(found if isinstance(found, bytes) else read_small(found, MAX_SIDE_BYTES), of_tokenizer=True)
        if config.pop("chat_template", None) is not None:
            kept[CONFIG] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    kept[FILE] = text.encode()
    return kept
