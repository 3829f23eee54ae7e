"""Checkpoints whose weights are quantized already: every encoding becomes a row source like any other.

``decoded`` wraps a checkpoint; nothing downstream knows how its tensors are stored. Which tensors are encoded is decided by the
companions they have in the files, never by a list in config.json. Values are computed in float32 and rounded once, to the type
the weight had where the files say it, so they equal those of the library that wrote them bit for bit.
"""

from .checkpoint import as_saved, decoded, decoder_of, decoders_of, is_float8, scale_beside
from .decoded_rows import DecodedRows

__all__ = ["DecodedRows", "as_saved", "decoded", "decoder_of", "decoders_of", "is_float8", "scale_beside"]
