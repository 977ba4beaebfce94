"""The menu of a pair's card: what is asked first, and what is done after a yes."""

from __future__ import annotations

import io
import json
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from tests.waiting import until
from unziplora.app.service import Service
from unziplora.ui.card_menu import CardMenu, delete_run
from unziplora.ui.timeline import Timeline

pytestmark = pytest.mark.slow
SETTINGS = {"subject": "tree", "style": "flat drawing", "rank": 2, "steps": 3,
            "preview_every": 2, "preview_steps": 1, "preview_snapshots": True}  # fmt: skip


@pytest.fixture(scope="module")
def service(documented: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Service:
    """With a pair named one."""
    host = documented["MyHost"](documented["small_unet"]())
    folder = tmp_path_factory.mktemp("menu")
    service = Service(lambda: host, lambda: folder / "loras")
    trained(service, "one")
    return service


def trained(service: Service, name: str) -> None:
    image = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(image, "PNG")
    job = service.start(image.getvalue(), {**SETTINGS, "name": name})
    until(lambda: job.state not in ("waiting", "running"))
    assert job.state == "completed", job.error


@pytest.fixture
def menu(service: Service) -> CardMenu:
    with gr.Blocks():
        return CardMenu(service)


def request(do: str, name: str = "one") -> str:
    return json.dumps({"do": do, "name": name})


def chosen(menu: CardMenu, do: str, name: str = "one", here: bool = True) -> tuple[str, Any, Any]:
    """The message, what is asked now, and the updates of the question's parts."""
    answer, asked, *rest = menu.choose(request(do, name), 1.0, 1.0, here)
    return answer, asked, rest


@pytest.mark.parametrize(
    ("do", "question", "value"),
    [
        ("delete", "one_content.safetensors, ", ""),
        ("rename", "Prompts that call it by its old name", "one"),
        ("train more", "stays as it is", "1"),
        ("publish", "licence", "sks tree and flat drawing style"),
    ],
)
def test_before_it_is_done_it_is_asked(menu: CardMenu, do: str, question: str, value: str) -> None:
    answer, asked, (part, text, field, licence, yes, *_) = chosen(menu, do)
    assert not answer
    assert asked == (do, "one")
    assert part["visible"]
    assert question in text
    assert (field["visible"], field["value"]) == (bool(value), value)
    assert licence["visible"] == (do == "publish")
    assert (yes["variant"] == "stop") == (do == "delete")


@pytest.mark.parametrize("do", ["delete", "rename", "train more", "publish", "sheet"])
def test_of_a_pair_that_is_gone_nothing_is_asked(menu: CardMenu, do: str) -> None:
    answer, asked, _ = chosen(menu, do, "gone")
    assert 'role="alert"' in answer
    assert asked == ("", "")


def test_a_yes_does_it(menu: CardMenu, service: Service) -> None:
    trained(service, "mine")
    assert "two now" in menu.do(("rename", "mine"), " two ", "")
    assert "two-more is in the queue" in menu.do(("train more", "two"), "1", "")
    assert "Type a whole number" in menu.do(("train more", "two"), "many", "")
    published = menu.do(("publish", "two"), "", "no licence")
    assert "unziplora-published" in published
    assert "two.zip" in published
    until(lambda: service.jobs.current is None and not service.jobs.waiting())
    assert "Deleted: two_content" in menu.do(("delete", "two"), "", "")
    assert "is deleted" in menu.do(("delete run", "two"), "", "")
    assert 'role="alert"' in menu.do(("format", "two"), "", "")
    assert "resumed" in delete_run("two").text


def test_a_folder_is_not_shown_to_visitors_elsewhere(menu: CardMenu) -> None:
    answer, _, _ = chosen(menu, "open", here=False)
    assert "only be shown on the computer" in answer


def test_the_timeline_has_a_place_for_each_step_with_previews(service: Service) -> None:
    with gr.Blocks():
        timeline = Timeline(service, "x")
    part, name, slider, html, save = timeline.open("one")
    assert part["visible"]
    assert name == "one"
    assert (slider["maximum"], slider["value"]) == (2, 2)
    assert "after step 3" in html
    assert html.count("<img") == 4
    assert not save["visible"], "the last step is the pair itself"
    for nothing in (None, "", "gone", "../up"):
        assert not timeline.open(nothing)[0]["visible"]


def test_an_earlier_step_is_chosen_in_the_menu(menu: CardMenu) -> None:
    answer, _, rest = chosen(menu, "steps")
    assert "Move the slider" in answer
    assert rest[-6]["visible"]
    assert "kept no earlier previews" in chosen(menu, "steps", "gone")[0]
