"""The JSON bodies of the API: read within limits, checked field by field, and described for /docs.

The descriptions are plain JSON Schema, not pydantic's models: WebUIs have its version 1, others 2.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastapi import HTTPException, Request

from unziplora.app.page_values import parse
from unziplora.errors import InvalidInput
from unziplora.lora.merge_methods import DEFAULT_MU, MERGE_METHODS, summaries
from unziplora.lora.publish import LICENCES
from unziplora.training.settings import Settings
from unziplora.ziplora.learn import ZipSettings

MOST_BYTES = 64_000_000  # of a body: a large image in base64
GRACE_SECONDS, SLOWEST = 30.0, 64_000  # as in request_guard, which a WebUI does not have
MOST_PARTS = 20  # of a merged file

Schema = dict[str, Any]


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # half of a character, alone or in a pair


def _without_surrogates(data: bytes) -> Any:
    """A body's value. Raises InvalidInput, also for half a character, which no file and no answer
    can hold."""
    body = parse(data)
    if _SURROGATE.search(data):
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                "A text of the body has half of a character in it (a lone surrogate). Leave it out."
            ) from error
    return body


async def read(request: Request, most: int | None = None) -> dict[str, Any]:
    """The JSON object of a request; never more than `most` bytes (MOST_BYTES) are read, nor for
    longer than a slow line takes for them."""
    most = MOST_BYTES if most is None else most
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise HTTPException(415, "Send a JSON object with content-type application/json.")
    parts: list[bytes] = []
    size, began = 0, time.monotonic()
    stream = request.stream().__aiter__()
    while True:
        left = began + GRACE_SECONDS + size / SLOWEST - time.monotonic()
        try:
            part = await asyncio.wait_for(stream.__anext__(), max(left, 0.001))
        except StopAsyncIteration:
            break
        except asyncio.TimeoutError as error:
            raise HTTPException(408, "The body came too slowly. Send it again.") from error
        size += len(part)
        if size > most:
            raise HTTPException(413, f"The body is larger than {most / 1e6:g} MB.")
        parts.append(part)
    try:
        body = _without_surrogates(b"".join(parts))
    except InvalidInput as error:
        raise HTTPException(422, str(error)) from error
    if not isinstance(body, dict):
        raise HTTPException(422, "The body is not a JSON object.")
    return body


def image_of(value: Any) -> bytes:
    """Of base64, with or without the "data:image/png;base64," of browsers. Raises InvalidInput."""
    if not isinstance(value, str) or not value:
        raise InvalidInput("There is no image. Send it as base64 in `image`.")
    _, _, data = value.rpartition("base64,")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("The image is not base64. Send the file's bytes as base64.") from error


def text_of(body: Mapping[str, Any], name: str) -> str:
    """Raises HTTPException(422) for what is no text; a missing one is empty."""
    value = body.get(name, "")
    if not isinstance(value, str):
        raise HTTPException(422, f"`{name}` is not text. Send a string.")
    return value


def parts_of(body: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """(pair, role, weight) of each part of a merged file. Raises InvalidInput."""
    parts = body.get("parts")
    if not isinstance(parts, list) or not 1 <= len(parts) <= MOST_PARTS:
        raise InvalidInput(
            f"`parts` is no list of 1 to {MOST_PARTS} parts. Send "
            '[{"pair": "fox", "role": "content", "weight": 1}, ...].'
        )
    found = []
    for part in parts:
        pair = part.get("pair") if isinstance(part, dict) else None
        if not isinstance(pair, str) or part.get("role") not in ("content", "style"):
            raise InvalidInput(
                "A part of `parts` has no pair or no role. A role is content or style."
            )
        found.append((pair, part["role"], number_of(part, "weight", 1)))
    return found


def weights_of(body: Mapping[str, Any]) -> tuple[float, float]:
    """Of the content and the style. Raises InvalidInput."""
    names = ("content_weight", "style_weight")
    first, second = (number_of(body, name, 1) for name in names)
    return first, second


def zip_settings_of(body: Mapping[str, Any]) -> ZipSettings:
    """What a merge that learns is told. Raises InvalidInput."""
    usual = ZipSettings()
    return ZipSettings(
        steps=whole_of(body, "zip_steps", usual.steps),
        overlap=number_of(body, "zip_overlap", usual.overlap),
        seed=whole_of(body, "seed"),
    )


def whole_of(body: Mapping[str, Any], name: str, usual: int = 0) -> int:
    """A whole number from 0 on; `usual` where it is missing. Raises InvalidInput."""
    value = body.get(name, usual)
    if type(value) is not int or not 0 <= value < 2**63:
        raise InvalidInput(f"`{name}` is no whole number from 0 on. Leave it out, or send 0.")
    return value


def number_of(body: Mapping[str, Any], name: str, usual: float) -> float:
    """From -100 to 100; `usual` where it is missing. Raises InvalidInput."""
    value = body.get(name, usual)
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > 100:
        raise InvalidInput(f"`{name}` is no number from -100 to 100. Send one, as 1 or 0.8.")
    return float(value)


def schema_of_start() -> Schema:
    """Every setting with its type and default."""
    hints = get_type_hints(Settings)
    properties: dict[str, Schema] = {
        "image": {"type": "string", "format": "byte", "description": "the image's file in base64"},
        "overwrite": {"type": "boolean", "default": False},
        "start_from": {"type": "string", "description": "a pair's name, which is trained further"},
    }
    for field in fields(Settings):
        properties[field.name] = _type_of(hints[field.name])
        if field.default is not MISSING and field.default is not None:
            properties[field.name]["default"] = field.default
    example = {"image": "iVBORw0KGgo…", "subject": "fox", "style": "chalk art", "steps": 600}
    return _object(properties, ["image", "subject", "style"], example)


def schema_of_command(commands: Sequence[str]) -> Schema:
    command = {"type": "string", "enum": list(commands)}
    return _object({"command": command}, ["command"], {"command": "stop"})


def schema_of_place() -> Schema:
    place = {"type": "integer", "minimum": 0, "description": "0: the next"}
    return _object({"place": place}, ["place"], {"place": 0})


def schema_of_name(whose: str) -> Schema:
    name = {"type": "string", "description": f"{whose} name"}
    return _object({"name": name}, ["name"], {"name": "fox-chalk-art"})


def schema_of_publish() -> Schema:
    properties: dict[str, Schema] = {
        "name": {"type": "string", "description": "the pair's name"},
        "title": {"type": "string", "description": "left out: the pair's name"},
        "licence": {"type": "string", "enum": list(LICENCES)},
    }
    example = {"name": "fox-chalk-art", "title": "A fox in chalk", "licence": "cc-by-4.0"}
    return _object(properties, ["name"], example)


def schema_of_new_name() -> Schema:
    properties: dict[str, Schema] = {"name": {"type": "string", "description": "the new name"}}
    return _object(properties, ["name"], {"name": "fox-in-chalk"})


def schema_of_steps(what: str) -> Schema:
    steps = {"type": "integer", "minimum": 1, "description": what}
    return _object({"steps": steps}, ["steps"], {"steps": 200})


def schema_of_preset() -> Schema:
    fields_of_page = {"type": "object", "additionalProperties": {"type": "string"}}
    return _object(
        {"fields": fields_of_page}, ["fields"], {"fields": {"steps": "300", "rank": "16"}}
    )


def preset_of(body: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a preset, by their settings' names; texts, as they are typed. Raises
    InvalidInput."""
    values = body.get("fields")
    known = values.items() if isinstance(values, dict) else ()
    if not known or not all(isinstance(value, str) for _, value in known):
        raise InvalidInput('`fields` is no object of texts. Send {"steps": "300", "rank": "16"}.')
    return {str(name): value for name, value in known}


