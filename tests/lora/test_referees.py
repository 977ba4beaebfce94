"""Other programs read our merges, and we read others' files, as those programs themselves do.

Referees: diffusers with peft, and Automatic1111's own Lora extension, run from its sources where
UNZIPLORA_A1111 names its folder.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.lora.layouts import KINDS, LAYOUTS, Made, deltas, flat, kohya, linears, pairs, sgm
from unziplora.hosts.standalone.generate import loaded
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.hosts.standalone.sampling import bare_pipeline
from unziplora.lora.merge import merge
from unziplora.lora.mergers import Learned
from unziplora.lora.read import read_lora
from unziplora.testing.random_checkpoint import Widths, write_random_model

TINY = Widths((32, 64, 64), (32, 32, 32, 32), (32, 32), (2, 2))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    path = tmp_path_factory.mktemp("referees") / "m.safetensors"
    return StandaloneHost.open(
        write_random_model(path, architecture="vega", widths=TINY), device="cpu"
    )


def outputs(unet: nn.Module) -> dict[str, Tensor]:
    """Of every attention projection, for one input each."""
    found = {}
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            width = module.in_features
            x = torch.randn(2, width, generator=torch.Generator().manual_seed(width))
            with torch.no_grad():
                found[name] = module(x)
    return found


def worst(got: dict[str, Tensor], right: dict[str, Tensor], base: dict[str, Tensor]) -> float:
    """The largest error of a layer's output, of the LoRA's effect on it."""
    assert got.keys() == right.keys()
    return max(
        float((got[name] - right[name]).norm() / (right[name] - base[name]).norm().clamp(min=1e-9))
        for name in got
        if not torch.equal(right[name], base[name])
    )


def with_diffusers(unet: nn.Module, path: Path, weight: float) -> dict[str, Tensor]:
    pytest.importorskip("peft", reason="diffusers loads LoRAs with peft, which is not installed")
    pipeline = bare_pipeline(unet)
    try:
        pipeline.load_lora_weights(load_file(path), adapter_name="one")
        pipeline.set_adapters(["one"], [weight])
        return outputs(unet)
    finally:
        pipeline.unload_lora_weights()


def test_diffusers_draws_a_merge_of_different_ranks_as_we_do(
    host: StandaloneHost, tmp_path: Path
) -> None:
    ranks = pairs(linears(host.unet), rank=None)
    few = {n: p for n, p in pairs(linears(host.unet), rank=9, seed=1).items() if "up_blocks" in n}
    one = Made(kohya(ranks, alpha=None), {}).write(tmp_path / "one.safetensors")
    other = Made(kohya(few, alpha=3.0), {}).write(tmp_path / "other.safetensors")
    base = outputs(host.unet)
    path = merge(tmp_path / "both.safetensors", [(one, 0.7), (other, -1.2)]).path
    with loaded(host, [(one, 0.7), (other, -1.2)]):
        right = outputs(host.unet)
    with loaded(host, [(path, 1.0)]):
        assert worst(outputs(host.unet), right, base) < 2e-3  # written in fp16
    assert worst(with_diffusers(host.unet, path, 1.0), right, base) < 2e-3


def test_diffusers_draws_what_zip_has_learned_as_we_do(
    host: StandaloneHost, tmp_path: Path
) -> None:
    files = [
        Made(kohya(pairs(linears(host.unet), rank=rank, seed=rank)), {}).write(
            tmp_path / f"{rank}.safetensors"
        )
        for rank in (3, 8)
    ]
    generator = torch.Generator().manual_seed(0)
    mergers = {
        target: tuple(
            torch.rand(read_lora(file).adapters[target].down.shape[1], generator=generator)
            for file in files
        )
        for target in read_lora(files[0]).adapters
    }
    parts = [(files[0], 0.7), (files[1], 1.2)]
    learned = Learned(mergers, (0.7, 1.2), {})
    path = merge(tmp_path / "zip.safetensors", parts, how="zip", learned=learned).path
    base = outputs(host.unet)
    with loaded(host, [(path, 1.0)]):
        ours = outputs(host.unet)
    assert worst(with_diffusers(host.unet, path, 1.0), ours, base) < 1e-3
    with loaded(host, parts):
        assert worst(outputs(host.unet), ours, base) > 0.1  # it is not the plain sum


@pytest.mark.parametrize(
    "layout", ["kohya, sgm names", "kohya, diffusers names", "diffusers with peft"]
)
def test_we_read_a_file_as_diffusers_does(
    layout: str, host: StandaloneHost, tmp_path: Path
) -> None:
    of = pairs(linears(host.unet))
    write, scale = LAYOUTS[layout]
    path = Made(write(of), deltas(of, scale)).write(tmp_path / "a.safetensors")
    base = outputs(host.unet)
    with loaded(host, [(path, 0.6)]):
        got = outputs(host.unet)
    assert worst(got, with_diffusers(host.unet, path, 0.6), base) < 1e-3


@pytest.fixture
def a1111(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A1111's network modules, with stand-ins for the parts of the WebUI that they import."""
    folder = Path(os.environ.get("UNZIPLORA_A1111", "")) / "extensions-builtin" / "Lora"
    if not os.environ.get("UNZIPLORA_A1111") or not folder.is_dir():
        pytest.skip("UNZIPLORA_A1111 names no folder of Automatic1111")

    class Qkv(nn.Linear):
        pass

    devices = types.SimpleNamespace(
        cpu=torch.device("cpu"), device=torch.device("cpu"), dtype=torch.float32
    )
    stand_ins: dict[str, Any] = {name: types.ModuleType(name) for name in (
        "modules", "modules.models", "modules.models.sd3", "modules.models.sd3.mmdit",
    )}  # fmt: skip
    stand_ins["modules.models.sd3.mmdit"].QkvLinear = Qkv
    stand_ins["modules.models.sd3"].mmdit = stand_ins["modules.models.sd3.mmdit"]
    stand_ins["modules.models"].sd3 = stand_ins["modules.models.sd3"]
    stand_ins["modules"].models = stand_ins["modules.models"]
    for name in ("sd_models", "cache", "errors", "hashes", "shared"):
        setattr(stand_ins["modules"], name, types.SimpleNamespace())
    stand_ins["modules"].devices = devices
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(folder))
    names = ["lora", "hada", "ia3", "lokr", "full", "norm", "glora", "oft"]
    before = set(sys.modules)
    loaded_modules = [importlib.import_module(f"network_{name}") for name in names]
    types_of = [
        kind()
        for module in loaded_modules
        for name, kind in vars(module).items()
        if name.startswith("ModuleType") and isinstance(kind, type)
    ]
    yield types_of
    for name in set(sys.modules) - before:
        del sys.modules[name]


