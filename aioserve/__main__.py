"""``python -m aioserve``."""

from __future__ import annotations

from aioserve.commands import main

if __name__ == "__main__":
    main()
