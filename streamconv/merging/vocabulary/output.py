"""The tokenizer of the output: whose files it is made of, and what is added to them or taken out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .tokens import Flags, Tokens, flags

_ORDINARY: Flags = flags({"normalized": True})


@dataclass
class MergedVocabulary:
    """The merged vocabulary.

    Attributes
    ----------
    giver : reference of the model whose tokenizer it starts from
    ids : text -> id
    added : text -> flags of those that stand beside the vocabulary
    new : texts whose entry the giver's files lack
    dropped : texts in the giver's files for which its embedding has no row
    end : one more than the largest id
    """

    giver: str
    ids: dict[str, int]
    added: dict[str, Flags]
    end: int
    new: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def append(self, text: str, found: Flags = _ORDINARY) -> bool:
        """Give ``text`` the next id, unless it has one; whether it had none."""
        if text in self.ids:
            return False
        self.ids[text] = self.end
        self.end += 1
        self.mark(text, found)
        return True

    def mark(self, text: str, found: Flags) -> None:
        """Let the tokenizer look for ``text`` before anything else."""
        self.added[text] = found
        self.new.append(text)


def start(giver: str, tokens: Tokens, n_rows: int) -> MergedVocabulary:
    """The vocabulary of one model, without the tokens for which it has no row.

    Parameters
    ----------
    n_rows : of its embedding
    """
    ids = {text: index for text, index in tokens.ids.items() if index < n_rows}
    dropped = [text for text in tokens.ids if text not in ids]
    added = {text: found for text, found in tokens.added.items() if text in ids}
    output = MergedVocabulary(giver, ids, added, min(tokens.end, n_rows) if dropped else tokens.end, dropped=dropped)
    if dropped:
        output.warnings.append(
            f"{tokens.where}: {len(dropped)} tokens such as {dropped[0]!r} have ids beyond the {n_rows} rows of its "
            "embedding and are left out"
        )
    return output


def unite(output: MergedVocabulary, others: Iterable[tuple[Tokens, int]]) -> None:
    """Append the tokens of ``others``, each with its number of rows; ids that are given stay as they are.

    The models with the most tokens come first, so that of all ids most stay where they are. Ordinary tokens are appended
    first, in the order of their ids, then those beside the vocabularies. They all become tokens beside the vocabulary, for
    nothing can be put into merges or scores that were trained without them.
    """
    ranked = sorted(others, key=lambda pair: -len(pair[0].ids))
    for tokens, n_rows in ranked:
        found = [text for _, text in tokens.ordered(n_rows) if text not in tokens.added and output.append(text)]
        if found:
            output.warnings.append(
                f"{len(found)} ordinary tokens of {tokens.where}, such as {found[0]!r}, are appended to the tokenizer of "
                f"{output.giver}, which splits text at them before anything else; "
                "source: base avoids this"
            )
    for tokens, n_rows in ranked:
        for _, text in tokens.ordered(n_rows):
            wanted = tokens.added.get(text)
            if wanted is None or output.append(text, wanted):
                continue
            have = output.added.get(text)
            if have is None:
                output.mark(text, wanted)
            elif have != wanted and _ORDINARY not in (have, wanted):
                output.warnings.append(
                    f"{tokens.where} has other flags for the token {text!r}: the first ones are kept"
                )


def shared_part(ours: Mapping[str, int], theirs: Mapping[str, int]) -> float:
    """How much of the smaller vocabulary the other one has, too."""
    smaller, other = sorted((ours, theirs), key=len)
    return sum(text in other for text in smaller) / max(1, len(smaller))
