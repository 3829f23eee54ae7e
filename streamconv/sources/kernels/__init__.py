"""Compiled code of the readers; see ``kernels``."""
