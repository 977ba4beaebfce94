"""What other extensions leave on a UNet, re-made in a few lines each, is off for a run."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unziplora.errors import InvalidInput
from unziplora.hosts.webui.foreign_hooks import ForeignHooks

# As Hypertile and negpip: the forward of an attention is wrapped on the instance. As ControlNet's
# LLLite: that of a projection. As its "reference": that of a block, under a second name.
INSTANCE = """
def wrap(module, name="forward"):
    before = getattr(module, name)
    def changed(*args, **kwargs):
        return before(*args, **kwargs) * 3
    setattr(module, name, changed)
"""
# as incantations: hooks on to_v
HOOKS = """
def before(module, args):
    return (args[0] + 1,)
def after(module, args, output):
    return output - 1
class After:
    def __call__(self, module, args, output):
        return output * 5
"""
# as regional-prompter: Linear.forward of the whole WebUI
LINEAR = """
def forward(self, x):
    return x * 0
"""
# as FreeU: the concatenation of skip connections
CAT = """
import functools, torch
def scaled(tensors, *args, original, **kwargs):
    return original([tensors[0] * 1.5, *tensors[1:]], *args, **kwargs)
def partial(original):
    return functools.partial(scaled, original=original)
"""


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_v = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_v(torch.tanh(self.to_q(x)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attention(), Attention()

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        return x + self.attn2(self.attn1(x))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.cat([block(x), x], dim=-1)[..., :4]
        return x


@pytest.fixture
def unet() -> UNet:
    torch.manual_seed(0)
    return UNet()


@pytest.fixture
def extension(tmp_path: Path) -> Callable[[str, str], ModuleType]:
    """Writes an extension and loads its script, as a WebUI does."""

    def load(name: str, text: str) -> ModuleType:
        path = tmp_path / "extensions" / name / "scripts" / "script.py"
        path.parent.mkdir(parents=True)
        path.write_text(text, "utf-8")
        spec = importlib.util.spec_from_file_location("script.py", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def hooks(tmp_path: Path) -> ForeignHooks:
    return ForeignHooks([tmp_path / "extensions", tmp_path / "extensions-builtin"])


def output(unet: UNet) -> Tensor:
    with torch.no_grad():
        return unet(torch.linspace(-1, 1, 8).reshape(2, 4)).clone()


def leave_instance_forwards(unet: UNet, load: Any) -> None:
    script = load("negpip", INSTANCE)
    script.wrap(unet.blocks[0].attn2)
    script.wrap(unet.blocks[1].attn1.to_q)
    script.wrap(unet.blocks[1], "_forward")


def leave_hooks(unet: UNet, load: Any) -> None:
    script = load("incantations", HOOKS)
    unet.blocks[0].attn1.to_v.register_forward_hook(script.after)
    unet.blocks[0].attn1.to_v.register_forward_hook(script.After())
    unet.blocks[1].attn2.register_forward_pre_hook(script.before)


@pytest.mark.parametrize(
    ("leave", "sentence"),
    [
        (leave_instance_forwards, "The extension negpip had changed the model (in 3 places)"),
        (leave_hooks, "The extension incantations had changed the model (in 3 places)"),
    ],
)
def test_what_was_left_on_the_unet_is_off_and_comes_back(
    unet: UNet, hooks: ForeignHooks, extension: Any, leave: Any, sentence: str
) -> None:
    clean = output(unet)
    leave(unet, extension)
    changed = output(unet)
    assert not changed.equal(clean)
    with hooks.off(unet) as notes:
        assert output(unet).equal(clean)
        (note,) = notes
        assert note.startswith(sentence)
    assert output(unet).equal(changed)


def test_it_comes_back_when_the_run_fails(unet: UNet, hooks: ForeignHooks, extension: Any) -> None:
    leave_hooks(unet, extension)
    leave_instance_forwards(unet, extension)
    changed = output(unet)
    with pytest.raises(RuntimeError, match="in the middle"), hooks.off(unet):
        raise RuntimeError("in the middle")
    assert output(unet).equal(changed)


def test_a_handle_to_a_hook_still_removes_it_afterwards(
    unet: UNet, hooks: ForeignHooks, extension: Any
) -> None:
    clean = output(unet)
    script = extension("incantations", HOOKS)
    handle = unet.blocks[0].attn1.register_forward_hook(script.after)
    with hooks.off(unet):
        pass
    assert not output(unet).equal(clean)
    handle.remove()
    assert output(unet).equal(clean)


def test_a_hook_of_unknown_origin_on_the_unet_is_off_too(unet: UNet, hooks: ForeignHooks) -> None:
    clean = output(unet)
    unet.blocks[0].register_forward_hook(lambda module, args, output: output * 2)
    with hooks.off(unet) as notes:
        assert output(unet).equal(clean)
        assert "test_foreign_hooks.py" in notes[0]


def test_of_the_other_parts_only_what_came_from_an_extension_is_off(
    unet: UNet, hooks: ForeignHooks, extension: Any
) -> None:
    """A WebUI moves its VAE and text encoders by hooks of its own."""
    vae = UNet()
    moved = []
    vae.register_forward_pre_hook(lambda module, args: moved.append(module))
    clean = output(vae)
    extension("hypertile", INSTANCE).wrap(vae.blocks[0])
    with hooks.off(unet, [vae]):
        assert output(vae).equal(clean)
    assert len(moved) == 2
    assert not output(vae).equal(clean)


@pytest.fixture
def linear() -> Iterator[None]:
    before = nn.Linear.forward
    yield
    nn.Linear.forward = before  # type: ignore[method-assign]


@pytest.mark.usefixtures("linear")
def test_a_forward_of_a_whole_class_is_refused_by_name(
    unet: UNet, hooks: ForeignHooks, extension: Any
) -> None:
    script = extension("sd-webui-regional-prompter", LINEAR)
    nn.Linear.forward = script.forward  # type: ignore[method-assign]
    expected = r"sd-webui-regional-prompter has replaced Linear\.forward.*Switch it off"
    with pytest.raises(InvalidInput, match=expected), hooks.off(unet):
        pass


@pytest.mark.usefixtures("linear")
def test_the_webuis_own_patch_of_linear_stays(unet: UNet, tmp_path: Path, extension: Any) -> None:
    script = extension("Lora", LINEAR)
    nn.Linear.forward = script.forward  # type: ignore[method-assign]
    with ForeignHooks([tmp_path / "extensions"]).off(unet) as notes:
        assert nn.Linear.forward is script.forward
    assert not notes


@pytest.fixture
def cat() -> Iterator[None]:
    before = torch.cat
    yield
    torch.cat = before


@pytest.mark.usefixtures("cat")
def test_freeu_in_torch_itself_is_off_and_comes_back(
    unet: UNet, hooks: ForeignHooks, extension: Any
) -> None:
    clean = output(unet)
    torch.cat = extension("sd-webui-freeu", CAT).partial(torch.cat)
    changed = output(unet)
    assert not changed.equal(clean)
    with hooks.off(unet) as notes:
        assert output(unet).equal(clean)
        assert "sd-webui-freeu" in notes[0]
    assert output(unet).equal(changed)


def test_freeu_in_the_webuis_stand_in_for_torch_is_off_and_comes_back(
    unet: UNet, hooks: ForeignHooks, extension: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Automatic1111's `th` in the UNet's module (modules/sd_hijack_unet.py:11)."""

    class StandIn:
        def cat(self, tensors: Any, *args: Any, **kwargs: Any) -> Tensor:
            return torch.cat(tensors, *args, **kwargs)

    stand_in = StandIn()
    monkeypatch.setattr(sys.modules[__name__], "th", stand_in, raising=False)
    changed = extension("sd-webui-freeu", CAT).partial(stand_in.cat)
    stand_in.cat = changed  # type: ignore[method-assign]
    with hooks.off(unet) as notes:
        assert "cat" not in vars(stand_in)
        assert "sd-webui-freeu" in notes[0]
    assert stand_in.cat is changed
