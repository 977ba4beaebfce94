"""What peft keeps in a config decides the strength that an adapter is drawn at; peft is right."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.field.test_lora_layouts import TINY, predict
from tests.lora.layouts import Made, linears, pairs, peft_header, suffixed
from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.generate import loaded
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.adapter_config import adapter_configs
from unziplora.lora.inspect import inspect
from unziplora.lora.merge import merge
from unziplora.testing.random_checkpoint import write_random_model

peft = pytest.importorskip("peft")
LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
CONFIGS = {
    "LoHa": lambda: peft.LoHaConfig(r=4, alpha=1, target_modules=LAYERS, init_weights=False),
    "LoKr": lambda: peft.LoKrConfig(r=4, alpha=1, target_modules=LAYERS, init_weights=False),
    "LoKr, whole": lambda: peft.LoKrConfig(
        r=64, alpha=16, target_modules=LAYERS, init_weights=False
    ),
    "biases": lambda: peft.LoraConfig(r=4, lora_alpha=8, target_modules=LAYERS, lora_bias=True),
    "patterns": lambda: peft.LoraConfig(
        r=4, lora_alpha=4, target_modules=LAYERS, alpha_pattern={r".*attn2\.to_(q|k)": 16}
    ),
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    path = tmp_path_factory.mktemp("peft") / "m.safetensors"
    return StandaloneHost.open(
        write_random_model(path, architecture="vega", widths=TINY), device="cpu"
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_adapter_is_as_strong_as_in_peft(
    kind: str, host: StandaloneHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = predict(host)
    model = peft.get_peft_model(copy.deepcopy(host.unet), CONFIGS[kind]())
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("lora_B", "hada_w", "lokr_w")):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    model.save_pretrained(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(host, "unet", model.base_model.model)
        right = predict(host)
    with loaded(host, [(tmp_path / "adapter_model.safetensors", 1.0)]):
        got = predict(host)
    effect = (right - base).norm()
    assert effect > 2e-3 * base.norm()
    assert (got - right).norm() < 1e-3 * effect


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq"])
def test_an_adapter_of_a_changed_base_is_refused(
    start: str, host: StandaloneHost, tmp_path: Path
) -> None:
    tensors = suffixed(pairs(linears(host.unet)), "unet.{}", "lora_A.weight", "lora_B.weight")
    path = Made(tensors, {}, peft_header(init_lora_weights=start)).write(tmp_path / "a.safetensors")
    with pytest.raises(InvalidInput, match=start), loaded(host, [(path, 1.0)]):
        pass
    with pytest.raises(InvalidInput, match=start):
        merge(tmp_path / "both.safetensors", [(path, 1.0)])
    assert any(start in note for note in inspect(path).notes)


@pytest.mark.parametrize("pattern", ["(a+)+", "(", "(a|a)" * 9, "a" + ".*" * 9, "[" + "a" * 200])
def test_a_pattern_that_could_take_for_ever_is_a_plain_name(pattern: str) -> None:
    config: dict[str, Any] = {"r": 4, "lora_alpha": 2, "alpha_pattern": {pattern: 7}}
    notes: list[str] = []
    found = adapter_configs({"lora_adapter_metadata": json.dumps(config)}, notes)[""]
    assert found.alpha_of("a" * 100) == 2
    if len(pattern) < 100:
        assert found.alpha_of(f"x.{pattern}") == 7
    assert len(notes) == 1