OTHERS = ("LoRA with peft's DoRA", "GLoRA of convolutions")  # which it does not apply


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in OTHERS])
def test_we_apply_each_kind_as_automatic1111_does(
    kind: str, host: StandaloneHost, a1111: Any, tmp_path: Path
) -> None:
    made = KINDS[kind](host.unet)
    path = made.write(tmp_path / "a.safetensors")
    tensors = load_file(path)
    weights = namedtuple("weights", ["network_key", "sd_key", "w", "sd_module"])
    network = types.SimpleNamespace(te_multiplier=1.0, unet_multiplier=1.0, dyn_dim=None)
    adapters = {flat(target.module): one for target, one in read_lora(path).adapters.items()}
    modules = dict(host.unet.named_modules())
    for name in made.deltas:
        key = f"lora_unet_{flat(sgm(name))}"
        own = {k.partition(".")[2]: t for k, t in tensors.items() if k.startswith(f"{key}.")}
        module = modules[name]
        described = weights(key, f"diffusion_model_{key}", own, module)
        applied = next(m for t in a1111 if (m := t.create_module(network, described)) is not None)
        with torch.no_grad():
            theirs, _ = applied.calc_updown(module.weight)
            ours = adapters[key.removeprefix("lora_unet_")].delta(module.weight)
        assert (ours - theirs).norm() < 1e-3 * theirs.norm(), name
