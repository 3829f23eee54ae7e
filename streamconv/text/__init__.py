"""Text becomes tokens by the keys of a GGUF file, and they are those that llama.cpp makes."""

from .bundled import NAME as DEFAULT_NAME
from .bundled import default_text
from .tokenizer import Tokenizer, open_tokenizer

__all__ = ["DEFAULT_NAME", "Tokenizer", "default_text", "open_tokenizer"]
