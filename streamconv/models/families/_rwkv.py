"""What the RWKV models share: mixing vectors in one tensor, names without suffix, the world's vocabulary and template."""

from __future__ import annotations

from collections.abc import Sequence

from ...kit import Reshaped, join, squeezed
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..rules import Make, Rule
from ..tokenizers import TokenizerRule
from ..tokenizers.rwkv import MODEL, read_rwkv

WORLD = TokenizerRule(("world",), own={"world": (MODEL, read_rwkv)})
#: llama.cpp's template of the world's models
TEMPLATE = (
    "{%- if not add_generation_prompt is defined -%}\n"
    "    {%- set add_generation_prompt = true -%}\n"
    "{%- endif -%}\n"
    "{%- set ns = namespace(system_prompt='') -%}\n"
    "{%- for message in messages -%}\n"
    "    {%- if message['role'] == 'system' -%}\n"
    "        {%- set ns.system_prompt = message['content'] -%}\n"
    "    {%- endif -%}\n"
    "{%- endfor -%}\n"
    "{{bos_token}}\n"
    "{%- if ns.system_prompt != '' -%}\n"
    "{{- 'System: ' + ns.system_prompt + '\\n\\n' -}}\n"
    "{%- endif -%}\n"
    "{%- for message in messages -%}\n"
    "    {%- if message['role'] == 'user' -%}\n"
    "        {{- 'User: ' + message['content']|trim + '\\n\\n' -}}\n"
    "    {%- endif -%}\n"
    "    {%- if message['role'] == 'assistant' and message['content'] is  not none -%}\n"
    "        {%- set content = message['content'] -%}\n"
    "        {%- if '</think>' in content -%}\n"
    "            {%- set content = content.split('</think>')[-1] -%}\n"
    "        {%- endif -%}\n"
    "        {{- 'Assistant: ' + content|trim + '\\n\\n' -}}\n"
    "    {%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "    {{- 'Assistant:' -}}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}\n"
    "        {{- ' <think>\\n</think>' }}\n"
    "    {%- endif %}\n"
    "    {%- if enable_thinking is defined and enable_thinking is true %}\n"
    "        {{- ' <think>' }}\n"
    "    {%- endif %}\n"
    "{%- endif -%}"
)


def suffixed(name: str) -> str:
    """``name`` with the suffix that tensors have elsewhere."""
    return name if name.endswith((".weight", ".bias")) else f"{name}.weight"


def fused(sources: Sequence[str]) -> Rule:
    """Mixing vectors of a block, one behind the other."""
    return Rule(("blk.{bid}.time_mix_lerp_fused.weight",), tuple(sources), _stacked)


def _stacked(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    vectors = [squeezed(each) for each in rows]
    return [Reshaped(join(vectors), (len(vectors), 1, 1, vectors[0].shape[0]))]


def repeated(*targets: str) -> Make:
    """The same rows under several names."""
    return lambda rows, _config: [rows[0] for _ in targets]


def world_tokens(m: Metadata, _a: str, _c: Config) -> None:
    """Ends of texts and turns, and the template of models without one."""
    for name, index in (("bos", 0), ("eos", 0), ("eot", 261)):
        m.u32(f"tokenizer.ggml.{name}_token_id", index)
    for name in ("unknown", "padding", "seperator"):
        m.remove(f"tokenizer.ggml.{name}_token_id")
    m.remove("tokenizer.ggml.pre")
    if "tokenizer.chat_template" not in m:
        m.string("tokenizer.chat_template", TEMPLATE)
