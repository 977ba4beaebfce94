"""The tab in the real WebUIs, used with a mouse in headless Chromium."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.hosts.pairs import PROMPT
from tests.hosts.programs import WebUI
from tests.hosts.visitor import Visitor

BOTH = f"{PROMPT} <lora:clicked_content:1> <lora:clicked_style:1>"
PROGRAMS = {"a1111": "Automatic1111", "forge": "Forge", "neo": "Forge Neo", "reforge": "reForge",
            "classic": "forge-classic", "ersatz": "ersatzForge"}  # fmt: skip


def side_of(webui: WebUI) -> int:
    """Of the smallest images that are drawn here; ersatzForge's sliders begin at 256."""
    return 256 if webui.kind == "ersatz" else 128


def fill_in_and_train(visitor: Visitor, image: Path) -> None:
    page = visitor.page
    page.locator("#uz_image input[type=file]").set_input_files(image)
    visitor.field("uz_subject").fill("cat")
    visitor.field("uz_style").fill("crayon drawing")
    visitor.field("uz_name").fill("clicked")
    page.locator("#uz_advanced > button, #uz_advanced > .label-wrap").first.click()
    for field, value in (("steps", "8"), ("rank", "4"), ("lr", "1e-2"), ("preview_every", "8")):
        visitor.field(f"uz_{field}").fill(value)
    visitor.shot("train-filled")
    page.locator("#uz_train").click()
    page.locator('#uz_live [data-state="running"]').wait_for()
    visitor.shot("train-running")
    page.locator('#uz_live [data-state="completed"]').wait_for()
    visitor.shot("train-completed")


def copied_report(visitor: Visitor) -> str:
    visitor.page.locator("#uz_copy_report").click()
    visitor.page.wait_for_function(
        "() => document.querySelector('#uz_bug_report textarea')?.value.includes('program')"
    )
    return str(visitor.page.locator("#uz_bug_report textarea").input_value())


def card_of(visitor: Visitor, name: str) -> Any:
    visitor.tab("Results", "#tab_unziplora")
    card = visitor.page.locator("#uz_cards article").filter(has_text=name)
    card.wait_for()
    return card


def infotext_of_the_published_image(visitor: Visitor, card: Any, name: str) -> str:
    card.locator("summary").click()
    card.get_by_role("button", name="publish").click()
    visitor.page.locator("#uz_answer_yes").click()  # with the title and licence proposed
    said = visitor.page.locator("#uz_results_message").get_by_text("The folder to publish")
    said.wait_for()
    named = re.search(r"folder to publish is (.*), and its zip", said.inner_text())
    assert named
    folder = Path(named[1])
    assert folder.name == name
    assert visitor.webui.loras not in folder.parents, "where it would be listed"
    with Image.open(folder / "images" / "both.png") as image:
        return str(image.info["parameters"])


def prompt_after(visitor: Visitor, card: Any, button: str) -> str:
    card.get_by_role("button", name=button).click()
    visitor.page.locator("#txt2img_prompt").wait_for()
    visitor.page.wait_for_function(
        "() => document.querySelector('#txt2img_prompt textarea').value.includes('lora')"
    )
    return visitor.prompt()


def draw_in_txt2img(visitor: Visitor) -> str:
    """What stands below the image."""
    page = visitor.page
    side = str(side_of(visitor.webui))
    for field, value in (("steps", "2"), ("width", side), ("height", side)):
        page.locator(f"#txt2img_{field} input[type=number]").fill(value)
    page.locator("#txt2img_generate").click()
    page.locator("#txt2img_gallery img").first.wait_for()
    visitor.shot("txt2img")
    return str(page.locator("#html_info_txt2img").first.inner_text())


def copy_the_image_from_txt2img(visitor: Visitor) -> None:
    page = visitor.page
    visitor.tab("UnZipLoRA")
    visitor.tab("Train", "#tab_unziplora")
    page.get_by_role("button", name="From img2img").click()
    page.locator("#uz_message").get_by_text("There is no image to copy").wait_for()
    page.get_by_role("button", name="From txt2img").click()
    page.locator("#uz_message").get_by_text("Image copied from txt2img").wait_for()
    page.wait_for_function(
        "side => [...document.querySelectorAll('#uz_image img')]"
        ".some(image => image.naturalWidth === side)",
        arg=side_of(visitor.webui),
    )
    visitor.shot("from-txt2img")


TRANSLATED = """() => {
    for (const button of document.querySelectorAll('#tabs .tab-nav button, #tabs [role=tab]')) {
        const text = [...button.childNodes].find((node) => node.nodeType === Node.TEXT_NODE);
        if (text && !text.textContent.includes('»')) text.textContent = `» ${text.textContent}`;
    }
}"""  # as javascript/localization.js does, of a WebUI in another language


def send_the_image_from_the_gallery(visitor: Visitor) -> None:
    """By the button below txt2img's gallery, which opens the tab."""
    page = visitor.page
    visitor.tab("Inspect", "#tab_unziplora")
    visitor.tab("txt2img")
    page.evaluate(TRANSLATED)
    page.locator("#unziplora_send_txt2img").click()
    page.locator("#uz_message").get_by_text("Image copied from txt2img").wait_for()
    assert page.locator("#uz_image").is_visible()


