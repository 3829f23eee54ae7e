"""What everything compiled shares: decorators and exact float helpers, and how modules of kernels are loaded and kept.

``load`` and ``cache`` need no numba; the other modules bring it along.
"""

from .loading import PACKAGE, load

__all__ = ["PACKAGE", "load"]