def schema_of_merge() -> Schema:
    part: Schema = {
        "type": "object",
        "required": ["pair", "role"],
        "properties": {
            "pair": {"type": "string"},
            "role": {"type": "string", "enum": ["content", "style"]},
            "weight": {"type": "number", "default": 1, "minimum": -100, "maximum": 100},
        },
    }
    parts: Schema = {"type": "array", "items": part, "minItems": 1, "maxItems": MOST_PARTS}
    example = {
        "name": "fox-in-ink",
        "parts": [
            {"pair": "fox-chalk-art", "role": "content", "weight": 1},
            {"pair": "ship-ink", "role": "style", "weight": 0.8},
        ],
    }
    how: Schema = {
        "type": "string",
        "enum": list(MERGE_METHODS),
        "default": "add",
        "description": summaries(),
    }
    usual = ZipSettings()
    options: Schema = {
        "mu": _usual_number(DEFAULT_MU, "of np, from 0 (add): how far the content gives way"),
        "zip_steps": {**_usual_number(usual.steps, "of zip"), "type": "integer"},
        "zip_overlap": _usual_number(usual.overlap, "of zip: lambda, the overlap's weight"),
        "seed": {**_usual_number(usual.seed, "of zip"), "type": "integer"},
    }
    properties = {"name": {"type": "string"}, "parts": parts, "how": how, **options}
    return _object(properties, ["name", "parts"], example)


def _usual_number(usual: float, description: str) -> Schema:
    return {"type": "number", "default": usual, "description": description}


def schema_of_sheet() -> Schema:
    number = {"type": "number", "default": 1, "minimum": -100, "maximum": 100}
    pair = {"type": "string", "description": "a pair's name"}
    properties: dict[str, Schema] = {
        "content": pair, "style": pair, "content_weight": number, "style_weight": number,
        "seed": {"type": "integer", "default": 0, "minimum": 0},
    }  # fmt: skip
    example = {"content": "fox-chalk-art", "style": "ship-ink"}
    return _object(properties, ["content", "style"], example)


def schema_of_inspect() -> Schema:
    file = {"type": "string", "description": "a .safetensors file's name in the output folder"}
    return _object({"file": file}, ["file"], {"file": "fox-chalk-art_content.safetensors"})


def _object(properties: dict[str, Schema], required: list[str], example: Any) -> Schema:
    schema = {"type": "object", "properties": properties, "required": required, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _type_of(hint: Any) -> Schema:
    if get_origin(hint) is Literal:
        return {"type": "string", "enum": list(get_args(hint))}
    options = [option for option in get_args(hint) if option is not type(None)]
    if options and type(None) in get_args(hint):
        return {**_type_of(options[0]), "description": "left out: the method's or the model's own"}
    names = {str: "string", bool: "boolean", int: "integer", float: "number"}
    return {"type": names.get(hint, "object")}
