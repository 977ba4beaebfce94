"""LoRAs of other programs do in `generate` exactly what their numbers say.

Reported of such programs again and again: a file is taken, and drawn at another strength than its
maker meant (alpha that differs by layer or stands in the header), or refused with a wrong reason
(names of another layout, one tensor more than expected). Right is W + the change, added by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.lora.layouts import (
    ALPHA,
    KINDS,
    LAYOUTS,
    RANK,
    Made,
    deltas,
    dense,
    kohya,
    linears,
    pairs,
    peft_header,
    suffixed,
)
from unziplora.errors import InvalidInput
from unziplora.host import SizeIds
from unziplora.hosts.standalone.generate import generate, loaded
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.inspect import inspect
from unziplora.lora.merge import merge
from unziplora.lora.read import read_lora
from unziplora.testing.random_checkpoint import Widths, write_random_model

TINY = Widths((32, 64, 64), (32, 32, 32, 32), (32, 32), (2, 2))
SIZES = SizeIds((64, 64), (0, 0), (64, 64))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    path = tmp_path_factory.mktemp("layouts") / "m.safetensors"
    return StandaloneHost.open(
        write_random_model(path, architecture="vega", widths=TINY), device="cpu"
    )


def predict(host: StandaloneHost) -> Tensor:
    context, pooled = host.encode_prompts(["a sks cat in ink style"])
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(9))
    added = host.added_conditioning(pooled, SIZES)
    with torch.no_grad():
        return host.denoise(latents, torch.tensor([400]), context, added)


@contextmanager
def added_by_hand(network: nn.Module, changes: Mapping[str, Tensor]) -> Iterator[None]:
    known = dict(network.named_parameters())
    changes = {n if n in known else f"{n}.weight": change for n, change in changes.items()}
    before = {name: known[name].detach().clone() for name in changes}
    with torch.no_grad():
        for name, change in changes.items():
            known[name] += change.to(torch.float32)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in before.items():
                known[name].copy_(weight)


def error(host: StandaloneHost, path: Path, made: Made, weight: float = 1.0) -> float:
    """|output - right output| / |the LoRA's own effect| of one UNet call."""
    base = predict(host)
    with loaded(host, [(path, weight)]):
        got = predict(host)
    assert torch.equal(predict(host), base)
    with added_by_hand(host.unet, {name: weight * d for name, d in made.deltas.items()}):
        right = predict(host)
    effect = (right - base).norm()
    assert effect > 2e-3 * base.norm()
    return float((got - right).norm() / effect)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_drawn_at_its_own_scale(
    layout: str, host: StandaloneHost, tmp_path: Path
) -> None:
    write, scale = LAYOUTS[layout]
    of = pairs(linears(host.unet))
    made = Made(write(of), deltas(of, scale))
    path = made.write(tmp_path / "a.safetensors")
    assert error(host, path, made, 0.7) < 1e-3
    report = inspect(path)
    assert report.layers == len(of)
    assert report.others == {}
    assert report.architecture == "vega"
    assert report.kind.split(",")[0] == layout.split(",")[0].split(" ")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_as_its_formula_says(
    kind: str, host: StandaloneHost, tmp_path: Path
) -> None:
    made = KINDS[kind](host.unet)
    path = made.write(tmp_path / "a.safetensors")
    assert error(host, path, made) < 1e-3
    assert error(host, path, made, -0.4) < 1e-3
    report = inspect(path)
    named = kind.replace("peft's ", "").replace("LoCon", "LoRA").split(",")[0].split(" of ")[0]
    assert list(report.algorithms) == [named.split(" with a ")[0]]
    assert not any("unknown" in what for what in report.others)


