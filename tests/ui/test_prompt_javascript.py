"""What a button of a pair does to txt2img's prompt: javascript/unziplora.js, run by node."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.conftest import ROOT

SCRIPT = """
const fs = require('fs');
globalThis.onUiLoaded = () => {};
const source = fs.readFileSync(process.argv[1], 'utf8');
const edit = new Function(source + '; return unziploraEdit;')();
let prompt = process.argv[2];
for (const pair of JSON.parse(process.argv[3])) prompt = edit(prompt, pair);
process.stdout.write(JSON.stringify(prompt));
"""
CONTENT, STYLE = "<lora:fox_content:1>", "<lora:fox_style:1>"
BOTH = f"{CONTENT} {STYLE}"


def pair(content: float, style: float, *, toggle: bool = True, name: str = "fox") -> dict[str, Any]:
    return {
        "content": {"name": f"{name}_content", "trigger": "sks fox", "weight": content},
        "style": {"name": f"{name}_style", "trigger": "chalk art style", "weight": style},
        "toggle": toggle,
    }


def edited(prompt: str, *pairs: dict[str, Any]) -> str:
    """The prompt after a click for each of the pairs."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    command = [
        node, "-e", SCRIPT, str(ROOT / "javascript" / "unziplora.js"), prompt, json.dumps(pairs),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: str = json.loads(done.stdout)
    return result


ALL, CONTENT_ONLY, STYLE_ONLY = pair(1, 1), pair(1, 0), pair(0, 1)


@pytest.mark.parametrize(
    ("clicks", "expected"),
    [
        ([ALL], f"a sks fox in chalk art style {BOTH}"),
        ([CONTENT_ONLY], f"a sks fox {CONTENT}"),
        ([STYLE_ONLY], f"an image in chalk art style {STYLE}"),
        ([ALL, CONTENT_ONLY], f"a sks fox {CONTENT}"),
        ([ALL, STYLE_ONLY], f"an image in chalk art style {STYLE}"),
        ([CONTENT_ONLY, ALL], f"a sks fox in chalk art style {BOTH}"),
        ([STYLE_ONLY, ALL], f"a sks fox in chalk art style {BOTH}"),
        ([CONTENT_ONLY, STYLE_ONLY], f"an image in chalk art style {STYLE}"),
        ([STYLE_ONLY, CONTENT_ONLY], f"a sks fox {CONTENT}"),
        ([ALL, CONTENT_ONLY, STYLE_ONLY, ALL], f"a sks fox in chalk art style {BOTH}"),
    ],
)
def test_a_button_replaces_what_the_pair_put_into_the_prompt(
    clicks: list[dict[str, Any]], expected: str
) -> None:
    assert edited("", *clicks) == expected


@pytest.mark.parametrize("click", [ALL, CONTENT_ONLY, STYLE_ONLY])
@pytest.mark.parametrize("prompt", ["", "a house, best quality"])
def test_a_second_click_takes_it_out(click: dict[str, Any], prompt: str) -> None:
    assert edited(prompt, click, click) == prompt


def test_the_words_that_the_user_wrote_stay() -> None:
    prompt = f"a sks fox on a beach in chalk art style {BOTH}, best quality"
    assert edited(prompt, CONTENT_ONLY) == f"a sks fox on a beach, best quality {CONTENT}"
    assert edited(prompt, STYLE_ONLY) == (
        f"an image on a beach in chalk art style, best quality {STYLE}"
    )
    assert edited(prompt, ALL) == "on a beach, best quality"
    assert edited("a house <lora:other:0.7>", STYLE_ONLY) == (
        f"a house <lora:other:0.7>, in chalk art style {STYLE}"
    )


def test_calls_that_stand_there_twice_become_one() -> None:
    assert edited(f"a sks fox {CONTENT} {CONTENT}", CONTENT_ONLY) == f"a sks fox {CONTENT}"


def test_another_weight_replaces_and_does_not_take_out() -> None:
    softer = pair(0.5, -0.25)
    expected = "a sks fox in chalk art style <lora:fox_content:0.5> <lora:fox_style:-0.25>"
    assert edited("", ALL, softer) == expected
    assert edited("", softer, softer) == ""


def test_without_toggling_a_second_click_changes_nothing() -> None:
    insert = pair(1, 1, toggle=False)
    assert edited("", insert, insert) == edited("", insert)


def test_two_pairs_of_one_subject_are_mixed() -> None:
    other = pair(0, 1, name="other")
    assert edited("", CONTENT_ONLY, other) == (
        f"a sks fox {CONTENT}, in chalk art style <lora:other_style:1>"
    )
    assert edited("", CONTENT_ONLY, other, other) == f"a sks fox {CONTENT}"


def test_a_trigger_within_a_longer_word_is_not_taken_for_it() -> None:
    assert edited(f"a sks foxglove, a sks fox {CONTENT}", CONTENT_ONLY) == "a sks foxglove"


def test_symbols_in_names_and_triggers_are_plain_text() -> None:
    odd = pair(1, 0)
    odd["content"] = {"name": "a+b (c)", "trigger": "s.k$ [fox]", "weight": 1}
    assert edited("", odd) == "a s.k$ [fox] <lora:a+b (c):1>"
    assert edited("", odd, odd) == ""


def test_a_merged_file_is_put_in_and_taken_out_alone() -> None:
    lora = {"name": "mixed", "trigger": "sks fox in ink style", "weight": 1}
    merged: dict[str, Any] = {"content": lora, "toggle": True}
    assert edited("", merged) == "a sks fox in ink style <lora:mixed:1>"
    assert edited("at night", merged) == "at night, a sks fox in ink style <lora:mixed:1>"
    assert edited("at night", merged, merged) == "at night"
    wordless = {"content": {"name": "mixed", "trigger": "", "weight": 1}, "toggle": True}
    assert edited("a house", wordless) == "a house <lora:mixed:1>"
    assert edited("a house", wordless, wordless) == "a house"
