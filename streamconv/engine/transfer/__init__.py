"""Fetching remote files: ranges, each durable by itself; readers wait for the bytes they touch.

``transfer`` is what others use; ``part`` is one file on disk, ``crew`` the connections, ``keeper`` who completes files and gives
space back, ``store`` the folder of all models.
"""

from .transfer import Arriving, Observer, Origin, Settings, Transfer

__all__ = ["Arriving", "Observer", "Origin", "Settings", "Transfer"]