def test_an_alpha_or_a_rank_that_differs_by_layer(host: StandaloneHost, tmp_path: Path) -> None:
    of = pairs(linears(host.unet), rank=None)
    made = Made(kohya(of), {})
    for number, (name, (down, up)) in enumerate(of.items()):
        alpha = 0.3 + number % 5
        for key in made.tensors:
            if (
                key.endswith(".alpha")
                and made.tensors[key.replace("alpha", "lora_up.weight")] is up
            ):
                made.tensors[key] = torch.tensor(alpha)
        made.deltas[name] = dense(down, up, alpha / len(down))
    assert error(host, made.write(tmp_path / "a.safetensors"), made) < 1e-3


@pytest.mark.parametrize("said", ["alpha", "by layer", "rank-stabilised"])
def test_an_alpha_that_stands_in_the_header_only(
    said: str, host: StandaloneHost, tmp_path: Path
) -> None:
    of = pairs(linears(host.unet))
    made = Made(suffixed(of, "unet.{}", "lora_A.weight", "lora_B.weight"), {}, peft_header())
    made.deltas = deltas(of, ALPHA / RANK)
    if said == "by layer":
        made.metadata = peft_header(alpha_pattern={"attn2.to_k": 7.0})
        made.deltas |= deltas({n: p for n, p in of.items() if n.endswith("attn2.to_k")}, 7 / RANK)
    if said == "rank-stabilised":
        made.metadata = peft_header(use_rslora=True)
        made.deltas = deltas(of, ALPHA / RANK**0.5)
    path = made.write(tmp_path / "a.safetensors")
    assert error(host, path, made) < 1e-3
    both = merge(tmp_path / "both.safetensors", [(path, 1.0)]).path
    assert error(host, both, made) < 2e-3  # written in fp16


def test_the_config_beside_peft_s_own_file(host: StandaloneHost, tmp_path: Path) -> None:
    of = pairs(linears(host.unet))
    tensors = suffixed(of, "base_model.model.{}", "lora_A.weight", "lora_B.weight")
    made = Made(tensors, deltas(of, ALPHA / RANK))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}))
    assert error(host, made.write(tmp_path / "adapter_model.safetensors"), made) < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_narrow_numbers_are_read_as_what_they_are(
    dtype: torch.dtype, host: StandaloneHost, tmp_path: Path
) -> None:
    of = {n: (d.to(dtype), u.to(dtype)) for n, (d, u) in pairs(linears(host.unet)).items()}
    wide = {n: (d.float(), u.float()) for n, (d, u) in of.items()}
    made = Made(kohya(of), deltas(wide, ALPHA / RANK))
    path = made.write(tmp_path / "a.safetensors")
    assert error(host, path, made) < 1e-3
    assert inspect(path).ranks == {RANK: len(of)}


