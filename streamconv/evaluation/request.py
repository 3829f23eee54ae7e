"""What a model is to be run over: a text, cut into chunks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..conversion import Options
from ..errors import BadInput, UsageError, unreadable
from ..forward import Model, refuse_tokens
from ..forward.chunks import N_CTX, Chunks, cut
from ..sources.checkpoint import Checkpoint, InputFile
from ..text import DEFAULT_NAME, default_text, open_tokenizer

#: tokens that are enough for a model without experts: more change its importance matrix by less than 0.2 %
_ENOUGH = 40 * N_CTX
#: visits that an expert should have, on average
_VISITS = 2000
#: about as long as tokens are; and tokens that must follow, as the end of a text decides on the tokens shortly before it
_BYTES_OF_TOKEN, _BEHIND = 8, 4096


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes
    ----------
    text : a file, or None for the bundled text
    n_ctx : tokens of a chunk
    n_chunks : the most chunks, -1 for all; None: as many as are enough
    skip : chunks that are left out at the beginning
    parse_special : whether texts such as ``<|im_start|>`` become the tokens of that name
    process_output : an entry for output.weight, too
    with_perplexity : tell the perplexity, too
    before : importance matrices to count on from
    """

    text: Path | None
    n_ctx: int = N_CTX
    n_chunks: int | None = None
    skip: int = 0
    parse_special: bool = False
    process_output: bool = False
    with_perplexity: bool = True
    before: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.n_ctx < 4:
            raise UsageError(f"-c {self.n_ctx}: a chunk has at least 4 tokens", "Use -c 512.")
        if self.n_chunks is not None and (self.n_chunks < -1 or not self.n_chunks):
            raise UsageError(f"--chunks {self.n_chunks} is no number of chunks", "Use --chunks 40, or -1 for all.")
        if self.skip < 0:
            raise UsageError(f"--from-chunk {self.skip} is no number of chunks", "Use --from-chunk 0 or more.")

    @property
    def text_name(self) -> str:
        """What messages and files call the text."""
        return DEFAULT_NAME if self.text is None else os.fsencode(self.text).decode(errors="replace")

    def read_text(self) -> tuple[list[InputFile], bytes]:
        """The file of the text, if it is in one, and its bytes; raises as ``input_file``."""
        if self.text is None:
            return [], default_text()
        file, data = input_file(self.text)
        return [file], data


def refuse_idle(options: Options, checkpoints: Sequence[Checkpoint]) -> None:
    """UsageError for an option that none of the models makes anything of."""
    if options.pre and all(checkpoint.metadata is not None for checkpoint in checkpoints):
        raise UsageError("--pre has no effect on a GGUF file, which names its pre-tokenizer", "Leave it out.")


def input_file(path: Path) -> tuple[InputFile, bytes]:
    """The small file ``path``, with a digest of all of it, and its bytes.

    Raises
    ------
    InputMissing, NoPermission : it cannot be read
    BadInput : it is no regular file
    """
    try:
        if os.path.lexists(path) and not path.is_file():
            raise BadInput(f"{path} is not a regular file")
        with open(path, "rb") as file:
            status, data = os.fstat(file.fileno()), file.read()
    except OSError as e:
        raise unreadable(path, e) from None
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    found = InputFile(
        path.name, path, len(data), digest, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
    )
    return found, data


def tokens_of(model: Model, where: str, text: bytes, request: Request) -> tuple[list[int], int | None]:
    """The tokens of ``text``, as many as are used, and the one that begins every chunk, if there is one.

    What lies far behind the last chunk is left out first, so memory does not grow with a text of which a few chunks are taken.

    Raises
    ------
    BadInput : the model's tokenizer ends every text with a token, as those of encoders do
    """
    tokenizer = open_tokenizer({key: value.value for key, value in model.metadata.items()})
    if tokenizer.add_eos:
        raise BadInput(f"{where}: its tokenizer ends every text with a token, so chunks of a text cannot be cut")
    most, text = _most_tokens(model, request), text.removesuffix(b"\n")
    n_bytes = len(text) if most is None else _BYTES_OF_TOKEN * (most + _BEHIND)
    while True:
        tokens = tokenizer.encode(_beginning(text, n_bytes), parse_special=request.parse_special)
        if n_bytes >= len(text) or (most is not None and len(tokens) >= most + _BEHIND):
            return tokens[:most], tokenizer.bos if tokenizer.add_bos else None
        n_bytes *= 2


def _beginning(text: bytes, n_bytes: int) -> bytes:
    """At least ``n_bytes`` of ``text``, up to where a character of UTF-8 ends: not every vocabulary has tokens for parts of one."""
    more = (n for n in range(n_bytes, n_bytes + 4) if n >= len(text) or text[n] & 0xC0 != 0x80)
    return text[: next(more, n_bytes)]


def _most_tokens(model: Model, request: Request) -> int | None:
    """Tokens after which a text may end without a difference; None where all are used."""
    limit = _most_chunks(model, request)
    return None if limit is None else (request.skip + max(limit, 2)) * request.n_ctx + 1


def _most_chunks(model: Model, request: Request) -> int | None:
    limit = request.n_chunks if request.n_chunks is not None else -(-enough(model) // request.n_ctx)
    return None if limit < 0 else limit


def chunks_of(model: Model, where: str, text: bytes, request: Request) -> Chunks:
    """``text`` in chunks, with the tokens of ``model``; raises as ``tokens_of``, ``cut`` and ``refuse_tokens``."""
    tokens, bos = tokens_of(model, where, text, request)
    chunks = cut(tokens, request.n_ctx, skip=request.skip, limit=_most_chunks(model, request), bos=bos)
    refuse_tokens(model, chunks.inputs, where)
    refuse_tokens(model, chunks.targets, where)
    return chunks


def enough(model: Model) -> int:
    """Tokens that are enough for ``model``, by how seldom an expert is reached."""
    router, used = model.router, max((layer.n_experts_used for layer in model.layers), default=0)
    return _ENOUGH if router is None or not used else max(_ENOUGH, -(-_VISITS * router.n_experts // used))
