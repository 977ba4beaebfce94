"""The model that a run is made with is the chosen one, whatever the last image left loaded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from tests.hosts.webui.conftest import StandIn
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.hosts.webui.base import WebUIHost


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(4, 8, 3)])])


class Host(WebUIHost):
    """Of a model that has no more than a UNet."""

    @property
    def unet(self) -> nn.Module:
        unet: nn.Module = self._model.unet
        return unet

    def _has_both_text_encoders(self) -> bool:
        return True

    def _encoders(self) -> list[nn.Module]:
        return []

    @contextlib.contextmanager
    def _trainable(self) -> Iterator[None]:
        yield


class A1111:
    """Loads checkpoints as modules/sd_models.py:925 does with a limit of one: into the object that
    is there, where the config is the same."""

    def __init__(self, stand_in: StandIn) -> None:
        self.opts = SimpleNamespace(sd_model_checkpoint="a", fp8_storage=False)
        self.data = SimpleNamespace(sd_model=None, was_loaded_at_least_once=False)
        self.lock, self.broken = threading.Lock(), set[str]()
        self.load("a", config="base")
        state = SimpleNamespace(begin=lambda job: None, end=lambda: None, interrupted=False)
        self.shared = stand_in.fill("shared", opts=self.opts, state=state, sd_model=self.model)
        self.models = stand_in.fill(
            "sd_models",
            model_data=self.data,
            select_checkpoint=lambda: self.info(self.opts.sd_model_checkpoint),
            reload_model_weights=self.reload_model_weights,
            unload_model_weights=lambda: None,
        )
        stand_in.fill("call_queue", queue_lock=self.lock)
        self.devices = stand_in.fill("devices", device="cpu", fp8=False)
        stand_in.fill("paths_internal")
        nothing: Any = lambda *_: None  # noqa: E731
        stand_in.fill(
            "progress",
            pending_tasks={},
            create_task_id=nothing,
            start_task=nothing,
            finish_task=nothing,
        )

    @property
    def model(self) -> Any:
        return self.data.sd_model

    @staticmethod
    def info(name: str) -> SimpleNamespace:
        return SimpleNamespace(filename=f"/models/{name}.safetensors", sha256=f"sha of {name}")

    def load(self, name: str, config: str) -> None:
        if name in self.broken:
            raise OSError("the file is damaged")
        if self.model is None or self.model.config != config:
            self.data.sd_model = SimpleNamespace(is_sdxl=True, config=config, unet=UNet())
        self.model.sd_checkpoint_info = self.info(name)
        self.data.was_loaded_at_least_once = True

    def reload_model_weights(self) -> None:
        assert self.lock.locked()
        name = self.opts.sd_model_checkpoint
        another_fp8 = self.devices.fp8 != self.opts.fp8_storage
        if another_fp8 or self.model.sd_checkpoint_info != self.info(name):
            self.load(name, "base")
            self.devices.fp8 = self.opts.fp8_storage
            self.shared.sd_model = self.model

    def draws_with(self, name: str, config: str = "base") -> None:
        """An image's refiner, its hires checkpoint, or an override of the API: the dropdown stays
        as it is."""
        self.load(name, config)
        self.shared.sd_model = self.model


@pytest.fixture
def webui(stand_in: StandIn) -> A1111:
    return A1111(stand_in)


@pytest.mark.parametrize("config", ["base", "refiner"])
def test_a_run_has_the_chosen_checkpoint_and_not_the_last_images(webui: A1111, config: str) -> None:
    webui.draws_with("b", config)
    host = Host(Host.chosen_model())
    assert host.model.name == "a.safetensors"
    assert host.model.sha256 == "sha of a"
    with host.borrow():
        assert webui.lock.locked()
    assert not webui.lock.locked()


def test_a_checkpoint_that_is_chosen_and_cannot_be_loaded_is_named(webui: A1111) -> None:
    webui.broken, webui.opts.sd_model_checkpoint = {"c"}, "c"
    with pytest.raises(InvalidInput, match=r"c cannot be loaded \(OSError: the file is damaged\)"):
        Host.chosen_model()
    assert not webui.lock.locked()


def test_a_first_checkpoint_that_could_not_be_loaded_is_not_loaded_again(webui: A1111) -> None:
    webui.data.was_loaded_at_least_once, webui.shared.sd_model = False, None
    with pytest.raises(InvalidInput, match="the WebUI's console says why"):
        Host.chosen_model()


def test_an_image_with_another_checkpoint_before_the_runs_turn_costs_it_nothing(
    webui: A1111,
) -> None:
    host = Host(Host.chosen_model())
    webui.draws_with("b")
    with host.borrow():
        assert webui.model.sd_checkpoint_info == webui.info("a")


def test_another_choice_before_the_runs_turn_is_not_trained_on_under_the_old_name(
    webui: A1111,
) -> None:
    host = Host(Host.chosen_model())
    webui.opts.sd_model_checkpoint = "b"
    webui.draws_with("b")  # in the same object
    assert host.model.name == "a.safetensors"
    with pytest.raises(UnZipLoRAError, match=r"Choose a\.safetensors again"), host.borrow():
        pytest.fail("was lent")
    assert not webui.lock.locked()


def test_an_image_with_another_checkpoint_during_a_run_does_not_end_it(webui: A1111) -> None:
    host = Host(Host.chosen_model())
    with host.borrow():
        webui.shared.opts.unziplora_images_first = True
        webui.draws_with("b")  # in the moment in which the queue is free
        assert host.give_way(lambda: False)
        assert webui.model.sd_checkpoint_info == webui.info("a")
    assert not webui.lock.locked()


def test_an_image_whose_refiner_took_the_models_place_is_named_as_the_reason(
    webui: A1111,
) -> None:
    host = Host(Host.chosen_model())
    with host.borrow():
        webui.draws_with("b", config="refiner")
        with pytest.raises(UnZipLoRAError, match=r"a\.safetensors had to be loaded again\. Resume"):
            host.give_way(lambda: False)
    assert not webui.lock.locked()
    assert Host(Host.chosen_model()).model.name == "a.safetensors"  # what a resume begins with


def test_the_option_for_fp8_does_not_load_the_base_again_under_a_run(webui: A1111) -> None:
    host = Host(Host.chosen_model())
    with host.borrow():
        webui.opts.fp8_storage = True
        webui.models.reload_model_weights()  # before a preview
        assert not webui.devices.fp8
        with pytest.raises(UnZipLoRAError, match='another "FP8 weight" while this run waited'):
            host.give_way(lambda: False)
    assert not webui.lock.locked()
    assert webui.models.reload_model_weights == webui.reload_model_weights
