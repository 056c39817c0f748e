"""`python -m rtpool`."""

from __future__ import annotations

import sys

from rtpool.cli import main

if __name__ == "__main__":
    sys.exit(main())
