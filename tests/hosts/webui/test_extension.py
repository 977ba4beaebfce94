"""The extension where its WebUI is strange, or fails: always a tab, and one sentence in it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from tests.hosts.webui.conftest import StandIn
from unziplora import extension

pytest.importorskip("gradio")


def words(tabs: list[tuple[Any, str, str]]) -> str:
    """All that a page of one sentence says."""
    ((page, title, elem_id),) = tabs
    assert (title, elem_id) == ("UnZipLoRA", "unziplora")
    return json.dumps(page.get_config_file(), default=str)


def test_an_unknown_relative_of_forge_has_a_tab_with_one_sentence(stand_in: StandIn) -> None:
    stand_in.load("backend", "modules_forge", version="forge-of-tomorrow")
    said = words(extension.tab())
    assert "This relative of Forge (forge-of-tomorrow) is not supported" in said
    assert "Automatic1111, Forge, Forge Neo" in said


def test_a_page_that_cannot_be_built_is_a_sentence_and_not_a_missing_tab(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.load("sgm")

    def broken(*_: Any) -> Any:
        raise AttributeError("module 'shared' has no attribute 'interrogator'")

    monkeypatch.setattr("unziplora.ui.page.build", broken)
    said = words(extension.tab())
    assert "The tab could not be built (AttributeError" in said
    assert "interrogator" in said


@pytest.mark.parametrize(
    ("packages", "version"), [(["sgm"], ""), (["backend", "modules_forge"], "neo")]
)
def test_a_webui_without_an_interrogator_or_any_option_has_the_whole_tab(
    stand_in: StandIn, packages: list[str], version: str
) -> None:
    stand_in.load(*packages, version=version)
    said = words(extension.tab())
    assert '"elem_id": "uz_train"' in said
    assert '"elem_id": "uz_suggest"' not in said


def test_the_webui_keeps_no_field_of_ours_over_our_options(stand_in: StandIn) -> None:
    """In its ui-config.json (modules/ui_loadsave.py:46), which it reads at every start."""
    stand_in.load("sgm")
    ((page, _, _),) = extension.tab()
    kept = [b for b in page.blocks.values() if not getattr(b, "do_not_save_to_config", False)]
    assert len(page.blocks) > 100
    assert kept == []


def test_routes_are_added_only_where_there_is_a_host(stand_in: StandIn) -> None:
    stand_in.fill("shared", cmd_opts=type("Options", (), {"api": True}))
    stand_in.load("backend", "modules_forge", version="forge-of-tomorrow")
    app = FastAPI()
    before = len(app.routes)
    extension.routes(None, app)
    assert len(app.routes) == before


@pytest.mark.parametrize("argument", ["api", "nowebui"])
def test_routes_are_there_wherever_the_webui_has_an_api(
    stand_in: StandIn, argument: str, tmp_path: Path
) -> None:
    arguments = SimpleNamespace(**{argument: True}, lora_dir=str(tmp_path))
    stand_in.fill("shared", cmd_opts=arguments)
    stand_in.load("sgm")
    app = FastAPI()
    extension.routes(None, app)
    assert "/unziplora/v1/runs" in app.openapi()["paths"]


def test_a_report_names_a_webui_that_knows_no_version(stand_in: StandIn) -> None:
    stand_in.fill("launch_utils")
    stand_in.load("backend", "modules_forge", version="neo")
    assert extension.about() == {"program": "Forge Neo", "its version": "unknown", "options": ""}
