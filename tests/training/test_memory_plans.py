"""Memory plans: the same training in less memory, resumed exactly, and the model untouched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import unziplora
from tests.torch_versions import half_on_cpu
from tests.training.test_trainer import SETTINGS, forward, make_trainer, same, snapshot
from tests.unet.test_weight_cast import near_fp8
from unziplora.errors import TrainingFailed
from unziplora.method.methods import METHODS
from unziplora.training import memory_plans
from unziplora.training.events import Message, Started, StepDone
from unziplora.training.memory_plans import PLANS, Plan
from unziplora.training.trainer import Trainer

SMALL = ["low", "lowest"]
IN_FP32 = [
    replace(PLANS["full"], name="cheap"),
    replace(PLANS["selective"], eight_bit=False),
    replace(PLANS["checkpoint"], eight_bit=False),
    replace(PLANS["checkpoint"], eight_bit=False, kept_blocks=2),
]
IN_EIGHT_BITS = [
    PLANS["selective"],
    PLANS["checkpoint"],
    replace(PLANS["checkpoint"], kept_blocks=2),
]


def under(
    plan: str | Plan,
    documented: dict[str, Any],
    settings: Any = SETTINGS,
    mask: Tensor | None = None,
) -> Trainer:
    """A trainer of this plan on a fresh host of the same weights."""
    host = documented["MyHost"](documented["small_unet"]())
    return make_trainer(host, settings, plan if isinstance(plan, Plan) else PLANS[plan], mask)


def losses(trainer: Trainer, steps: int) -> list[float]:
    with trainer.plan.on(trainer.host.unet, trainer.attachment):
        return [trainer.advance().diffusion for _ in range(steps)]


@pytest.fixture
def no_unet_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that `full` makes cheap things again here too."""
    monkeypatch.setattr(memory_plans, "SMALL_UNET", 0)


@pytest.mark.slow
@pytest.mark.parametrize("plans", [IN_FP32, IN_EIGHT_BITS], ids=["fp32", "8 bits"])
def test_losses_of_plans_with_the_same_moments_are_equal_to_the_bit(
    documented: dict[str, Any], no_unet_is_small: None, plans: list[Plan]
) -> None:
    first, *others = [losses(under(plan, documented), 5) for plan in plans]
    assert len(set(first)) == 5
    assert all(found == first for found in others)


def test_a_small_unet_keeps_all_that_is_cheap_to_make_again(
    documented: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = under("full", documented)
    unet, attachment = trainer.host.unet, trainer.attachment
    before = [module for module in unet.modules() if "forward" in module.__dict__]
    with trainer.plan.on(unet, attachment):
        assert before == [module for module in unet.modules() if "forward" in module.__dict__]
    monkeypatch.setattr(memory_plans, "SMALL_UNET", 0)
    with trainer.plan.on(unet, attachment):
        assert before != [module for module in unet.modules() if "forward" in module.__dict__]


@pytest.mark.slow
@pytest.mark.parametrize("method", list(METHODS))
def test_a_plan_with_moments_in_8_bits_trains_all_that_full_does(
    documented: dict[str, Any], method: str
) -> None:
    settings = replace(SETTINGS, method=method)

    def moved(plan: str) -> set[str]:
        trainer = under(plan, documented, settings)
        before = {name: p.detach().clone() for name, p in trainer.attachment.named_parameters()}
        losses(trainer, 6)
        return {
            name
            for name, parameter in trainer.attachment.named_parameters()
            if not torch.equal(parameter, before[name])
        }

    assert moved("full") == moved("selective") != set()


def gain(trainer: Trainer, steps: int) -> float:
    """By what share the mean loss over the same draws of noise and timestep falls."""

    def loss() -> float:
        generator = trainer._generator.get_state()
        trainer._generator.manual_seed(99)
        with torch.no_grad(), trainer.plan.on(trainer.host.unet, trainer.attachment):
            mean = fmean(forward(trainer) for _ in range(16))
        trainer._generator.set_state(generator)
        return mean

    before = loss()
    losses(trainer, steps)
    return 1 - loss() / before


@pytest.mark.slow
def test_updates_in_8_bits_and_in_bf16_learn_what_full_does(documented: dict[str, Any]) -> None:
    settings = replace(SETTINGS, method="m1", steps=30, lr=4e-2)
    full = gain(under(PLANS["full"], documented, settings), 30)
    assert full > 0.04
    for dtype in (torch.float32, torch.bfloat16):
        small = Plan("small", in_backward=True, lora_dtype=dtype)
        found = gain(under(small, documented, settings), 30)
        assert found == pytest.approx(full, rel=0.15), dtype


def test_a_base_in_fp8_trains_as_the_same_model_with_rounded_weights(
    documented: dict[str, Any],
) -> None:
    stored = under(Plan("fp8", eight_bit=False, fp8_base=True), documented)
    full = under(PLANS["full"], documented)
    for module in full.host.unet.modules():
        weight = module._parameters.get("weight")
        if weight is not None and weight.ndim in (2, 4):
            weight.data = near_fp8(weight.detach())
    assert losses(stored, 4) == pytest.approx(losses(full, 4), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "method", "importance"),
    [
        ("selective", "unziplora", "magnitude"),
        ("checkpoint", "dreambooth", "signed"),
        ("low", "unziplora", "magnitude"),
        ("low", "dreambooth", "signed"),
        ("low", "b-lora", "magnitude"),
        ("lowest", "unziplora", "signed"),
        ("lowest", "m1", "magnitude"),
    ],
)
def test_a_small_plan_interrupted_ends_with_the_same_tensors(
    documented: dict[str, Any], plan: str, method: str, importance: Any
) -> None:
    settings = replace(SETTINGS, method=method, importance=importance, weight_decay=1e-2)
    whole = under(plan, documented, settings)
    saved = [(snapshot(whole), whole.numbers())]
    with whole.plan.on(whole.host.unet, whole.attachment):
        for _ in range(7):
            whole.advance()
            saved.append((snapshot(whole), whole.numbers()))
    for step in (1, 4, 6):
        trainer = under(plan, documented, settings)
        trainer.restore(*saved[step])
        losses(trainer, 1)
        assert same(snapshot(trainer), saved[step + 1][0])
        assert trainer.numbers() == saved[step + 1][1]


