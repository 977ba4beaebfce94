"""What a preview requests of a WebUI's txt2img, with stand-ins for the WebUI's modules."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from unziplora.errors import InvalidInput
from unziplora.hosts.webui import txt2img

ASKED: dict[str, Any] = {"negative": "", "size": (64, 96), "steps": 3, "seed": 1}


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    samplers = [SimpleNamespace(name=name) for name in ("DPM++ 2M", "Euler a")]
    schedules = [SimpleNamespace(label=label) for label in ("Automatic", "Karras")]
    parts = {
        "processing": {"StableDiffusionProcessingTxt2Img": SimpleNamespace},
        "shared": {"sd_model": object()},
        "scripts": {"ScriptRunner": object},
        "sd_samplers": {"samplers": samplers},
        "sd_schedulers": {"schedulers": schedules},
    }
    for name, values in parts.items():
        module = ModuleType(f"modules.{name}")
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)


def test_what_was_not_chosen_is_left_to_the_webui() -> None:
    job = txt2img.job("a fox", **ASKED)
    assert job.sampler_name == "DPM++ 2M"
    assert not hasattr(job, "cfg_scale")
    assert not hasattr(job, "scheduler")
    assert (job.height, job.width) == (64, 96)


def test_sampler_and_guidance_are_those_that_were_chosen() -> None:
    job = txt2img.job("a fox", **ASKED, sampler="euler a", guidance=3.5)
    assert (job.sampler_name, job.cfg_scale) == ("Euler a", 3.5)


def test_a_schedule_type_behind_the_sampler_is_taken_too() -> None:
    job = txt2img.job("a fox", **ASKED, sampler="DPM++ 2M karras")
    assert (job.sampler_name, job.scheduler) == ("DPM++ 2M", "Karras")


def test_a_webui_whose_samplers_are_named_with_their_schedule_type_needs_no_list_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "modules.sd_schedulers", None)  # as in forge-classic
    monkeypatch.setattr(
        sys.modules["modules.sd_samplers"], "samplers", [SimpleNamespace(name="DPM++ 2M Karras")]
    )
    assert (
        txt2img.job("a fox", **ASKED, sampler="DPM++ 2M Karras").sampler_name == "DPM++ 2M Karras"
    )
    with pytest.raises(InvalidInput, match="no sampler 'DPM\+\+ 2M SGM'"):
        txt2img.job("a fox", **ASKED, sampler="DPM++ 2M SGM")


def test_a_sampler_that_the_webui_lacks_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(InvalidInput, match=r"no sampler 'UniPC'.*Euler a"):
        txt2img.job("a fox", **ASKED, sampler="UniPC")


@pytest.mark.parametrize("name", txt2img.LAST_PROMPTS)
def test_a_preview_leaves_progress_and_the_pages_last_prompt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    paths = ModuleType("modules.paths")
    vars(paths)["data_path"] = str(tmp_path)
    monkeypatch.setitem(sys.modules, "modules.paths", paths)
    state = SimpleNamespace(
        job="a", job_no=0, job_count=1, sampling_step=2, sampling_steps=6, textinfo="b"
    )
    vars(sys.modules["modules.shared"])["state"] = state
    before = dict(vars(state))
    (tmp_path / name).write_text("the last prompt", "utf-8")
    with txt2img.undisturbed():
        for written in txt2img.LAST_PROMPTS:
            (tmp_path / written).write_text("a preview's", "utf-8")
        state.sampling_step, state.job = 9, "c"
    assert vars(state) == before
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text("utf-8") == "the last prompt"
