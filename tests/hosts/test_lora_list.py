"""What a real WebUI lists as LoRAs after weeks of use: the pairs and merges of its user only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.pairs import PROMPT
from tests.hosts.programs import API, WebUI
from tests.hosts.visitor import Visitor

NAMES = [f"week-{number}" for number in range(20)]
ROLES = ("content", "style")


def listed(webui: WebUI) -> set[str]:
    """By the WebUI's own list; in use it holds what other tests trained, too."""
    webui.post("/sdapi/v1/refresh-loras")
    names = {lora["name"] for lora in webui.get("/sdapi/v1/loras")}
    return {name for name in names if name.startswith(("week-", "merged-"))}


def merge(webui: WebUI, name: str, content: str, style: str) -> str:
    parts = [{"pair": content, "role": "content"}, {"pair": style, "role": "style"}]
    return Path(webui.post(f"{API}/merge", {"name": name, "parts": parts})["file"]).stem


@pytest.fixture(scope="module")
def expected(webui: WebUI, source_image: Path) -> set[str]:
    """The names that should be listed after twenty runs with all that leaves files: previews,
    snapshots, publishing, merging, stopping, pausing, training again, deleting, renaming."""
    for number, name in enumerate(NAMES):
        more = {"preview_every": 2, "preview_steps": 1} if number % 5 == 0 else {}
        run = webui.train(name, source_image, steps=2, snapshot_every=number % 2, **more)
        assert run["state"] == "completed", run
    for name in NAMES[:3]:
        webui.post(f"{API}/publish", {"name": name})
    merged = {
        merge(webui, f"merged-{number}", NAMES[number], NAMES[number + 1]) for number in range(3)
    }
    stopped = webui.start("week-stopped", source_image, steps=3000, save_minutes=0.02)
    webui.at_step(stopped, 5)
    webui.command(stopped, "stop")
    assert webui.ended(stopped)["state"] == "stopped"
    for name in NAMES[10:13]:
        assert webui.client.delete(f"{API}/pairs/{name}").status_code == 200
    webui.post(f"{API}/pairs/{NAMES[13]}/name", {"name": "week-renamed"})
    kept = {*NAMES[:10], *NAMES[14:], "week-renamed"}
    return {f"{name}_{role}" for name in kept for role in ROLES} | merged


def test_it_holds_the_users_pairs_and_merges_only(webui: WebUI, expected: set[str]) -> None:
    assert listed(webui) == expected


def test_each_has_a_card_of_words_and_weight(webui: WebUI, expected: set[str]) -> None:
    for name in expected:
        card = json.loads((webui.loras / f"{name}.json").read_text("utf-8"))
        assert card["description"], name
        assert card["activation text"], name
        assert card["preferred weight"] == 1, name
    for name in (f"{NAMES[0]}_content", f"{NAMES[5]}_style"):
        assert (webui.loras / f"{name}.png").is_file(), name


def test_the_lora_page_shows_them_without_folders_of_ours(
    expected: set[str], visitor: Visitor
) -> None:
    page = visitor.page
    visitor.tab("txt2img")
    visitor.tab("Lora", "#txt2img_extra_tabs")
    # every page gets the cards of the first one that was opened (modules/ui_extra_networks.py:786)
    page.locator("#txt2img_lora_extra_refresh:visible").first.click()  # it has two of this id
    page.locator(f'#txt2img_lora_cards .card[data-name="{NAMES[0]}_style"]').first.wait_for()
    cards = page.locator("#txt2img_lora_cards .card")
    names = [str(card.get_attribute("data-name")) for card in cards.all()]
    ours = sorted(name for name in names if name.startswith(("week-", "merged-")))
    assert ours == sorted(expected)
    folders = page.locator("#txt2img_lora_dirs button, #txt2img_lora_tree .tree-list-item-label")
    for folder in folders.all_inner_texts():
        assert not any(word in folder for word in ("unziplora", "snapshots", "published"))
    visitor.shot("lora-list-after-twenty-runs")


def test_prompts_use_a_pair_that_was_published_and_then_trained_again(
    webui: WebUI, source_image: Path, expected: set[str]
) -> None:
    name = NAMES[0]
    call = f"{PROMPT} <lora:{name}_content:1> <lora:{name}_style:1>"
    before = webui.draw(call).tobytes()
    run = webui.train(name, source_image, steps=12, lr=3e-2, overwrite=True)
    assert run["state"] == "completed", run
    for role in ROLES:
        shutil.copyfile(
            webui.loras / f"{name}_{role}.safetensors", webui.loras / f"other_{role}.safetensors"
        )
    webui.post("/sdapi/v1/refresh-loras")
    after = webui.draw(call).tobytes()
    assert after != before
    assert after == webui.draw(call.replace(f"{name}_", "other_")).tobytes()
    for role in ROLES:
        (webui.loras / f"other_{role}.safetensors").unlink()
    assert listed(webui) == expected


def test_deleting_all_leaves_an_empty_list(webui: WebUI, expected: set[str]) -> None:
    pairs: list[Any] = webui.get(f"{API}/pairs")
    for pair in pairs:
        if pair["name"].startswith("week-"):
            webui.client.delete(f"{API}/pairs/{pair['name']}").raise_for_status()
    assert listed(webui) == {name for name in expected if name.startswith("merged-")}
