"""The page as a user meets it, from an image to a merged file, in every gradio that matters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.ui.browser.conftest import QUICK, Served
from tests.ui.browser.pages import Page

LONG = 9000  # steps: not over before a slow browser has looked
EVIL = '"><img src=x onerror="window.evil=1"><script>window.evil=1</script>'


def test_bad_input_is_answered_in_a_sentence(page: Page, image_file: Path, tmp_path: Path) -> None:
    page.click("train")
    page.says("message", "There is no image")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(image_file.read_bytes()[:200])
    page.drop("image", damaged)
    page.fill("subject", "tree")
    page.fill("style", "flat drawing")
    page.click_until_said("train", "message", "cut off|not an image")  # once it is uploaded
    page.open()
    page.image(image_file)
    page.advanced()
    right = {"subject": "tree", "style": "flat drawing", "name": "", "steps": "", "lr": "",
             "resolution": ""}  # fmt: skip
    for field, wrong, said in (
        ("subject", "", "The subject is empty"),
        ("subject", "<lora:x:1>", "The subject has a < or >"),
        ("name", "../up", "name"),
        ("steps", "many", "Training steps cannot be 'many'"),
        ("steps", "-1", "steps cannot be -1"),
        ("lr", "fast", "Learning rate cannot be 'fast'"),
        ("resolution", "7", "resolution cannot be 7"),
    ):
        for other, text in {**right, field: wrong}.items():
            page.fill(other, text)
        page.click("train")
        page.says("message", said)


def test_a_preset_writes_what_it_means_into_the_fields(page: Page) -> None:
    page.open()
    page.advanced()
    page.page.locator("#uz_preset").get_by_text("Fast", exact=True).first.click()
    page.page.wait_for_function(
        "() => document.querySelector('#uz_steps :is(input,textarea)').value === '150'"
    )
    assert page.value("lr") == "1e-4"
    page.says("model", r"(?<!V)RAM: about [\d.]+ GB of [\d.]+ GB free \(plan: full\)")
    page.page.locator("#uz_preset").get_by_text("Low memory", exact=True).first.click()
    page.holds("rank", "16")
    page.says("model", "plan: low")
    page.fill("rank", "many")
    page.says("model", "Network rank .dim. cannot be 'many'")
    page.page.locator("#uz_preset").get_by_text("Default", exact=True).first.click()
    page.holds("steps", "")
    page.says("model", "plan: full")


def test_a_run_is_watched_steered_and_found_again_after_a_reload(page: Page, train: Any) -> None:
    train("steered", steps=LONG)
    page.state("running")
    page.says("live", rf"steered[\s\S]*[1-9]\d* of {LONG} steps .*left .*loss \d")
    assert page.page.locator("#uz_curves polyline").count() == 3
    train("waits")
    page.says("queue", "waits")
    page.ask("cancel waits")
    page.page.locator("#uz_queue tbody tr").first.wait_for(state="hidden")
    page.page.wait_for_selector("#uz_images img[alt='training image']")
    page.click("preview_now")
    page.page.wait_for_selector("#uz_images img[alt^='both']")
    assert page.page.locator("#uz_images img").count() == 5
    page.shot("train-running")
    page.open()  # a reload, or another machine
    page.says("live", r"steered")
    page.page.wait_for_selector("#uz_images img[alt='training image']")
    page.click("pause")
    page.state("paused")
    page.click("resume")
    page.state("running")
    page.click("save_now")
    page.says("message", "snapshot")
    page.stop()
    page.state("stopped")
    page.tab("Results")
    page.ask("resume: steered")
    page.says("results_message", "steered is in the queue")
    page.tab("Train")
    page.state("running")
    page.click("stop_and_save")
    page.state("stopped")
    page.says("images", "Stopped: both LoRAs saved at step [1-9]")
    page.says("images", "steered_style.safetensors")


def test_nothing_jumps_while_a_run_goes_on(page: Page, train: Any) -> None:
    train("still", steps=LONG)
    page.says("live", rf"still[\s\S]*[1-9]\d* of {LONG}")
    page.says("curves", "loss")
    tops = """() => ['uz_commands', 'uz_images', 'uz_curves'].map(
        id => Math.round(document.getElementById(id).getBoundingClientRect().top + scrollY))"""
    first = page.page.evaluate(tops)
    page.page.evaluate("() => { window.kept = document.querySelector('#uz_images figure'); }")
    for _ in range(8):
        page.page.wait_for_timeout(500)
        assert page.page.evaluate(tops) == first
    assert page.page.evaluate("() => window.kept.isConnected"), "what stays was drawn anew"
    page.stop()
    page.state("stopped")


def test_a_pair_is_put_into_a_prompt_published_and_deleted(
    page: Page, served: Served, train: Any
) -> None:
    train("", preview_every="4")
    page.says("live", "tree-flat-drawing")
    page.state("completed")
    page.shot("train-completed")
    page.says("images", "Both LoRAs are ready, after 4 steps")
    page.ask("use both of tree-flat-drawing")  # which opens Results
    both = "<lora:tree-flat-drawing_content:1> <lora:tree-flat-drawing_style:1>"
    page.holds("prompt", f"a sks tree in flat drawing style {both}")
    page.ask("put style of tree-flat-drawing into the prompt")
    page.holds("prompt", "an image in flat drawing style <lora:tree-flat-drawing_style:1>")
    page.ask("put both of tree-flat-drawing into the prompt")
    page.holds("prompt", f"a sks tree in flat drawing style {both}")
    for weight in ("0.5", "-1"):
        page.page.locator("#uz_content_weight input[type=number]").first.fill(weight)
        page.page.keyboard.press("Tab")
        changed = both.replace("content:1", f"content:{weight}")
        page.holds("prompt", f"a sks tree in flat drawing style {changed}")
    page.menu("tree-flat-drawing", "publish")
    page.choose("licence", "cc-by-4.0")
    page.fill("answer", "A tree")
    page.confirm()
    page.says("results_message", "The folder to publish is .*unziplora-published")
    published = served.folder.parent / "unziplora-published" / "tree-flat-drawing"
    card = (published / "README.md").read_text("utf-8")
    assert "license: cc-by-4.0" in card
    assert "# A tree" in card
    page.menu("tree-flat-drawing", "publish")
    page.confirm()
    page.says("results_message", "exists already")
    page.shot("results")
    page.menu("tree-flat-drawing", "rename")
    page.holds("answer", "tree-flat-drawing")
    page.fill("answer", "renamed")
    page.confirm()
    page.says("results_message", "tree-flat-drawing is renamed now")
    page.menu("renamed", "delete")
    page.says("confirm", "renamed_content.safetensors, .*renamed_style.json")
    page.click("answer_no")
    page.page.locator("#uz_answer_yes").wait_for(state="hidden")
    assert (served.folder / "renamed_style.safetensors").exists()
    page.menu("renamed", "delete")
    page.confirm()
    page.says("results_message", "Deleted: renamed_content.safetensors")
    assert not (served.folder / "renamed_style.safetensors").exists()


def test_pairs_are_found_by_their_words(page: Page, trained: Any) -> None:
    trained("one")
    page.open()
    page.tab("Results")
    page.says("cards", "one")
    page.fill("search", "walrus")
    page.says("cards", "No pair fits the search")
    page.fill("search", "tree one")
    page.says("cards", "flat drawing style")


def test_what_is_no_lora_is_answered_in_a_sentence(page: Page, tmp_path: Path) -> None:
    page.open()
    page.tab("Inspect")
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"no tensors")
    page.drop("file", wrong)
    page.says("report", "not a whole .safetensors file")


def test_words_of_files_and_users_are_inert(page: Page, served: Served, image_file: Path) -> None:
    evil_pair(served.folder, "evil")
    evil_pair(served.folder, "evil&quot;>&lt;b>")
    page.open()
    page.tab("Results")
    page.says("cards", "onerror")
    page.ask("put both of evil into the prompt")
    page.page.wait_for_function(
        "() => document.querySelector('#uz_prompt textarea').value.includes('onerror')"
    )
    page.tab("Combine")
    page.choose("content_of", "evil")
    page.choose("style_of", "evil")
    page.says("overlap", "output_blocks")
    page.tab("Inspect")
    page.drop("file", served.folder / "evil_content.safetensors")
    page.says("report", "onerror")
    page.tab("Train")
    page.image(image_file)
    page.fill("subject", "tree")
    page.fill("style", "flat drawing")
    page.fill("name", EVIL)
    page.click("train")
    page.page.wait_for_selector("#uz_message [role=alert]")
    page.page.wait_for_timeout(500)
    assert page.page.evaluate("() => window.evil") is None
    assert page.page.locator("img[src=x]").count() == 0
    for path in served.folder.glob("evil*"):
        path.unlink()


def evil_pair(folder: Path, name: str) -> None:
    """Two files that look like a pair, and say what would be HTML."""
    layer = "lora_unet_output_blocks_1_1_transformer_blocks_0_attn1_to_q"
    for role in ("content", "style"):
        said = {"pair": "x", "trigger": EVIL, "method": EVIL}
        save_file(
            {f"{layer}.lora_down.weight": torch.ones(1, 8),
             f"{layer}.lora_up.weight": torch.ones(8, 1)},
            folder / f"{name}_{role}.safetensors",
            {"ss_network_args": json.dumps(said), "ss_sd_model_name": EVIL, "ss_steps": EVIL},
        )  # fmt: skip


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 1200), ("light", 390)])
def test_every_tab_fits_its_window(
    page: Page, served: Served, trained: Any, theme: str, width: int
) -> None:
    trained("one")
    page.page.set_viewport_size({"width": width, "height": 844})
    page.open(f"?__theme={theme}")
    page.says("live", "steps")
    for tab in ("Train", "Results", "Combine", "Inspect"):
        page.tab(tab)
        if tab == "Results":
            page.says("cards", "one")
        if tab == "Combine":
            page.choose("content_of", "one")
            page.choose("style_of", "one")
            page.says("overlap", "overlap")
        if tab == "Inspect":
            page.drop("file", served.folder / "one_style.safetensors")
            page.says("report", "norm")
        page.shot(f"{tab.lower()}-{theme}-{width}")
        wide = page.page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= width, f"{tab} is {wide} pixels wide"
    page.page.set_viewport_size({"width": 1200, "height": 900})


def test_two_buttons_pressed_at_once_are_both_obeyed(page: Page, train: Any) -> None:
    train("holds", steps=LONG)
    page.state("running")
    for name in ("one-more", "another"):
        train(name)
        page.says("queue", name)
    page.page.evaluate(
        """() => document.querySelectorAll('#uz_queue button[aria-label^="cancel"]')
            .forEach(button => button.click())"""
    )
    page.page.locator("#uz_queue tbody tr").first.wait_for(state="hidden")
    page.stop()
    page.state("stopped")


def test_on_a_phone_the_queue_fits_and_no_button_breaks_its_word(page: Page, train: Any) -> None:
    train("runs", steps=LONG)
    page.state("running")
    for name in ("next-with-quite-a-long-name", "last"):
        train(name)
        page.says("queue", name)
    page.page.set_viewport_size({"width": 390, "height": 844})
    rights, heights = page.page.evaluate(
        """() => ['right', 'height'].map(side => [...document.querySelectorAll('#uz_queue button')]
            .map(e => e.getBoundingClientRect()[side]))"""
    )
    page.shot("queue-390")
    assert len(rights) == 5
    assert max(rights) <= 390
    assert len(set(heights)) == 1
    assert max(heights) < 40, "a button has two lines"
    page.page.set_viewport_size({"width": 1200, "height": 900})
    for name in ("next-with-quite-a-long-name", "last"):
        page.ask(f"cancel {name}")
        # the next press would be dropped before this one is answered
        button = page.page.locator(f'button[aria-label="cancel {name}"]').first
        button.wait_for(state="hidden")
    page.stop()
    page.state("stopped")


def test_every_field_and_button_has_a_name_and_is_reached_by_keyboard(page: Page) -> None:
    page.tab("Train")
    page.advanced()
    nameless = """() => [...document.querySelectorAll('#uz_tabs :is(button, input, textarea)')]
        .filter(e => e.offsetParent !== null && e.type !== 'file')
        .filter(e => !(e.tabIndex < 0 && e.querySelector('input[type=file]')))  // gradio's own
        .filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length || e.title
                       || e.closest('label')))
        .map(e => e.outerHTML.slice(0, 200))"""
    assert page.page.evaluate(nameless) == []
    page.page.locator("#uz_subject :is(input, textarea)").first.focus()
    reached = set()
    for _ in range(40):
        page.page.keyboard.press("Tab")
        reached.add(page.page.evaluate("() => document.activeElement.closest('[id^=uz_]')?.id"))
    assert {"uz_style", "uz_name", "uz_preset", "uz_method", "uz_steps", "uz_train"} <= reached


def test_an_image_is_pasted_and_a_run_is_begun_and_stopped_by_keyboard_alone(page: Page) -> None:
    page.open()
    page.page.evaluate(
        """() => new Promise(done => {
            const canvas = Object.assign(document.createElement('canvas'), {width: 90, height: 90});
            canvas.getContext('2d').fillRect(0, 0, 50, 50);
            canvas.toBlob(blob => {
                const data = new DataTransfer();
                data.items.add(new File([blob], 'pasted.png', {type: 'image/png'}));
                document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}));
                done();
            });
        })"""
    )
    page.page.wait_for_selector("#uz_image img")
    page.page.locator("#uz_subject :is(input, textarea)").first.focus()
    for words in ("tree", "flat drawing", "typed"):
        page.page.keyboard.type(words)
        page.page.keyboard.press("Tab")
    page.tab_to("train")
    page.page.keyboard.press("Enter")
    page.says("live", r"typed[\s\S]*[1-9]\d* of")
    page.tab_to("stop")
    page.page.keyboard.press("Space")
    page.page.locator("#uz_stop_yes").first.wait_for()
    page.tab_to("stop_yes")
    page.page.keyboard.press("Space")
    page.state("stopped")
    page.shot("keyboard")


def test_inside_a_webui_the_prompt_and_the_images_go_to_and_fro(
    nested_page: Page, nested: Served
) -> None:
    page = nested_page
    page.page.get_by_role("button", name="From txt2img").click()
    page.page.wait_for_selector("#uz_image img")
    page.says("message", "Image copied from txt2img")
    page.click("suggest")
    page.holds("style", "64 pixels")
    page.fill("subject", "tree")
    page.fill("style", "flat drawing")
    page.advanced(**QUICK, steps="3")
    page.click("train")
    page.state("completed")
    page.shot("nested-train")
    page.tab("Results")
    page.ask("put content of tree-flat-drawing into the prompt")
    page.page.wait_for_function("() => window.sent")
    assert json.loads(page.page.evaluate("() => window.sent")) == {
        "content": {"name": "tree-flat-drawing_content", "trigger": "sks tree", "weight": 1},
        "style": {"name": "tree-flat-drawing_style", "trigger": "flat drawing style", "weight": 0},
        "toggle": True,
    }
    page.shot("nested-results")


def test_a_tab_is_opened_by_its_name_where_the_webui_translates_its_text(
    page: Page, nested_page: Page
) -> None:
    for shown in (page.page, nested_page.page):
        for tab in ("results", "combine", "inspect", "train"):
            shown.evaluate(
                """(name) => {
                    const row = document.querySelector('#uz_tabs > :is(.tab-nav, .tab-wrapper)');
                    for (const button of row.querySelectorAll('button')) {
                        button.firstChild.textContent = '翻訳';
                    }
                    const opens = document.createElement('button');
                    opens.dataset.tab = name;
                    document.body.append(opens);
                    opens.click();
                    opens.remove();
                }""",
                tab.capitalize(),
            )
            shown.locator(f"#uz_tab_{tab}").wait_for(state="visible")