@pytest.mark.parametrize("plan", SMALL)
def test_gradients_are_never_there_together(documented: dict[str, Any], plan: str) -> None:
    trainer = under(plan, documented)
    parameters = [p for _, _, b in trainer.attachment.branches() for p in (b.down, b.up)]
    most = 0

    def look(_: Tensor) -> None:
        nonlocal most
        most = max(most, sum(p.grad is not None for p in parameters))

    for parameter in parameters:
        parameter.register_hook(look)
    losses(trainer, 3)
    assert 0 < most <= 2 * 2 * 8  # both branches of one transformer block
    assert all(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize("plan", SMALL)
def test_closed_columns_stay_as_they_are_in_a_small_plan(
    documented: dict[str, Any], plan: str
) -> None:
    trainer = under(plan, documented)
    losses(trainer, 2)
    before = [branch.up.detach().clone() for _, _, branch in trainer.attachment.branches()]
    losses(trainer, 2)
    moved = 0
    for (_, _, branch), earlier in zip(trainer.attachment.branches(), before, strict=True):
        change = (branch.up.detach() != earlier).any(dim=1)
        assert not change[~branch.mask].any()
        moved += int(change.sum())
    assert moved > 0


@pytest.mark.parametrize("plan", SMALL)
def test_infinite_gradients_end_a_small_plan_with_weights_that_are_finite(
    documented: dict[str, Any], plan: str
) -> None:
    trainer = under(plan, documented)
    losses(trainer, 1)
    _, _, branch = next(iter(trainer.attachment.branches()))
    branch.up.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(TrainingFailed, match="infinite or NaN"):
        losses(trainer, 1)
    assert not trainer.consistent
    assert trainer.all_finite()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("full", "selective"),
        ("selective", "full"),
        ("full", "low"),
        ("low", "full"),
        ("checkpoint", "lowest"),
        ("lowest", "checkpoint"),
    ],
)
def test_a_state_of_one_plan_goes_on_under_another(
    documented: dict[str, Any], earlier: str, later: str
) -> None:
    first = under(earlier, documented)
    losses(first, 5)
    second = under(later, documented)
    second.restore(snapshot(first), first.numbers())
    expected, found = losses(first, 2), losses(second, 2)
    assert found == pytest.approx(expected, rel=0.02)
    assert second.step == 7


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["selective", *SMALL])
def test_a_run_under_a_small_plan_resumes_from_its_state_on_disk(
    documented: dict[str, Any], image_file: Path, tmp_path: Path, plan: str
) -> None:
    settings = {"steps": 4, "rank": 2, "resolution": 64, "lr": 1e-3, "memory": plan}

    def host() -> Any:
        return documented["MyHost"](documented["small_unet"]())

    def begin(name: str) -> Any:
        told = {**settings, "name": name}
        return unziplora.train(
            image_file, subject="cat", style="ink", host=host(), settings=told, out=tmp_path
        )

    list(begin("whole"))
    run = begin("pair")
    for event in run:
        if isinstance(event, StepDone) and event.step == 2:
            run.send("stop")
    list(unziplora.resume(tmp_path / ".unziplora" / "pair", host=host()))
    for branch in ("content", "style"):
        pair, whole = (
            load_file(tmp_path / f"{name}_{branch}.safetensors") for name in ("pair", "whole")
        )
        assert same(pair, whole)


