"""The tab in the real WebUIs: buttons pressed in turn, presets, a mask, keyboard, phone, dark."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.hosts.pairs import PROMPT
from tests.hosts.programs import WebUI
from tests.hosts.visitor import Visitor

CONTENT, STYLE = "<lora:first_content:1>", "<lora:first_style:1>"


def open_advanced(visitor: Visitor) -> None:
    if not visitor.field("uz_steps").is_visible():
        visitor.page.locator("#uz_advanced > button, #uz_advanced > .label-wrap").first.click()
        visitor.field("uz_steps").wait_for()


def test_the_three_buttons_leave_each_call_once_and_a_second_click_takes_them_out(
    visitor: Visitor, first_pair: Any
) -> None:
    page = visitor.page
    visitor.tab("txt2img")
    visitor.field("txt2img_prompt").fill("")

    def press(button: str, expected: str) -> None:
        visitor.tab("UnZipLoRA")
        visitor.tab("Results", "#tab_unziplora")
        card = page.locator("#uz_cards article").filter(has_text="first").first
        card.wait_for()
        card.get_by_role("button", name=button).click()
        page.wait_for_function(
            "text => document.querySelector('#txt2img_prompt textarea').value === text",
            arg=expected,
        )

    press("Both", f"{PROMPT} {CONTENT} {STYLE}")
    press("Content", f"a sks cat {CONTENT}")
    press("Style", f"an image in crayon drawing style {STYLE}")
    press("Both", f"{PROMPT} {CONTENT} {STYLE}")
    press("Both", "")


def test_both_change_the_image(webui: WebUI, first_pair: Any) -> None:
    plain = webui.draw(PROMPT).tobytes()
    assert webui.draw(f"{PROMPT} {CONTENT} {STYLE}").tobytes() != plain


def test_the_webuis_file_of_fields_has_none_of_ours(webui: WebUI) -> None:
    kept = json.loads((webui.data / "ui-config.json").read_text("utf-8"))
    assert any(name.startswith("txt2img/") for name in kept)
    assert not [name for name in kept if name.startswith("unziplora/") or "uz_" in name]


def test_what_answers_at_once_shows_no_progress_and_waits_in_no_queue(webui: WebUI) -> None:
    """Also where the WebUI has wrapped gradio's events."""
    config = webui.get("/config")
    elements = {part["id"]: str(part["props"].get("elem_id")) for part in config["components"]}
    ours = [
        function
        for function in config["dependencies"]
        if function["backend_fn"]
        and any(elements[n].startswith("uz_") for n in (*function["inputs"], *function["outputs"]))
    ]
    hidden = [function for function in ours if function["show_progress"] == "hidden"]
    assert len(hidden) > len(ours) / 2
    assert not [function for function in hidden if function["queue"]]


def test_presets_are_saved_loaded_and_deleted_as_files(visitor: Visitor) -> None:
    page = visitor.page
    open_advanced(visitor)
    visitor.field("uz_steps").fill("123")
    visitor.field("uz_rank").fill("8")
    page.locator("#uz_flip input").check()
    visitor.field("uz_preset_name").fill("mine")
    page.keyboard.press("Enter")
    page.locator("#uz_preset_save").click()
    page.locator("#uz_message").get_by_text("saved as the preset mine").wait_for()
    assert [file.name for file in visitor.webui.data.rglob("mine.json")] == ["mine.json"]
    page.reload()
    visitor.tab("UnZipLoRA")
    open_advanced(visitor)
    assert visitor.field("uz_steps").input_value() == ""
    assert not page.locator("#uz_flip input").is_checked()
    visitor.field("uz_preset_name").fill("mine")
    page.keyboard.press("Enter")
    page.locator("#uz_preset_load").click()
    page.wait_for_function(
        "() => document.querySelector('#uz_steps :is(input, textarea)').value === '123'"
    )
    assert visitor.field("uz_rank").input_value() == "8"
    assert page.locator("#uz_flip input").is_checked()
    visitor.shot("preset-loaded")
    page.locator("#uz_preset_delete").click()
    page.locator("#uz_message").get_by_text("The preset mine is deleted").wait_for()
    assert not list(visitor.webui.data.rglob("mine.json"))


