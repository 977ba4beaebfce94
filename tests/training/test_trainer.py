"""One step at a time: who trains, when columns open, exact resumption, early stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unziplora.errors import TrainingFailed
from unziplora.host import SizeIds
from unziplora.method.columns import stage_columns
from unziplora.method.methods import METHODS, table_for
from unziplora.training.inputs import TrainingInputs
from unziplora.training.memory_plans import PLANS, Plan
from unziplora.training.settings import Settings
from unziplora.training.trainer import Trainer
from unziplora.unet.attach import attach
from unziplora.unet.layer_names import group_of
from unziplora.unet.patches import frozen
from unziplora.unet.recompute import recomputed

SETTINGS = Settings(subject="cat", style="ink", steps=12, rank=2, lr=1e-3, resolution=64)


def make_trainer(
    host: Any,
    settings: Settings = SETTINGS,
    plan: Plan = PLANS["full"],
    mask: Tensor | None = None,
) -> Trainer:
    prompts = settings.prompts
    texts = [prompts.combined, prompts.content, prompts.style, *settings.leak_prompts.values()]
    context, pooled = host.encode_prompts(texts)
    image = torch.rand(1, 3, 64, 64, generator=torch.manual_seed(7)) * 2 - 1
    latents = host.encode_image(image, None)
    attachment = attach(
        host.unet,
        METHODS[settings.method],
        table_for("sdxl-like"),
        rank=settings.rank or 2,
        alpha=2,
        init=settings.init,
        generator=torch.Generator().manual_seed(settings.seed),
    )
    host.unet.requires_grad_(False)
    sizes = SizeIds((64, 64), (0, 0), (64, 64))
    inputs = TrainingInputs(latents, context, pooled, sizes, mask)
    return Trainer(host, settings.resolve(), attachment, inputs, plan)


def snapshot(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.tensors().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def learned(trainer: Trainer) -> dict[str, set[str]]:
    """The groups in which each branch's B has moved from zero."""
    moved: dict[str, set[str]] = {"content": set(), "style": set()}
    for layer, name, branch in trainer.attachment.branches():
        if branch.up.any():
            moved[name].add(group_of(layer))
    return moved


@pytest.mark.slow
@pytest.mark.parametrize("name", list(METHODS))
def test_each_method_trains_the_layers_and_columns_it_should(host: Any, name: str) -> None:
    trainer = make_trainer(host, replace(SETTINGS, method=name))
    for _ in range(12):
        trainer.advance()

    groups = {group_of(layer) for layer in trainer.attachment.pairs}
    moved = learned(trainer)
    if name == "b-lora":
        assert moved == {"content": {"output_blocks.0.1"}, "style": {"output_blocks.1.1"}}
    else:
        assert len(groups) == 11
        assert moved == {"content": groups, "style": groups}

    full = table_for("sdxl-like")
    for layer, branch_name, branch in trainer.attachment.branches():
        limited = name == "m2" or (name == "unziplora" and group_of(layer) not in full[branch_name])
        count = int(branch.mask.sum())
        assert count == (3 * stage_columns(len(branch.mask), 30) if limited else len(branch.mask))
        mergers_moved = bool((branch.merger != 1).any())
        assert mergers_moved == (METHODS[name].columns and count > 0)


def test_masks_grow_at_the_end_of_each_window_only(host: Any) -> None:
    trainer = make_trainer(host, replace(SETTINGS, window=2))
    shares = []
    for _ in range(12):
        trainer.advance()
        shares.append(trainer.open_columns()["content"])
    assert len(set(shares[1:5])) == 1  # steps 2 to 5
    assert shares[0] == 1  # the warm-up has all columns open
    assert shares[1] < shares[5] < shares[9]
    assert shares[9] == shares[11]


def test_closed_columns_stay_as_they_are_between_windows(host: Any) -> None:
    trainer = make_trainer(host)
    trainer.advance()
    trainer.advance()  # the window of the first stage ends here: t = 4, W = 2
    before = {
        (layer, name): branch.up.detach().clone()
        for layer, name, branch in trainer.attachment.branches()
    }
    trainer.advance()
    trainer.advance()
    moved = 0
    for layer, name, branch in trainer.attachment.branches():
        change = (branch.up.detach() != before[layer, name]).any(dim=1)
        assert not change[~branch.mask].any()
        moved += int(change.sum())
    assert moved > 0


def test_mergers_rest_in_windows_and_stay_between_zero_and_one(host: Any) -> None:
    trainer = make_trainer(host, replace(SETTINGS, merger_lr=0.7))
    for step in range(12):
        before = {n: p.detach().clone() for n, p in trainer.attachment.named_parameters()}
        trainer.advance()
        mergers = {
            name: parameter
            for name, parameter in trainer.attachment.named_parameters()
            if name.endswith(":merger")
        }
        if step % 4 < 2:
            assert all(torch.equal(before[name], merger) for name, merger in mergers.items())
        for merger in mergers.values():
            assert merger.min() >= 0
            assert merger.max() <= 1
    assert any((merger < 1).any() for merger in mergers.values())


