"""What a LoRA adds to biases beside its factors: ComfyUI's Extract and Save Lora writes it for each
layer that has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.field.test_lora_layouts import TINY, error
from tests.lora.layouts import Made, convolutions, deltas, linears, pairs, sgm, suffixed
from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.inspect import inspect
from unziplora.lora.merge import merge
from unziplora.testing.random_checkpoint import write_random_model


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    path = tmp_path_factory.mktemp("bias") / "m.safetensors"
    return StandaloneHost.open(
        write_random_model(path, architecture="vega", widths=TINY), device="cpu"
    )


@pytest.fixture
def extracted(host: StandaloneHost) -> Made:
    """Factors of linear layers and convolutions, and the biases of those that have one."""
    modules: dict[str, Any] = {**linears(host.unet, "to_q", "to_out.0", "ff.net.2", "proj_in")}
    modules |= dict(list(convolutions(host.unet).items())[:4])
    of = pairs(modules)
    names = ("diffusion_model.{}", "lora_down.weight", "lora_up.weight", sgm)
    made = Made(suffixed(of, *names), deltas(of, 1.0))
    generator = torch.Generator().manual_seed(3)
    for name, module in modules.items():
        if module.bias is not None:
            change = torch.randn(module.bias.shape, generator=generator) * 0.05
            made.tensors[f"diffusion_model.{sgm(name)}.diff_b"] = change
            made.deltas[f"{name}.bias"] = change
    return made


def test_biases_beside_factors_are_applied(
    extracted: Made, host: StandaloneHost, tmp_path: Path
) -> None:
    path = extracted.write(tmp_path / "a.safetensors")
    assert error(host, path, extracted) < 1e-3
    assert error(host, path, extracted, weight=-0.4) < 1e-3
    without = Made({}, {n: d for n, d in extracted.deltas.items() if not n.endswith(".bias")})
    assert error(host, path, without) > 1e-2


def test_a_file_with_biases_is_counted_and_not_merged_without_them(
    extracted: Made, tmp_path: Path
) -> None:
    path = extracted.write(tmp_path / "a.safetensors")
    report = inspect(path)
    biases = sum(key.endswith("diff_b") for key in extracted.tensors)
    assert report.algorithms == {"LoRA with bias": biases, "LoRA": report.layers - biases}
    assert sum(report.ranks.values()) == report.layers
    with pytest.raises(InvalidInput, match="LoRA with bias"):
        merge(tmp_path / "b.safetensors", [(path, 1.0)])


def test_a_bias_of_another_width_is_refused(
    extracted: Made, host: StandaloneHost, tmp_path: Path
) -> None:
    key = next(key for key in extracted.tensors if key.endswith("diff_b"))
    extracted.tensors[key] = torch.zeros(3)
    path = extracted.write(tmp_path / "a.safetensors")
    with pytest.raises(InvalidInput, match="layers"):
        error(host, path, extracted)
