"""`dialer`, `python -m dialer`: the command line of the project."""

from __future__ import annotations

import sys

from dialer.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
