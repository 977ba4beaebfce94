"""Writing a file whole or not at all, and the names and folders it may be written to."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
import unicodedata
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NoReturn

from unziplora.errors import InvalidInput, WriteError

MAX_NAME = 100  # characters
MAX_NAME_BYTES = 180  # leaves room for "_content-000600.safetensors" below a folder's usual 255

_WINDOWS = os.name == "nt"
_RETRY_SECONDS = (0.05, 0.2, 0.5)  # a virus scanner lets go of a file within that
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC)
# Windows refuses <>:"|?* ; in a prompt <lora:NAME:1> ends at ":" and ">", and A1111 splits the
# "Lora hashes" that it writes into images at ",".
# letters that are drawn as nothing; other invisible characters are of Unicode's category Cf
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
_FORBIDDEN = '/\\<>:"|?*,'
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>tmp|old)")
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.I)


@contextlib.contextmanager
def writing(path: Path, *, new: bool = False) -> Iterator[Path]:
    """Lends the name of a temporary file beside `path`, which becomes `path` at the end.

    The caller creates it. If the caller raises, it is removed and `path` is as it was. new: a file
    that is at `path` by then is kept. Raises WriteError where the disk is full or refuses, and
    InvalidInput where a new file's name is taken.
    """
    temporary = _beside(path, "tmp")
    try:
        yield temporary
        _sync(temporary)
        (_claim if new else _replace)(temporary, path)
    except FileExistsError as error:
        raise InvalidInput(f"{path.name} exists already. Choose another name.") from error
    except OSError as error:
        _refuse(path, error)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    _sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, whole or not at all. Raises WriteError."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` as UTF-8, whole or not at all. Raises WriteError. Surrogates, which a
    file's name that is no UTF-8 has in it, are escaped as in JSON."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def all_or_none() -> Iterator[contextlib.ExitStack]:
    """Lends a stack for what undoes each step that is done: called, the last first, where a later
    step fails. What cannot be undone stays as it is, and the failure is raised."""
    with contextlib.ExitStack() as undo:
        yield undo
        undo.pop_all()


def remove(path: Path) -> None:
    """Removes a file if there is one and the system allows it: to undo that it was made."""
    with contextlib.suppress(OSError):
        path.unlink()


def make_folder(path: Path) -> None:
    """Makes a folder in one that is there, unless it is there itself. Raises WriteError."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        _refuse(path, error)


def clear_leftovers(folder: Path, names: Container[str] | None = None) -> None:
    """Removes what writes to these names (None: to any) left in a folder when they were killed.

    Only for a caller who knows that nobody is writing them now. A file that was moved aside, and
    whose successor never took its place, gets its name back.
    """
    if not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        left = _LEFTOVER.fullmatch(path.name)
        if left is None or (names is not None and left["name"] not in names):
            continue
        target = path.with_name(left["name"])
        with contextlib.suppress(OSError):  # in use: next time
            if left["kind"] == "old" and not os.path.lexists(target):
                os.rename(path, target)
            else:
                path.unlink()


def check_name(name: str) -> str:
    """`name`, composed (NFC), if it can begin a file's name everywhere and stand in a prompt.

    Raises InvalidInput.
    """
    wrong = _wrong_with(name)
    if wrong:
        raise InvalidInput(
            f"The name {_shown(name)} {wrong}. Use letters, digits, spaces, '-' and '_' instead."
        )
    return unicodedata.normalize("NFC", name)


