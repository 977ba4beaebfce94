"""Text without what says whose it is: paths, names, keys, addresses.

What a key or a path looks like is decided line by line and word by word, never by a pattern that
can begin anywhere in a long run of letters, so that the time grows with the text's length only.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import platform
import re
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

LONGEST_LINE = 2000  # characters; what is longer is no sentence

# Of a path to code, what comes after one of these is the same everywhere, and says where it failed.
_CODE = re.compile(
    r"[/\\](?=(?:site-packages|dist-packages|unziplora|modules|modules_forge|backend|"
    r"repositories|extensions|extensions-builtin|python[0-9.]+)[/\\])"
)
_CODE_END = re.compile(r'\.py(?=$|["\'])')
# A path in quotes ends with them. Another may have spaces in it: it ends where a sentence would
# continue. Each begins where the characters before cannot belong to it.
_QUOTED = re.compile(r"""(?P<quote>["'`])(?P<path>(?:file:|~|\.{0,2}[\\/]|[A-Za-z]:[\\/])"""
                     r"""[^"'`\n]*)(?P=quote)""")  # fmt: skip
_PATH = re.compile(
    r"(?<![\w/\\<])(?:file:/{0,3}|~\w{0,64}|\.{1,2})?(?:[A-Za-z]:[\\/]|\\\\|/(?!/|>|\s))"
    r"[^\n\"'`<>|*?,;()\[\]{}]*"
)
# Where a path ends for certain; and where its last part does, which may have spaces in it.
_ENDS = re.compile(r":(?=\s|$|\d)|\.(?=\s+[A-Z]|$)")
_LAST_ENDS = re.compile(
    r"\s+(?=[\w-]+[=:]|(?:is|was|has|in|on|and|could|cannot|does|not|for|to|of|with|from|by|exists|"
    r"because)\b)"
)
_IN_PATH = re.compile(r"[/\\]|\.\w{1,12}(?!\S)")  # a separator, or the end of a file's name
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s\"'<>]+", re.IGNORECASE)
_NAMED = re.compile(
    r"(?i)(?<![A-Za-z])(?P<name>[\w-]{0,40}(?:api[_-]?key|apikey|token|secret|passw(?:or)?d|passwd|"
    r"credentials?|authorization|cookie|access[_-]?key|private[_-]?key|login|auth))"
    r"(?P<is>[\"']?\s{0,3}[=:]\s{0,3}[\"']?|\s(?=[\w+/.~-]{16}))(?P<value>[^\s\"',;]+)"
)
_SCHEME = re.compile(r"(?i)\b(bearer|basic|digest|token)\s{1,3}[\w+/=.~-]{8,}")
_BLOCK = re.compile(r"-----BEGIN [A-Z ]{0,40}KEY-----.*?(?:-----END [A-Z ]{0,40}KEY-----|\Z)", re.S)
# Keys that are known by how they begin (the makers' own prefixes).
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_|sk[-_]|pk[-_]|rk[-_]|gh[pousr]_|github_pat_|glpat-|xox[abposr]-|xapp-|"
    r"ya29\.|AIza|r8_|npm_|pypi-|dop_v1_|SG\.|eyJ)[\w.-]{8,}|"
    r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}"
)
_WORD = re.compile(r"[A-Za-z0-9+/_=-]{32,}")  # letters and digits mixed: a key of any maker
_MAIL = re.compile(r"(?<![\w.+@-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,5}")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]\d|\w)")
_IPV6 = re.compile(r"(?<![\w:.])\[?[0-9A-Fa-f:]{0,45}:[0-9A-Fa-f:.]{0,45}(?:%\w{1,16})?\]?")
_MAC = re.compile(r"(?<![\w:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:-])")
_COMMON = frozenset({"root", "user", "home", "localhost", "ubuntu", "admin", "app", "runner"})


def redact(text: str, names: Iterable[str] = ()) -> str:
    """Without paths, keys, addresses, the given names, and those of the user and the machine."""
    text = _BLOCK.sub("<removed>", text)
    for path in own_folders():
        text = text.replace(path, "/…")
    lines = [_line(line) for line in text.split("\n")]
    text = "\n".join(lines)
    for name in sorted({*names, *own_names()}, key=len, reverse=True):
        if len(name) > 1:
            text = _whole(name).sub("<name>", text)
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def _whole(name: str) -> re.Pattern[str]:
    """The name where no letter and no digit continues it: an underline does not, as in the name
    NAME_content of its file."""
    return re.compile(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", re.IGNORECASE)


def own_folders() -> list[str]:
    """Home, the folder for temporary files and the working folder, the longest first."""
    found = [tempfile.gettempdir()]
    with contextlib.suppress(OSError, RuntimeError):  # a user without one; a folder that is gone
        found.append(str(Path.home()))
    with contextlib.suppress(OSError):
        found.append(os.getcwd())
    return sorted({path for path in found if len(path) > 3}, key=len, reverse=True)


def own_names() -> list[str]:
    """Of the user and the machine, but those that many have."""
    found = [socket.gethostname(), platform.node()]
    with contextlib.suppress(OSError, RuntimeError):
        found.append(Path.home().name)
    with contextlib.suppress(Exception):  # no such user in this container
        found.append(getpass.getuser())
    found += [name.split(".")[0] for name in found]  # of machine.example.org
    return [name for name in dict.fromkeys(found) if name and name.lower() not in _COMMON]


def _line(line: str) -> str:
    if len(line) > LONGEST_LINE:
        line = f"{line[:LONGEST_LINE]}… <{len(line)} characters>"
    for pattern in (_SCHEME, _URL):
        line = pattern.sub("<removed>", line)
    line = _NAMED.sub(lambda found: f"{found['name']}{found['is']}<removed>", line)
    line = _KEY.sub("<removed>", line)
    line = _QUOTED.sub(lambda found: found["quote"] + _shortened(found["path"]) + found["quote"],
                       line)  # fmt: skip
    line = _PATH.sub(_unquoted, line)
    line = _WORD.sub(lambda found: "<removed>" if _is_random(found[0]) else found[0], line)
    for pattern in (_MAIL, _MAC, _IPV4):
        line = pattern.sub("<removed>", line)
    return _IPV6.sub(lambda found: "<removed>" if _is_ipv6(found[0]) else found[0], line)


def _unquoted(found: re.Match[str]) -> str:
    """A path, and again what the pattern took of the sentence after it."""
    text = found[0]
    certain = _ENDS.search(text, 2)
    end = certain.start() if certain else len(text)
    last = max([0, *(mark.end() for mark in _IN_PATH.finditer(text, 0, end))])
    likely = _LAST_ENDS.search(text, last, end)
    end = likely.start() if likely else end
    return _shortened(text[:end]) + text[end:]


def _shortened(path: str) -> str:
    """What a path to code has below its installation; of any other, nothing."""
    ends = _CODE_END.search(path)
    if ends is None:
        return "<path>"
    starts = [mark.end() for mark in _CODE.finditer(path, 0, ends.end())]
    return path[starts[0] :] if starts else "<path>"


def _is_random(word: str) -> bool:
    """Letters and digits mixed as in keys and hashes, and not as in names and module paths."""
    digits = sum(c.isdigit() for c in word)
    letters = sum(c.isalpha() for c in word)
    return digits >= 4 and letters >= 4 and word.count("_") < 4 and word.count("/") < 3


def _is_ipv6(text: str) -> bool:
    if text.count(":") < 2:
        return False
    try:
        ipaddress.IPv6Address(text.strip("[]").split("%")[0].rstrip("."))
    except ValueError:
        return False
    return True