TEXT = {
    "kohya": ("lora_te1_{}", "lora_te2_{}", "lora_down.weight", "lora_up.weight", True),
    "OneTrainer": ("lora_te1.{}", "lora_te2.{}", "lora_down.weight", "lora_up.weight", False),
    "OMI": ("clip_l.{}", "clip_g.{}", "lora_down.weight", "lora_up.weight", False),
    "diffusers": ("text_encoder.{}", "text_encoder_2.{}", "lora_A.weight", "lora_B.weight", False),
    "diffusers, before peft": (
        "text_encoder.{}.lora_linear_layer", "text_encoder_2.{}.lora_linear_layer",
        "down.weight", "up.weight", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", TEXT)
def test_text_encoder_layers_change_what_is_read(
    layout: str, host: StandaloneHost, tmp_path: Path
) -> None:
    *templates, down, up, underscores = TEXT[layout]
    seen: list[Any] = []

    @contextmanager
    def look(encoders: Any) -> Iterator[None]:
        seen.extend(encoders)
        yield

    with host.encoders_changed(look):
        host.encode_prompts(["x"])
    made = Made({}, {})
    expected = []
    for seed, (template, encoder) in enumerate(zip(templates, seen, strict=True)):
        own = pairs(linears(encoder, "_proj", "fc1", "fc2"), seed=seed)
        assert len(own) >= 12
        changes = {}
        for name, (a, b) in own.items():
            key = template.format(name.replace(".", "_") if underscores else name)
            made.tensors |= {f"{key}.{down}": a, f"{key}.{up}": b}
            changes[name] = dense(a, b, 0.5)
        expected.append(changes)
    path = made.write(tmp_path / "a.safetensors")
    base = host.encode_prompts(["a cat"])
    with loaded(host, [(path, 0.5)]) as notes:
        got = host.encode_prompts(["a cat"])
    assert notes == []

    @contextmanager
    def by_hand(encoders: Any) -> Iterator[None]:
        one, other = encoders
        with added_by_hand(one, expected[0]), added_by_hand(other, expected[1]):
            yield

    with host.encoders_changed(by_hand):
        right = host.encode_prompts(["a cat"])
    for before, mine, wanted in zip(base, got, right, strict=True):
        effect = (wanted - before).norm()
        assert effect > 1e-2
        assert (mine - wanted).norm() < 1e-3 * effect
    assert all(map(torch.equal, host.encode_prompts(["a cat"]), base))


def test_one_tensor_too_many_costs_a_note(host: StandaloneHost, tmp_path: Path) -> None:
    of = pairs(linears(host.unet))
    made = Made(kohya(of), deltas(of, ALPHA / RANK))
    made.tensors |= {
        "bundle_emb.mytok.clip_l": torch.randn(2, 32),
        "lora_unet_something_new.lora_down.weight": torch.ones(2, 4),
        "lora_unet_something_new.lora_up.weight": torch.ones(4, 2),
        "whatever": torch.ones(1),
    }
    path = made.write(tmp_path / "a.safetensors")
    assert error(host, path, made) < 1e-3
    with loaded(host, [(path, 1.0)]) as notes:
        (note,) = notes
    for said in ("1 bundled embedding", "1 modules of an unknown name", "1 unknown tensors"):
        assert said in note


def test_a_difference_of_a_norm_is_applied(host: StandaloneHost, tmp_path: Path) -> None:
    name = "down_blocks.1.attentions.0.transformer_blocks.0.norm1"
    norm = host.unet.get_submodule(name)
    change = torch.linspace(-1, 1, norm.weight.numel())
    key = "lora_unet_input_blocks_4_1_transformer_blocks_0_norm1"
    made = Made(
        {f"{key}.w_norm": change, f"{key}.b_norm": torch.zeros_like(change)}, {name: change}
    )
    assert error(host, made.write(tmp_path / "a.safetensors"), made) < 1e-3


def test_a_difference_of_a_bias_is_applied(host: StandaloneHost, tmp_path: Path) -> None:
    name = "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2.bias"
    change = torch.linspace(-1, 1, host.unet.get_parameter(name).numel())
    key = "lora_unet_input_blocks_4_1_transformer_blocks_0_ff_net_2"
    made = Made({f"{key}.diff_b": change}, {name: change})
    path = made.write(tmp_path / "a.safetensors")
    assert error(host, path, made) < 1e-3
    assert inspect(path).others == {"modules of the UNet beside attention": 1}


def test_the_names_of_lycoris_without_kohya_are_read(host: StandaloneHost, tmp_path: Path) -> None:
    of = pairs(linears(host.unet))
    tensors = {k.replace("lora_unet", "lycoris"): t for k, t in kohya(of, str).items()}
    made = Made(tensors, deltas(of, ALPHA / RANK))
    path = made.write(tmp_path / "a.safetensors")
    assert error(host, path, made) < 1e-3
    assert inspect(path).kind == "LyCORIS, diffusers names"


def broken(what: str, host: StandaloneHost) -> tuple[Made, str]:
    """A file that must be refused, and what the message has to say."""
    of = pairs(linears(host.unet))
    made = Made(kohya(of), {})
    first = next(key for key in made.tensors if key.endswith("lora_up.weight"))
    match what:
        case "NaN":
            made.tensors[first] = made.tensors[first] * torch.nan
            return made, "infinite or NaN"
        case "one layer of another width":
            made.tensors[first] = made.tensors[first][:-1]
            return made, "Only .* of .* layers of a.safetensors fit this model"
        case "SD 1.5":
            sd1 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
            pair = {
                f"{sd1}.lora_down.weight": torch.ones(4, 768),
                f"{sd1}.lora_up.weight": torch.ones(320, 4),
            }
            return Made(pair, {}), "Only 0 of 1 layers"
        case "FLUX":
            flux = "lora_unet_double_blocks_0_img_attn_qkv"
            pair = {
                f"{flux}.lora_down.weight": torch.ones(4, 64),
                f"{flux}.lora_up.weight": torch.ones(192, 4),
            }
            return Made(pair, {}), "It is for FLUX"
        case "T-LoRA":
            parts = ("q_layer.weight", "p_layer.weight", "lambda_layer")
            return Made({f"lora_unet_x.{p}": torch.ones(4, 4) for p in parts}, {}), "3 T-LoRA"
    vera = {"unet.x.vera_lambda_b": torch.ones(4), "unet.x.vera_lambda_d": torch.ones(4)}
    return Made(vera, {}), "2 VeRA tensors"


@pytest.mark.parametrize(
    "what", ["NaN", "one layer of another width", "SD 1.5", "FLUX", "VeRA", "T-LoRA"]
)
def test_what_does_not_fit_is_refused_by_name(
    what: str, host: StandaloneHost, tmp_path: Path
) -> None:
    made, said = broken(what, host)
    path = made.write(tmp_path / "a.safetensors")
    base = predict(host)
    with pytest.raises(InvalidInput, match=said), loaded(host, [(path, 1.0)]):
        pass
    assert torch.equal(predict(host), base)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_weight_that_is_none_is_refused(
    weight: float, host: StandaloneHost, tmp_path: Path
) -> None:
    path = Made(kohya(pairs(linears(host.unet))), {}).write(tmp_path / "a.safetensors")
    with (
        pytest.raises(InvalidInput, match="cannot have the weight"),
        loaded(host, [(path, weight)]),
    ):
        pass


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"prompt": "a cat <lora:x:1>"}, "--lora"),
        ({"guidance": float("nan")}, "guidance"),
        ({"seed": 10**20}, "seed"),
        ({"seed": -1}, "seed"),
    ],
)
def test_requests_that_mean_nothing_are_refused(
    asked: dict[str, Any], said: str, host: StandaloneHost
) -> None:
    with pytest.raises(InvalidInput, match=said):
        generate(host, **{"prompt": "a cat", "steps": 1, "size": (64, 64), **asked})


