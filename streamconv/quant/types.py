"""The ggml tensor types: id, block geometry and where the codec lives. Needs no numba, so planning stays fast.

Source: ggml.h ``enum ggml_type`` and ``type_traits`` (ggml 0.25.3).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorType:
    """One ggml tensor type.

    Attributes
    ----------
    name : spelling of ggml, upper case
    id : number stored in a GGUF tensor info
    block_size : weights per block
    block_bytes : bytes per block
    module : name of the module of ``formats/`` that holds the codec, or with a dot before it of another one; empty when there is
        none
    """

    name: str
    id: int
    block_size: int
    block_bytes: int
    module: str = ""

    def row_bytes(self, n_cols: int) -> int:
        """Bytes of a row of ``n_cols`` weights, which must be whole blocks (ValueError otherwise)."""
        if n_cols % self.block_size:
            raise ValueError(f"{self.name}: {n_cols} columns are not a multiple of {self.block_size}")
        return n_cols // self.block_size * self.block_bytes


_TABLE = [
    TensorType("F32", 0, 1, 4, "floats"),
    TensorType("F16", 1, 1, 2, "floats"),
    TensorType("Q4_0", 2, 32, 18, "q4_0"),
    TensorType("Q4_1", 3, 32, 20, "q4_1"),
    TensorType("Q5_0", 6, 32, 22, "q5_0"),
    TensorType("Q5_1", 7, 32, 24, "q5_1"),
    TensorType("Q8_0", 8, 32, 34, "q8_0"),
    TensorType("Q2_K", 10, 256, 84, "q2_k"),
    TensorType("Q3_K", 11, 256, 110, "q3_k"),
    TensorType("Q4_K", 12, 256, 144, "q4_k"),
    TensorType("Q5_K", 13, 256, 176, "q5_k"),
    TensorType("Q6_K", 14, 256, 210, "q6_k"),
    TensorType("IQ2_XXS", 16, 256, 66, "iq2_xxs"),
    TensorType("IQ2_XS", 17, 256, 74, "iq2_xs"),
    TensorType("IQ3_XXS", 18, 256, 98, "iq3_xxs"),
    TensorType("IQ1_S", 19, 256, 50, "iq1_s"),
    TensorType("IQ4_NL", 20, 32, 18, "iq4_nl"),
    TensorType("IQ3_S", 21, 256, 110, "iq3_s"),
    TensorType("IQ2_S", 22, 256, 82, "iq2_s"),
    TensorType("IQ4_XS", 23, 256, 136, "iq4_xs"),
    TensorType("I8", 24, 1, 1),
    TensorType("I16", 25, 1, 2),
    TensorType("I32", 26, 1, 4),
    TensorType("I64", 27, 1, 8),
    TensorType("F64", 28, 1, 8),
    TensorType("IQ1_M", 29, 256, 56, "iq1_m"),
    TensorType("BF16", 30, 1, 2, "floats"),
    TensorType("TQ1_0", 34, 256, 54, "tq1_0"),
    TensorType("TQ2_0", 35, 256, 66, "tq2_0"),
    TensorType("MXFP4", 39, 32, 17, "mxfp4"),
    TensorType("NVFP4", 40, 64, 36, "nvfp4"),
    TensorType("Q1_0", 41, 128, 18, "q1_0"),
    TensorType("Q2_0", 42, 64, 18, "q2_0"),
]

#: by upper-case name
TYPES: dict[str, TensorType] = {t.name: t for t in _TABLE}
#: by the id stored in files
BY_ID: dict[int, TensorType] = {t.id: t for t in _TABLE}
