"""After a pair is written, a WebUI reads it from the disk, also where the name is an old one."""

from __future__ import annotations

import sys
from functools import lru_cache
from types import SimpleNamespace

import pytest
import torch
from torch import nn

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
    merged = "[('fox_content.safetensors', 1.0, 1.0, False)]"  # backend/patcher/lora.py:353
    unet, text = SimpleNamespace(loaded_hash=merged), SimpleNamespace(loaded_hash=merged)
    model = SimpleNamespace(
        current_lora_hash="[('fox_content.safetensors', 1.0)]",
        forge_objects=SimpleNamespace(
            unet=SimpleNamespace(lora_loader=unet),
            clip=SimpleNamespace(patcher=SimpleNamespace(lora_loader=text)),
        ),
    )
    loaded = SimpleNamespace(model_data=SimpleNamespace(sd_model=model))
    monkeypatch.setitem(sys.modules, "modules.sd_models", loaded)
    load_lora_state_dict("fox_content.safetensors")
    refresh_loras({})
    assert model.current_lora_hash == ""
    assert unet.loaded_hash not in (merged, "[]")
    assert text.loaded_hash not in (merged, "[]")
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


class Networks(SimpleNamespace):
    """Automatic1111's Lora extension (extensions-builtin/Lora/networks.py:288 and 411), as far as
    it remembers: files by name and time, and of each layer what it has."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(loaded_networks=[], networks_in_memory={}, layer=layer, files={})

    def list_available_networks(self) -> None:
        pass

    def load_networks(self, names: list[str]) -> None:
        already = {net.name: net for net in self.loaded_networks if net.name in names}
        self.loaded_networks.clear()
        for name in names:
            net = already.get(name) or self.networks_in_memory.get(name)
            weight, mtime = self.files[name]
            if net is None or mtime > net.mtime:
                net = SimpleNamespace(name=name, mtime=mtime, weight=weight)
                self.networks_in_memory[name] = net
            self.loaded_networks.append(net)

    def network_apply_weights(self, layer: nn.Linear) -> None:
        wanted = tuple(net.name for net in self.loaded_networks)
        if not hasattr(layer, "backup"):
            layer.backup = layer.weight.detach().clone()  # type: ignore[assignment]
        if getattr(layer, "network_current_names", ()) != wanted:
            with torch.no_grad():
                layer.weight.copy_(layer.backup)
                for net in self.loaded_networks:
                    layer.weight += net.weight
            layer.network_current_names = wanted  # type: ignore[assignment]

    def drawn(self, *names: str) -> float:
        self.load_networks(list(names))
        self.network_apply_weights(self.layer)
        return self.layer.weight.item()


@pytest.fixture
def automatic1111(monkeypatch: pytest.MonkeyPatch) -> Networks:
    layer = nn.Linear(1, 1)
    nn.init.zeros_(layer.weight)
    networks = Networks(layer)
    monkeypatch.setitem(sys.modules, "networks", networks)
    data = SimpleNamespace(sd_model=layer, loaded_sd_models=[layer])
    monkeypatch.setitem(sys.modules, "modules.sd_models", SimpleNamespace(model_data=data))
    return networks


def test_a_file_made_again_under_its_name_is_drawn_as_it_is_now(automatic1111: Networks) -> None:
    automatic1111.files["merged"] = (1.0, 100.0)
    assert automatic1111.drawn("merged") == 1.0
    automatic1111.files["merged"] = (2.0, 200.0)
    refresh_loras({})
    assert automatic1111.drawn("merged") == 2.0
    assert automatic1111.drawn() == 0.0


def test_an_older_file_renamed_to_a_name_that_was_drawn_is_read(automatic1111: Networks) -> None:
    automatic1111.files["fox"] = (1.0, 100.0)
    assert automatic1111.drawn("fox") == 1.0
    automatic1111.files["fox"] = (2.0, 50.0)
    refresh_loras({})
    assert automatic1111.drawn("fox") == 2.0


def test_an_image_that_is_being_drawn_does_not_keep_the_old_file(automatic1111: Networks) -> None:
    automatic1111.files["merged"] = (1.0, 100.0)
    automatic1111.drawn("merged")
    automatic1111.files["merged"] = (2.0, 200.0)
    refresh_loras({})
    automatic1111.network_apply_weights(automatic1111.layer)  # its next step
    assert automatic1111.drawn("merged") == 2.0