def check_regular_file(path: Path) -> None:
    """Raises InvalidInput for a pipe, a device or a socket: reading one may never end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # who opens it says what is wrong
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InvalidInput(
            f"{_shown(path.name)} is a pipe or a device, not a file. Copy it into a file first."
        )


def check_output_folder(path: Path, bytes_needed: int = 0) -> None:
    """Raises InvalidInput unless files of `bytes_needed` together can be written to folder `path`.

    `path` itself may be missing (the caller makes it); the folder it lies in may not. Leaves
    nothing behind.
    """
    shown = _shown(str(path))
    if os.path.lexists(path) and not path.is_dir():
        raise InvalidInput(f"The output folder {shown} is not a folder. Name another one.")
    folder = path if path.is_dir() else path.absolute().parent
    if not folder.is_dir():
        raise InvalidInput(
            f"The output folder {shown} cannot be made, because the folder that it should lie in "
            "does not exist. Make that one first, or name another."
        )
    probe = _beside(folder / "unziplora", "tmp")
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError as error:
        if error.errno in _FULL_DISK:
            raise InvalidInput(_full(shown)) from error
        raise InvalidInput(
            f"Nothing can be written to the folder {_shown(str(folder))} "
            f"({error.strerror}). Allow writing there, or name another output folder."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    free = shutil.disk_usage(folder).free
    if free < bytes_needed:
        raise InvalidInput(
            f"The disk of the output folder {shown} has {free / 1e9:.2f} GB free, and "
            f"{bytes_needed / 1e9:.2f} GB are needed. Make room, or name a folder on another disk."
        )


def _wrong_with(name: str) -> str | None:
    composed = unicodedata.normalize("NFC", name)
    if not composed.strip():
        return "is empty"
    if not composed.strip(". "):
        return "is nothing but dots"
    for character in composed:
        if wrong := _wrong_character(character):
            return f"has {wrong} in it"
    if composed[0] in " ." or composed[-1] in " .":
        return "begins or ends with a dot or a space"
    if _RESERVED.fullmatch(composed):
        return "belongs to a device on Windows"
    if len(composed) > MAX_NAME or len(composed.encode("utf-8")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME} characters ({MAX_NAME_BYTES} bytes)"
    return None


def _wrong_character(character: str) -> str | None:
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return "a control character"
    if unicodedata.category(character) == "Cf" or character in _BLANK:
        return f"an invisible character (U+{ord(character):04X})"
    return f"a {character}" if character in _FORBIDDEN else None


def encodable(text: str) -> str:
    """`text` with a ? for each surrogate: a file's name that is no UTF-8 has some in it, and other
    programs refuse a header that has one even escaped."""
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(text: str) -> str:
    """`text` without what a terminal would obey or not show: control characters, and those that
    turn the direction of writing."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _shown(text: str) -> str:
    """`text` in quotes, short, on one line, printable on any terminal that can encode it."""
    text = printable(text)
    return f"'{text if len(text) <= 120 else text[:117] + '...'}'"


def _full(shown: str) -> str:
    return f"The disk of {shown} is full. Make room on it, or name a folder on another disk."


def _refuse(path: Path, error: OSError) -> NoReturn:
    if error.errno in _FULL_DISK:
        raise WriteError(_full(_shown(path.name))) from error
    raise WriteError(
        f"{_shown(path.name)} could not be written ({error.strerror or error}). "
        "Close the programs that have it open and allow writing to its folder."
    ) from error


def _replace(temporary: Path, path: Path) -> None:
    """os.replace, and on Windows also over a file that another program has mapped.

    Windows lets a mapped file be renamed but not replaced: it is moved aside, and removed now or,
    while it is still in use, when it is next replaced.
    """
    for seconds in _RETRY_SECONDS:
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if not _WINDOWS:
                raise
            time.sleep(seconds)
    aside = _beside(path, "old")
    os.rename(path, aside)
    try:
        os.replace(temporary, path)
    except OSError:
        os.rename(aside, path)
        raise
    clear_leftovers(path.parent, {path.name})


def _claim(temporary: Path, path: Path) -> None:
    """Gives the file its name unless that is taken: in one step, so that of two programs that write
    one name one is refused. Raises FileExistsError."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without hard links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        _replace(temporary, path)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{kind}")


def _sync(path: Path) -> None:
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if _WINDOWS:
        return
    with contextlib.suppress(OSError):  # some network file systems have no such thing
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
