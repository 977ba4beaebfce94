"""Checks of a setting's type, text and range; what they raise is shown to the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from unziplora.errors import InvalidInput

_KINDS = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
_MOST_SHOWN = 100  # characters of a value in a message


def typed(name: str, value: Any, hint: Any) -> Any:
    """`value` as a field of type `hint` holds it; a whole number may be written as 600.0.

    hint: str, bool, int, float or a Literal, or one of them or None. Raises InvalidInput.
    """
    if type(None) in get_args(hint):
        if value is None:
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise InvalidInput(
            f"The setting {name} cannot be {_shown(value)}. Choose one of "
            f"{', '.join(map(str, get_args(hint)))}."
        )
    result = _converted(value, hint)
    if result is None:
        raise InvalidInput(
            f"The setting {name} cannot be {_shown(value)}. It takes {_KINDS[hint]}."
        )
    return result


def _converted(value: Any, kind: type) -> Any:
    """The value as one of _KINDS, or None."""
    if kind in (str, bool):
        return value if isinstance(value, kind) else None
    # a whole number beyond any float's range is refused like a word
    if not isinstance(value, float) and not (type(value) is int and abs(value) < 2**1000):
        return None
    if kind is float:
        return float(value)
    return int(value) if float(value).is_integer() else None


def block_table(value: Any) -> Mapping[str, tuple[str, ...]] | None:
    """A block table with tuples, as JSON's lists may stand for. Raises InvalidInput."""
    if value is None:
        return None
    if isinstance(value, Mapping) and all(
        isinstance(groups, (list, tuple))
        and all(isinstance(text, str) and text.isprintable() for text in (branch, *groups))
        for branch, groups in value.items()
    ):
        return {branch: tuple(groups) for branch, groups in value.items()}
    raise InvalidInput(
        "The block table is not readable. It is an object with the rows content and style, each a "
        'list of groups, as {"content": ["output_blocks.0.1"], "style": ["output_blocks.1.1"]}.'
    )


def rank_table(value: Any) -> Mapping[str, int] | None:
    """Ranks by group. Raises InvalidInput."""
    if value is None:
        return None
    if isinstance(value, Mapping) and all(
        isinstance(group, str) and group.isprintable() and type(rank) is int and 1 <= rank <= 1024
        for group, rank in value.items()
    ):
        return dict(value)
    raise InvalidInput(
        "The ranks by group are not readable. They are an object with a whole number from 1 to "
        '1024 for each group, as {"output_blocks.0.1": 32}.'
    )


def check_text(what: str, text: str, longest: int) -> None:
    """Raises InvalidInput where a text is empty, too long, or not one printable line."""
    if not text.strip():
        raise InvalidInput(f"The {what} is empty. Say in a word or two what it is.")
    if len(text) > longest:
        raise InvalidInput(
            f"The {what} has {len(text)} characters, more than {longest}. A word or two are enough."
        )
    if not text.isprintable():
        raise InvalidInput(
            f"The {what} has a character that cannot be printed, such as a line break. "
            "Type it again as one line."
        )


def check_range(what: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    """Raises InvalidInput unless low <= value <= high, or low < value where `above`."""
    inside = low < value <= high if above else low <= value <= high
    if not inside:  # also where it is not a number
        least = f"above {low:g}" if above else f"at least {low:g}"
        raise InvalidInput(
            f"The {what} cannot be {value:g}. Choose a value {least} and at most {high:g}."
        )


def _shown(value: Any) -> str:
    try:
        return repr(value)[:_MOST_SHOWN]
    except (RecursionError, ValueError):  # nested thousands deep; thousands of digits
        return "that"
