"""Output that cannot be written never ends a command whose product are files."""

from __future__ import annotations

import contextlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, TextIO


class LastingStream:
    """A text stream whose reader may go away and whose disk may be full: what cannot be written is
    dropped. Everything else is the stream's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def end(self) -> None:
        """The interpreter flushes at its exit and then complains of what was dropped: what is left
        in the buffer of a stream that cannot be written goes nowhere."""
        try:
            self._stream.flush()
        except ValueError:
            return
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """stdout and stderr as `LastingStream`s."""
    out, err = LastingStream(sys.stdout), LastingStream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):  # type: ignore[type-var]
        try:
            yield
        finally:
            out.end()
            err.end()


def lasting(command: Callable[[Namespace], int]) -> Callable[[Namespace], int]:
    """A command whose product are files, so that no output can end it."""

    @wraps(command)
    def run(args: Namespace) -> int:
        with lasting_output():
            return command(args)

    return run


def write_any_character() -> None:
    """What a console's code page lacks is escaped, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # not a console's stream
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def print_aligned(rows: Sequence[Sequence[str]]) -> None:
    """A table for a terminal: a line a row, columns two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