def test_a_mask_image_is_laid_over_the_image(
    visitor: Visitor, source_image: Path, tmp_path: Path
) -> None:
    """A run reads the object on a white ground."""
    page = visitor.page
    mask = Image.new("L", (160, 160), 0)
    ImageDraw.Draw(mask).ellipse((40, 30, 120, 130), fill=255)
    mask.save(tmp_path / "mask.png")
    page.locator("#uz_image input[type=file]").set_input_files(source_image)
    page.locator("#uz_image img").first.wait_for()
    page.locator("#uz_mask_part > button, #uz_mask_part > .label-wrap").first.click()
    page.locator("#uz_mask input[type=file]").set_input_files(tmp_path / "mask.png")
    page.locator("#uz_mask img").first.wait_for()
    visitor.field("uz_subject").fill("cat")
    visitor.field("uz_style").fill("crayon drawing")
    visitor.field("uz_name").fill("masked")
    open_advanced(visitor)
    for field, value in (("steps", "2"), ("rank", "4"), ("preview_every", "0")):
        visitor.field(f"uz_{field}").fill(value)
    visitor.shot("mask")
    page.locator("#uz_train").click()
    page.locator('#uz_live [data-state="completed"]').filter(has_text="masked").wait_for()
    with Image.open(visitor.webui.runs / "masked" / "image.png") as trained:
        colours = trained.convert("RGB")
    with Image.open(source_image) as whole:
        assert colours.getpixel((80, 80)) == whole.getpixel((80, 80))
        assert colours.getpixel((5, 5)) == (255, 255, 255) != whole.getpixel((5, 5))


def test_a_run_is_started_without_a_mouse(visitor: Visitor, source_image: Path) -> None:
    page = visitor.page
    page.locator("#uz_image input[type=file]").set_input_files(source_image)
    page.locator("#uz_image img").first.wait_for()
    visitor.field("uz_subject").focus()
    page.keyboard.type("cat")
    reached = [visitor_tabs_to(visitor, field, words) for field, words in (
        ("uz_style", "crayon drawing"), ("uz_name", "typed"), ("uz_train", ""),
    )]  # fmt: skip
    assert all(presses < 12 for presses in reached), reached
    page.keyboard.press("Enter")
    page.locator('#uz_live [data-state="running"]').filter(has_text="typed").wait_for()
    reached_stop = visitor_tabs_to(visitor, "uz_stop_and_save", "")
    assert reached_stop < 30
    page.keyboard.press("Enter")
    page.locator('#uz_live [data-state="stopped"]').filter(has_text="typed").wait_for()


def visitor_tabs_to(visitor: Visitor, elem_id: str, words: str) -> int:
    """Presses Tab until the element has the focus, and types; how often it was pressed."""
    for presses in range(60):
        here = visitor.page.locator(f"#{elem_id}:focus, #{elem_id} :focus")
        if here.count():
            visitor.page.keyboard.type(words)
            return presses
        visitor.page.keyboard.press("Tab")
    raise AssertionError(f"{elem_id} is not reached by keyboard")


def test_a_pair_is_on_the_lora_page_though_its_user_was_elsewhere_when_it_ended(
    visitor: Visitor, source_image: Path, held: None
) -> None:
    webui, page = visitor.webui, visitor.page
    job = webui.start("unseen", source_image)
    page.locator('#uz_live [data-state="running"]').filter(has_text="unseen").wait_for()
    visitor.tab("txt2img")
    visitor.tab("Lora", "#txt2img_extra_tabs")
    assert webui.run(job)["state"] == "running"
    webui.hold()
    page.locator('#txt2img_lora_cards .card[data-name="unseen_style"]').first.wait_for()
    visitor.shot("lora-page-after-a-run")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_every_tab_fits_the_window(
    visitor: Visitor, first_pair: Any, theme: str, width: int
) -> None:
    page = visitor.page
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(f"{visitor.webui.url}/?__theme={theme}")
    visitor.tab("UnZipLoRA")
    for name in ("Train", "Results", "Combine", "Inspect"):
        visitor.tab(name, "#tab_unziplora")
        page.wait_for_timeout(500)
        widest = page.evaluate(
            """() => Math.max(...[...document.querySelectorAll('#tab_unziplora *')]
                .filter(e => e.checkVisibility() && !e.closest('.uz-scroll'))
                .map(e => e.getBoundingClientRect().right))"""
        )
        visitor.shot(f"{re.sub('[^a-z]', '', name.lower())}-{width}-{theme}")
        assert widest <= width + 1, (name, widest)
