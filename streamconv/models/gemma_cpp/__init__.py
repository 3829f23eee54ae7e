"""gemma.cpp's weight files as a model: the configuration that they hold, and which tensors of Hugging Face their tensors are."""
