"""``python -m augkit``: the same as the console script ``augkit``."""

from __future__ import annotations

import sys

from augkit.console.command import main

if __name__ == "__main__":
    sys.exit(main())