def test_a_merge_keeps_every_layer_that_either_has(host: StandaloneHost, tmp_path: Path) -> None:
    one = KINDS["LoCon"](host.unet)
    of = pairs(linears(host.unet), rank=7, seed=3)
    other = Made(kohya(of, alpha=3.0), deltas(of, 3 / 7))
    parts = [
        (one.write(tmp_path / "one.safetensors"), 0.5),
        (other.write(tmp_path / "other.safetensors"), -0.8),
    ]
    path = merge(tmp_path / "both.safetensors", parts).path
    wanted = {
        name: 0.5 * change - 0.8 * other.deltas.get(name, torch.zeros(()))
        for name, change in one.deltas.items()
    }
    assert error(host, path, Made({}, wanted)) < 2e-3  # fp16
    assert len(read_lora(path).adapters) == len(one.deltas)
    assert len(inspect(path).ranks) == 1  # diffusers reads ranks that differ at a wrong scale
    assert json.loads(path.with_suffix(".json").read_text())["sd version"] == "SDXL"


@pytest.mark.parametrize("kind", ["LoHa", "LoRA with DoRA", "OFT"])
def test_what_cannot_be_merged_is_refused_by_name(
    kind: str, host: StandaloneHost, tmp_path: Path
) -> None:
    path = KINDS[kind](host.unet).write(tmp_path / "a.safetensors")
    with pytest.raises(InvalidInput, match=f"{kind} modules"):
        merge(tmp_path / "both.safetensors", [(path, 1.0), (path, 1.0)])
