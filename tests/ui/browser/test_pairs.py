"""What a visitor does with finished pairs, in every gradio that matters."""

from __future__ import annotations

import json
from typing import Any

from tests.ui.browser.conftest import Served
from tests.ui.browser.pages import Page


def test_two_pairs_are_compared_drawn_and_merged(page: Page, served: Served, trained: Any) -> None:
    trained("one")
    trained("two")
    page.tab("Combine")
    page.click("merge")
    page.says("combine_message", "Two pairs are needed")
    page.tab("Inspect")
    page.tab("Combine")  # its lists are read anew, and what was said stays
    page.page.wait_for_timeout(3000)
    page.says("combine_message", "Two pairs are needed")
    page.choose("content_of", "one")
    page.silent("combine_message")  # it was of other pairs
    page.choose("style_of", "two")
    page.says("overlap", r"overlap[\s\S]*decoder, coarse 2 output_blocks\.1\.1")
    assert page.page.locator("#uz_overlap .uz-parts").count() == 11
    page.fill("merged_name", "mixed")
    page.click("merge")
    page.says("combine_message", "<lora:mixed:1>")
    assert (served.folder / "mixed.safetensors").exists()
    page.click("merge")
    page.says("combine_message", "exists already")
    page.choose("merge_how", "np")
    page.fill("merged_name", "mixed-np")
    page.click("merge")
    page.says("combine_message", "<lora:mixed-np:1>")
    page.page.locator("#uz_merge_numbers").get_by_text("Settings of np and zip").first.click()
    page.page.wait_for_selector("#uz_merge_mu")
    page.fill("merge_mu", "weak")
    page.fill("merged_name", "mixed-weak")
    page.click("merge")
    page.says("combine_message", r"Strength \(mu\) cannot be 'weak'")
    page.fill("merge_mu", "0.25")
    page.click("merge")
    page.says("combine_message", "<lora:mixed-weak:1>")
    card = json.loads((served.folder / "mixed-weak.json").read_text("utf-8"))
    assert "NP-LoRA, mu 0.25" in card["description"]
    page.shot("combine-settings")
    page.choose("merge_how", "zip")  # learns on the model, until it is stopped
    page.fill("merge_steps", "90")
    page.fill("merged_name", "mixed-zip")
    page.click("merge")
    page.says("merge_live", r"mixed-zip[\s\S]*\d+ of 90 steps")
    page.page.locator("#uz_merge_live button").click()
    page.says("combine_message", r"<lora:mixed-zip:1>[\s\S]*mergers of step \d+ of 90")
    assert (served.folder / "mixed-zip.safetensors").exists()
    page.silent("merge_live")
    page.click("combine_draw")
    page.page.wait_for_selector("#uz_combine_sheet img")
    page.shot("combine")
    page.tab("Inspect")
    page.drop("file", served.folder / "mixed.safetensors")
    page.says("report", "mixed.safetensors[\\s\\S]*sks tree, flat drawing style")
    assert page.page.locator("#uz_report .uz-parts").count() == 22
    page.shot("inspect")


def test_a_pair_is_trained_further_and_an_earlier_step_becomes_a_pair(
    page: Page, served: Served, trained: Any, train: Any
) -> None:
    trained("one")
    page.open()
    page.tab("Results")
    page.menu("one", "train more")
    page.fill("answer", "5")
    page.confirm()
    page.says("results_message", "one-more is in the queue")
    page.tab("Train")
    page.says("live", "one-more")
    page.state("completed")
    page.tab("Results")
    page.says("cards", "one-more")  # the list was read again, which closes its menus
    page.menu("one", "start from this")  # which opens Train
    page.advanced()
    page.holds("start_from", "one")
    page.page.locator("#uz_preview_snapshots input").check()
    train("kept", steps=6, preview_every="3")
    page.says("live", "kept")
    page.state("completed")
    page.page.locator("#uz_timeline_images img").nth(3).wait_for()
    page.page.locator("#uz_timeline_slider input[type=number]").first.fill("1")
    page.page.keyboard.press("Tab")
    page.says("timeline_images", "after step 3")
    page.shot("timeline")
    page.click("save_step")
    page.says("message", "kept-step3")
    assert (served.folder / "kept-step3_style.safetensors").exists()
