"""What a checkpoint could give to the output, by the names of tensors and keys that most families have.

A loader asks for something that the output lacks: either the checkpoint lacks it too, or the family has forgotten it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import BadInput
from ..metadata import Metadata
from ..sources.checkpoint import Checkpoint
from .build import settled
from .family import Family
from .keys import BASE, Key, expert_feed_forward_length, sliding_window, vocab_size
from .rules import Names

#: keys that say what config.json states, and nothing where it does not
_STATED: tuple[Key, ...] = (*BASE, expert_feed_forward_length, sliding_window, vocab_size)


def offered(checkpoint: Checkpoint, family: Family, left_out: Mapping[str, str]) -> dict[str, str]:
    """GGUF name of a tensor or key -> where the checkpoint has it, in words.

    Parameters
    ----------
    left_out : tensors of the checkpoint -> why; what an option leaves out, named first, is not forgotten
    """
    family, config = settled(checkpoint, family)
    names = Names(family.named_as or family.arch, (), {})
    found = {}
    for name in (n for n in checkpoint.tensors if not left_out.get(n, "").startswith("--")):
        target = names.renamed(family.spelled(name, config))
        if target is not None:
            found[target[0]] = f"tensor {name!r}"
    for key in _STATED:
        stated = Metadata()
        try:
            key(stated, family.arch, config)
        except BadInput:
            continue
        found.update({name: checkpoint.config_file for name, _ in stated.items()})
    return found
