"""Fetching remote files: ranges, each durable by itself; readers wait for the bytes they touch.

``transfer`` is what others use; ``remote`` is a file as it is listed, ``part`` the same on disk, ``connections`` the connections,
``verifier`` which completes files and frees space, ``shared`` what these two and the transfer have in common, ``store`` the folder
of all models, ``owned`` makes sure that it is ours.
"""

from .remote import Elsewhere
from .shared import Observer, Origin, Settings
from .transfer import PartialDownload, Transfer

__all__ = ["Elsewhere", "Observer", "Origin", "PartialDownload", "Settings", "Transfer"]
