"""Damaged versions of good files: as bytes, as safetensors, as JSON, as words."""

from __future__ import annotations

import json
import struct
from random import Random
from typing import Any

PICKLE = b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94"
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -0.0, 1e-308,
    float("nan"), float("inf"), "", " ", "x", "\x00", "\ud800", "é" * 300, "a" * 5000, "1", "nan",
    [], {}, [[]], [None], {"": None}, ["a"] * 1000, {"content": 3}, {"content": ["x"]},
)  # fmt: skip
ODD_WORDS = (
    "", " ", ".", "..", "...", "/", "\\", "a/b", "..\\..\\x", "/etc/passwd", "C:\\x", "C:",
    "\\\\h\\s",
    "con", "NUL.txt", "com1", "LPT¹", "a:b", "a*", "a?", "<b>x</b>", "<script>alert(1)</script>",
    "<lora:x:1>", "(x:1.5)", "a | b", "a AND b", "[a:b:3]", "{a}", "%s%n", "$(id)", "`id`",
    "a\nb", "a\rb", "a\tb", "\x00", "\x1b[31m", "\u202eabc", "\u200b", "\ufeff",
    "\ud800", "\U0001f408",
    "猫", "кот", "قطة", "แมว", "בַיִת", "é", "e\u0301", "ﬁ", "Å", "a" * 101, "猫" * 61, "-", "--help",
    "x ", " x", ".x", "x.", "sks", "nan", "None", "0",
)  # fmt: skip


def damaged_bytes(data: bytes, rng: Random) -> bytes:
    """One to four changes of the kinds that disks, networks and mischief make."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(damaged)) if damaged else 0
        span = rng.choice((1, 2, 4, 8, 64, 1024))
        match rng.randrange(8):
            case 0:
                del damaged[at:]
            case 1:
                del damaged[at : at + span]
            case 2:
                damaged[at:at] = rng.randbytes(span)
            case 3:
                damaged[at : at + span] = rng.randbytes(min(span, len(damaged) - at))
            case 4:
                damaged[at : at + span] = bytes(min(span, len(damaged) - at))
            case 5:
                damaged[at:at] = damaged[at : at + span]
            case 6:
                damaged += rng.randbytes(span)
            case 7 if damaged:
                damaged[at] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def damaged_safetensors(data: bytes, rng: Random) -> bytes:
    """Damaged as bytes, or with a header that lies."""
    kind = rng.randrange(12)
    if kind < 3:
        return damaged_bytes(data, rng)
    if kind == 3:
        return PICKLE + data
    length = struct.unpack("<Q", data[:8])[0]
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    for _ in range(rng.randint(1, 3)):
        header = _lying(header, rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    if kind == 4:  # the same name twice
        name = json.dumps(rng.choice([*header, "x"]))
        text = (
            text[:-1]
            + f', {name}: {{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}}}'.encode()
        )
    if kind == 5:  # deep
        depth = rng.choice((100, 10_000))
        text = b'{"a":' * depth + b"1" + b"}" * depth
    stated = len(text)
    if kind == 6:
        stated = rng.choice((0, 1, stated - 1, stated + 1, 2**31, 2**63, 2**64 - 1, 10**8))
    if kind == 7:
        body = damaged_bytes(body, rng)
    return struct.pack("<Q", stated) + text + body


def _lying(header: dict[str, Any], rng: Random) -> dict[str, Any]:
    damaged = json.loads(json.dumps(header))
    name = rng.choice(list(damaged)) if damaged else "x"
    entry = damaged.get(name)
    match rng.randrange(7):
        case 0:
            damaged.pop(name, None)
        case 1:
            damaged[name] = rng.choice(ODD_VALUES)
        case 2 if isinstance(entry, dict):
            field = rng.choice(["dtype", "shape", "data_offsets", "format"])
            entry[field] = rng.choice([*ODD_VALUES, [-1, 4], [4, 0], [0, 2**62], ["a"], "F8_E4M3"])
        case 3 if isinstance(entry, dict) and "shape" in entry:
            entry["shape"] = [rng.choice((0, 1, 3, 2**40)) for _ in range(rng.randint(0, 5))]
        case 4:
            other = rng.choice(list(damaged)) if damaged else name
            damaged[name], damaged[other] = damaged.get(other), damaged.get(name)
        case 5:
            damaged["__metadata__"] = rng.choice(
                [*ODD_VALUES, {"ss_network_args": rng.choice(["{", "[]", "{}", '{"trigger": 3}'])}]
            )
        case 6:
            damaged[rng.choice(ODD_WORDS) + ".lora_up.weight"] = entry
    return damaged


def damaged_json(text: str, rng: Random) -> str:
    """Damaged as text, or valid JSON with other keys and values."""
    if rng.random() < 0.2:
        return damaged_bytes(text.encode(), rng).decode("utf-8", "replace")
    damaged = json.loads(text)
    for _ in range(rng.randint(1, 4)):
        damaged = _other(damaged, rng)
    return json.dumps(damaged)


def _other(value: Any, rng: Random) -> Any:
    """The value with one thing in it changed."""
    if not isinstance(value, dict) or not value or rng.random() < 0.03:
        return rng.choice((*ODD_VALUES, *ODD_WORDS))
    key = rng.choice(list(value))
    damaged = dict(value)
    match rng.randrange(6):
        case 0:
            del damaged[key]
        case 1:
            damaged[rng.choice((*ODD_WORDS, key + "x"))] = damaged[key]
        case 2 | 3:
            damaged[key] = rng.choice((*ODD_VALUES, *ODD_WORDS))
        case _:
            damaged[key] = _other(damaged[key], rng)
    return damaged


def odd_word(rng: Random) -> str:
    """A name or a word that somebody might type, or paste."""
    if rng.random() < 0.5:
        return rng.choice(ODD_WORDS)
    parts = [rng.choice((*ODD_WORDS, "cat", "-", "_", " ")) for _ in range(rng.randint(1, 4))]
    parts.append("".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x10FFFF))))
                         for _ in range(rng.randrange(6))))  # fmt: skip
    rng.shuffle(parts)
    return "".join(parts)
