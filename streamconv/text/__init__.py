"""Text becomes tokens by the keys of a GGUF file, and they are those that llama.cpp makes."""

from .tokenizer import Tokenizer, open_tokenizer

__all__ = ["Tokenizer", "open_tokenizer"]