def previews_as_in_txt2img(visitor: Visitor) -> None:
    page = visitor.page
    page.locator("#uz_previews > button, #uz_previews > .label-wrap").first.click()
    page.locator("#uz_preview_source").click()
    page.wait_for_function(
        "side => document.querySelector('#uz_preview_width :is(input, textarea)').value === side",
        arg=str(side_of(visitor.webui)),
    )
    assert visitor.field("uz_preview_prompt").input_value() == PROMPT
    assert visitor.field("uz_preview_steps").input_value() == "2"
    guidance = page.locator("#txt2img_cfg_scale input[type=number]").input_value()
    assert visitor.field("uz_preview_guidance").input_value() == guidance
    chosen = [
        page.locator(f"#txt2img_{field} input").first.input_value()
        for field in ("sampling", "scheduler")
        if page.locator(f"#txt2img_{field}").count()
    ]
    expected = " ".join(part for part in chosen if part != "Automatic")
    assert visitor.field("uz_preview_sampler").input_value() == expected
    visitor.shot("previews-as-in-txt2img")


def test_a_pair_is_trained_found_put_into_the_prompt_and_drawn(
    visitor: Visitor, source_image: Path
) -> None:
    webui = visitor.webui
    webui.post("/sdapi/v1/options", {"unziplora_preview_steps": 2})
    webui.draw("a house")  # Forge knows its model from its first image on
    visitor.page.locator("#uz_model").get_by_text("GB free (plan: full)").wait_for()
    visitor.shot("train-empty")

    fill_in_and_train(visitor, source_image)
    assert (webui.loras / "clicked_content.safetensors").is_file()
    settings = (webui.runs / "clicked" / "settings.json").read_text("utf-8")
    assert json.loads(settings)["settings"]["preview_steps"] == 2

    report = copied_report(visitor)
    for line in (f"program: {PROGRAMS[webui.kind]}", "its version: ", "\n  steps: 8\n"):
        assert line in report
    for private in ("clicked", "crayon", str(webui.data), str(Path.home())):
        assert private not in report

    card = card_of(visitor, "clicked")
    infotext = infotext_of_the_published_image(visitor, card, "clicked")
    assert infotext.startswith(f"{BOTH}\n")
    assert "Steps: 2" in infotext
    assert "Sampler: " in infotext
    visitor.shot("results")

    assert prompt_after(visitor, card, "Both") == BOTH
    # ersatzForge names no hashes, unless an option has it compute them (modules/hashes.py:59)
    assert (BOTH if webui.kind == "ersatz" else "Lora hashes") in draw_in_txt2img(visitor)
    copy_the_image_from_txt2img(visitor)
    send_the_image_from_the_gallery(visitor)
    previews_as_in_txt2img(visitor)


def test_an_interrogator_that_cannot_fetch_its_models_is_explained_in_a_sentence(
    visitor: Visitor, source_image: Path
) -> None:
    page = visitor.page
    if visitor.webui.kind in ("classic", "neo", "ersatz"):
        assert page.locator("#uz_suggest").count() == 0
        pytest.skip(f"{PROGRAMS[visitor.webui.kind]} has no interrogator, and no button for it.")
    page.locator("#uz_suggest").click()
    page.locator("#uz_message").get_by_text("There is no image to look at").wait_for()
    page.locator("#uz_image input[type=file]").set_input_files(source_image)
    page.locator("#uz_image img").wait_for()
    page.locator("#uz_suggest").click()
    page.locator("#uz_message").get_by_text("Type the words yourself").wait_for()
    assert visitor.field("uz_style").input_value() == ""
    visitor.shot("suggest")


def test_the_card_shows_at_once_and_a_click_writes_the_trigger(
    visitor: Visitor, source_image: Path
) -> None:
    """The page is open while the run ends; nobody presses the Lora page's refresh."""
    page = visitor.page
    visitor.tab("txt2img")
    visitor.tab("Lora", "#txt2img_extra_tabs")
    page.locator("#txt2img_lora_cards").wait_for()
    visitor.tab("UnZipLoRA")
    run = visitor.webui.train("carded", source_image, steps=2)
    page.locator('#uz_live [data-state="completed"]').filter(has_text="carded").wait_for()
    visitor.tab("txt2img")
    card = page.locator('#txt2img_lora_cards .card[data-name="carded_style"]')
    card.wait_for()
    visitor.shot("lora-cards")
    visitor.field("txt2img_prompt").fill("")
    card.click(position={"x": 20, "y": 60})
    page.wait_for_function(
        "() => document.querySelector('#txt2img_prompt textarea').value.includes('carded')"
    )
    assert re.search(r"<lora:carded_style:1(\.0)?>", visitor.prompt())
    assert "crayon drawing style" in visitor.prompt()
    assert run["state"] == "completed"
