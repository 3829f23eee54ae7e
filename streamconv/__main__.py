"""``python -m streamconv``."""

import sys

from .cli import main

sys.exit(main())
