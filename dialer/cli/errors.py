"""The error of the command line."""

from __future__ import annotations


class CliError(Exception):
    """What went wrong and what to do, in one line."""