def test_mergers_can_be_limited_to_overlapping_columns(host: Any) -> None:
    settings = replace(SETTINGS, merger_columns="overlap")
    trainer = make_trainer(host, settings)
    for _ in range(4):
        trainer.advance()
    for pair in trainer.attachment.pairs.values():
        both = torch.stack([branch.mask for branch in pair.branches.values()]).all(dim=0)
        for branch in pair.branches.values():
            assert (branch.merger[~both] == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "importance"),  # which only columns have
    [("unziplora", "magnitude"), ("unziplora", "signed"), ("dreambooth", "magnitude")],
)
def test_interrupted_at_every_step_it_ends_with_the_same_tensors(
    documented: dict[str, Any], method: str, importance: Any
) -> None:
    settings = replace(SETTINGS, importance=importance, method=method, flip=True)

    def fresh() -> Trainer:
        host = documented["MyHost"](documented["small_unet"]())
        return make_trainer(host, settings)

    whole = fresh()
    saved = [(snapshot(whole), whole.numbers())]
    for _ in range(12):
        whole.advance()
        saved.append((snapshot(whole), whole.numbers()))

    for step in range(12):
        trainer = fresh()
        trainer.restore(*saved[step])
        assert trainer.step == step
        trainer.advance()
        assert same(snapshot(trainer), saved[step + 1][0])
        assert trainer.numbers() == saved[step + 1][1]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_tensors_and_another_seed_others(
    documented: dict[str, Any],
) -> None:
    def end(seed: int) -> dict[str, Tensor]:
        host = documented["MyHost"](documented["small_unet"]())
        trainer = make_trainer(host, replace(SETTINGS, seed=seed))
        for _ in range(3):
            trainer.advance()
        return snapshot(trainer)

    assert same(end(1), end(1))
    assert not same(end(1), end(2))


@pytest.mark.slow
def test_what_the_backward_pass_makes_again_changes_no_bit(documented: dict[str, Any]) -> None:
    ends = []
    for what in (None, "cheap", "products", "blocks"):
        host = documented["MyHost"](documented["small_unet"]())
        trainer = make_trainer(host)
        with frozen(host.unet) if what is None else recomputed(host.unet, what):
            for _ in range(6):
                trainer.advance()
        ends.append(snapshot(trainer))
    assert all(same(ends[0], end) for end in ends[1:])


@pytest.mark.slow
def test_the_loss_falls(host: Any) -> None:
    trainer = make_trainer(host, replace(SETTINGS, method="m1", steps=30, lr=4e-2))

    def loss() -> float:
        """Over the same 32 draws of noise and timestep each time."""
        generator = trainer._generator.get_state()
        trainer._generator.manual_seed(99)
        with torch.no_grad():
            total = sum(forward(trainer) for _ in range(32))
        trainer._generator.set_state(generator)
        return total

    before = loss()
    for _ in range(30):
        trainer.advance()
    assert loss() < 0.97 * before


def forward(trainer: Trainer) -> float:
    side, noise, t = trainer._draw(0)
    latents = trainer.encoded.latents[side : side + 1]
    one_pass = trainer.method.passes[0]
    trainer.attachment.mode.use_pass(one_pass)
    prediction = trainer.host.denoise(
        trainer._objective.add_noise(latents, noise, t),
        t,
        trainer._contexts[one_pass.base],
        trainer._added[one_pass.base],
    )
    return float(trainer._objective.loss(prediction, latents, noise, t))


def test_a_learning_rate_that_is_far_too_high_stops_the_run(host: Any) -> None:
    trainer = make_trainer(host, replace(SETTINGS, lr=1e6))

    def train() -> None:
        for _ in range(12):
            trainer.advance()

    with pytest.raises(TrainingFailed, match=r"learning rate below 1e\+06"):
        train()


def test_an_exception_in_a_step_leaves_it_undone(host: Any) -> None:
    trainer = make_trainer(host)
    trainer.advance()
    before = snapshot(trainer)
    denoise = host.denoise

    def broken(*args: Any) -> Tensor:
        denoise(*args)
        raise RuntimeError("out of memory")

    host.denoise = broken
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.advance()
    assert trainer.consistent
    assert same(snapshot(trainer), before)
    host.denoise = denoise
    trainer.advance()
    assert trainer.step == 2


@pytest.mark.parametrize(("part", "updates"), [("up", 0), ("down", 1), ("merger", 1)])
def test_each_part_must_have_a_gradient_when_it_first_trains(
    host: Any, part: str, updates: int
) -> None:
    trainer = zeroed(host, part, updates, lambda name, of: name == "style")
    with pytest.raises(TrainingFailed, match=rf"style LoRA \({part}\)"):
        trainer.advance()


@pytest.mark.parametrize(("part", "updates"), [("up", 0), ("down", 1), ("merger", 1)])
def test_a_gradient_too_small_for_its_dtype_in_one_layer_ends_no_run(
    host: Any, part: str, updates: int
) -> None:
    layer = "output_blocks.0.1.transformer_blocks.0.attn1.to_k"
    zeroed(host, part, updates, lambda name, of: of == layer).advance()


def zeroed(host: Any, part: str, updates: int, chosen: Callable[[str, str], bool]) -> Trainer:
    """A trainer after so many updates; gradients of this part will be zero in the chosen ones."""
    trainer = make_trainer(
        host, replace(SETTINGS, window=1, init="random")
    )  # step 2 checks A and mergers
    for _ in range(updates):
        trainer.advance()
    branches = [b for layer, name, b in trainer.attachment.branches() if chosen(name, layer)]
    assert branches
    for branch in branches:
        getattr(branch, part).requires_grad_(True).register_hook(torch.zeros_like)
    return trainer


def test_a_layer_without_gradient_is_named(host: Any) -> None:
    dead = host.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    trainer = make_trainer(host)
    alive = dead.forward
    dead.forward = lambda x: alive(x).detach() * 0 + 1
    with pytest.raises(TrainingFailed, match=r"middle_block\.1\.transformer_blocks\.0\.attn1\.to_"):
        trainer.advance()
