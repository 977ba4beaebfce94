"""The command line."""

from unziplora.cli.commands import main

__all__ = ["main"]