def in_dtype(documented: dict[str, Any], dtype: torch.dtype) -> Any:
    return documented["MyHost"](documented["small_unet"]().to(dtype))


@pytest.mark.parametrize("plan", SMALL)
def test_small_plans_differentiate_a_base_in_fp16_in_bf16(
    documented: dict[str, Any], plan: str
) -> None:
    fp16, bf16 = (
        make_trainer(in_dtype(documented, dtype), SETTINGS, PLANS[plan])
        for dtype in (torch.float16, torch.bfloat16)
    )
    unet = fp16.host.unet
    before = {name: (id(p), p.detach().clone()) for name, p in unet.named_parameters()}
    assert losses(fp16, 8) == pytest.approx(losses(bf16, 8), rel=0.02)
    assert all(torch.isfinite(p).all() for _, p in fp16.attachment.named_parameters())
    for name, parameter in unet.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])
    fp16.attachment.detach()
    assert not any("forward" in module.__dict__ for module in unet.modules())


@half_on_cpu
def test_an_image_made_meanwhile_is_computed_in_fp16_as_ever(documented: dict[str, Any]) -> None:
    trainer = make_trainer(in_dtype(documented, torch.float16), SETTINGS, PLANS["low"])
    losses(trainer, 2)
    trainer.attachment.mode.use_weights({"content": 1.0})
    latents, (_, _, t) = trainer.encoded.latents, trainer._draw(0)
    inputs = (latents, t, trainer._contexts["content"], trainer._added["content"])
    with torch.no_grad():
        expected = trainer.host.denoise(*inputs)
        with trainer.plan.on(trainer.host.unet, trainer.attachment):
            assert torch.equal(trainer.host.denoise(*inputs), expected)
    assert expected.dtype == torch.float16


def test_a_state_without_a_loss_scale_goes_on_under_a_plan_that_has_one(
    documented: dict[str, Any],
) -> None:
    small, large = (
        make_trainer(in_dtype(documented, torch.float16), SETTINGS, PLANS[plan])
        for plan in ("low", "checkpoint")
    )
    losses(small, 3)
    large.restore({k: t.clone() for k, t in small.tensors().items()}, small.numbers())
    assert large.step == 3


@pytest.mark.slow
def test_out_of_memory_steps_down_once_and_loses_no_step(
    documented: dict[str, Any], image_file: Path, tmp_path: Path
) -> None:
    def run(name: str, failures: int) -> list[Any]:
        host = documented["MyHost"](documented["small_unet"]())
        denoise, calls = host.denoise, []

        def failing(*inputs: Any) -> Tensor:
            calls.append(1)
            if 3 <= len(calls) < 3 + failures:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            result: Tensor = denoise(*inputs)
            return result

        host.denoise = failing
        settings = {"steps": 6, "name": name, "rank": 2, "resolution": 64, "lr": 1e-3}
        return list(
            unziplora.train(
                image_file, subject="cat", style="ink", host=host, settings=settings, out=tmp_path
            )
        )

    whole, stepped = run("whole", 0), run("stepped", 1)
    assert isinstance(stepped[0], Started)
    assert stepped[0].plan == "full"
    said = [event.text for event in stepped if isinstance(event, Message)]
    assert any("memory plan selective" in text for text in said)
    found, expected = (
        {e.step: e.loss for e in events if isinstance(e, StepDone)} for events in (stepped, whole)
    )
    assert list(found) == list(expected) == [1, 2, 3, 4, 5, 6]
    # the step that failed is made from the weights of before; then moments are in 8 bits
    assert [found[step] for step in (1, 2, 3)] == [expected[step] for step in (1, 2, 3)]
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=0.02)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run("twice", 2)
