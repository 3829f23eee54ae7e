"""The rules that give tensors types of their own: those of the command line, then those of a file."""

from __future__ import annotations

from ..errors import BadInput
from ..sources.checkpoint import MAX_TEXT_BYTES
from ..sources.small_files import read_small
from .options import Options


def rules_of(options: Options) -> tuple[str, ...]:
    """``REGEX=TYPE`` of all rules, in the order in which they are tried.

    Raises
    ------
    BadInput : the file is not UTF-8; and see ``read_small``
    """
    path = options.tensor_type_file
    if path is None:
        return options.tensor_types
    try:
        text = read_small(path, MAX_TEXT_BYTES).decode()
    except UnicodeDecodeError as e:
        raise BadInput(f"{path} is not UTF-8 (byte {e.start})") from None
    return (*options.tensor_types, *words(text))


def words(text: str) -> list[str]:
    """The words of a file of rules; one that begins with # begins a comment, up to the end of its line.

    >>> words("# all of it\\nffn_up=Q4_K  # small\\n attn_v=Q8_0 attn_k=Q6_K")
    ['ffn_up=Q4_K', 'attn_v=Q8_0', 'attn_k=Q6_K']
    """
    found = []
    for line in text.splitlines():
        for word in line.split():
            if word.startswith("#"):
                break
            found.append(word)
    return found
