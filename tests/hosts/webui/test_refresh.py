"""After a pair is written, a WebUI reads it from the disk, also where the name is an old one."""

from __future__ import annotations

import sys
from functools import lru_cache
from types import SimpleNamespace

import pytest

from unziplora.extension import refresh_loras


def test_what_forge_remembers_of_a_file_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []

    @lru_cache(maxsize=5)  # as Forge's extensions-builtin/sd_forge_lora/networks.py:56
    def load_lora_state_dict(filename: str) -> str:
        return filename

    networks = SimpleNamespace(
        list_available_networks=lambda: listed.append(1), load_lora_state_dict=load_lora_state_dict
    )
    monkeypatch.setitem(sys.modules, "networks", networks)
    model = SimpleNamespace(current_lora_hash="[('fox_content.safetensors', 1.0)]")
    loaded = SimpleNamespace(model_data=SimpleNamespace(sd_model=model))
    monkeypatch.setitem(sys.modules, "modules.sd_models", loaded)
    load_lora_state_dict("fox_content.safetensors")
    refresh_loras({})
    assert model.current_lora_hash == ""
    assert listed == [1]
    assert load_lora_state_dict.cache_info().currsize == 0


def test_a_webui_that_remembers_nothing_lists_its_files_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = []
    networks = SimpleNamespace(list_available_networks=lambda: listed.append(1))
    monkeypatch.setitem(sys.modules, "networks", networks)
    refresh_loras({})
    assert listed == [1]
