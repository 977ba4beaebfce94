"""Inspiration Tree: two embeddings are learned through both text encoders, and other programs load
them."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.results import model_checksum
from tests.conftest import draw_image
from tests.inversion.conftest import QUICK
from unziplora import mini
from unziplora.checkpoints.checkpoint import open_checkpoint
from unziplora.cli.commands import main
from unziplora.errors import InvalidInput, TrainingFailed
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.images.load import fit, open_image
from unziplora.inversion.candidate import Candidate, timestep_weights
from unziplora.inversion.consistency import innermost, score
from unziplora.inversion.embedding_file import read_embedding
from unziplora.inversion.run import (
    EmbeddingsSaved,
    InversionRun,
    InversionStarted,
    InversionStep,
    SeedScored,
)
from unziplora.inversion.settings import BEGIN, WORDS, InversionSettings
from unziplora.lora.pair import find_pairs
from unziplora.method.prompts import BRANCHES
from unziplora.training.objective import Objective
from unziplora.training.settings import Settings


def candidate_of(
    host: StandaloneHost, encoders: Any, image: Path, side: int = 64, **more: Any
) -> Candidate:
    fitted = fit(open_image(image), side, "aspect")
    objective = Objective(host.alphas_cumprod, host.prediction_type)
    latents = host.encode_image(fitted.pixels, None).float()
    options = {"seed": 0, "lr": 0.05, **more}
    return Candidate(host, encoders, objective, latents, fitted.sizes, **options)


@torch.no_grad()
def fixed_loss(candidate: Candidate) -> float:
    generator = torch.Generator().manual_seed(99)
    return sum(float(candidate.loss(generator)) for _ in range(12)) / 12


def test_the_loss_falls_and_both_encoders_vectors_of_both_words_are_learned() -> None:
    """On the miniature, which knows what its words mean, and its own image."""
    host = StandaloneHost.open(mini.MODEL, device="cpu")
    with host.borrow(), host.learnable_encoders() as encoders:
        candidate = candidate_of(host, encoders, mini.IMAGE, host.defaults.resolution, lr=4e-3)
        begin, before = candidate.vectors, fixed_loss(candidate)
        for role in BRANCHES:
            for mine, own in zip(begin[role], encoders.vectors_of(BEGIN[role]), strict=True):
                assert torch.equal(mine, own)
        for _ in range(20):
            candidate.advance()
        assert fixed_loss(candidate) < 0.95 * before  # of noise that it was not trained on
        for role in BRANCHES:
            for now, then in zip(candidate.vectors[role], begin[role], strict=True):
                assert not torch.equal(now, then)


def test_a_vector_stands_where_its_word_does_and_nowhere_else(host: StandaloneHost) -> None:
    with host.borrow(), host.learnable_encoders() as encoders, torch.no_grad():
        cat = {"sks": encoders.vectors_of("cat")}
        swapped, plain = (
            encoders.encode("a sks on grass", cat),
            encoders.encode("a cat on grass", {}),
        )
        assert all(map(torch.equal, swapped, plain))
        assert all(map(torch.equal, encoders.encode("a dog", cat), encoders.encode("a dog", {})))
        with encoders.drawn_with(["a sks on grass"], cat):
            drawn = host.encode_prompts(["a sks on grass"])
        assert all(map(torch.equal, drawn, plain))
        assert not torch.equal(host.encode_prompts(["a sks on grass"])[0], plain[0])


def test_a_prompts_encoding_is_the_hosts_own(host: StandaloneHost) -> None:
    with host.borrow(), host.learnable_encoders() as encoders, torch.no_grad():
        assert all(map(torch.equal, encoders.encode("a cat", {}), host.encode_prompts(["a cat"])))


def test_seeds_are_tried_the_most_consistent_is_continued_and_the_model_is_as_it_was(
    host: StandaloneHost, run: Callable[..., InversionRun], tmp_path: Path
) -> None:
    before = model_checksum(host)
    events = list(run(seeds=3, seed=5).on(host))
    assert isinstance(events[0], InversionStarted)
    assert "GB" in events[0].memory
    scores = {e.seed: e.score for e in events if isinstance(e, SeedScored)}
    assert scores.keys() == {5, 6, 7}
    best = max(scores, key=scores.__getitem__)
    steps = [e for e in events if isinstance(e, InversionStep)]
    # one of five steps for each seed, and the other four for the best
    assert [e.seed for e in steps] == [5, 6, 7, *[best] * 4]
    assert [e.step for e in steps] == list(range(1, 8))
    assert {e.steps for e in steps} == {7}
    said = read_embedding(tmp_path / "tree_content.safetensors")[1]
    assert (said["seed"], said["steps"], said["method"]) == (best, 5, "inspiration-tree")
    assert {int(seed) for seed in said["scores"]} == {5, 6, 7}
    assert model_checksum(host) == before


def test_the_same_seed_gives_the_same_embeddings(
    host: StandaloneHost, image_file: Path, tmp_path: Path
) -> None:
    made = []
    for name in ("one", "two"):
        list(
            InversionRun(open_image(image_file), InversionSettings(name, **QUICK), tmp_path).on(
                host
            )
        )
        made.append([load_file(tmp_path / f"{name}_{role}.safetensors") for role in BRANCHES])
    for one, two in zip(*made, strict=True):
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())


def test_a_run_that_is_stopped_writes_what_it_has_learned(
    host: StandaloneHost, run: Callable[..., InversionRun], tmp_path: Path
) -> None:
    inversion = run(steps=1000, seeds=1)
    for event in inversion.on(host):
        if isinstance(event, InversionStep) and event.step == 3:
            inversion.send("stop")
    assert inversion.stopped
    for role in BRANCHES:
        assert read_embedding(tmp_path / f"tree_{role}.safetensors")[1]["steps"] == 3


def test_a_run_that_is_killed_leaves_what_it_saved_last(
    host: StandaloneHost, run: Callable[..., InversionRun], tmp_path: Path
) -> None:
    events = run(steps=50, seeds=2, save_every=12).on(host)
    saved = next(event for event in events if isinstance(event, EmbeddingsSaved))
    assert not saved.final
    events.close()  # as if it had failed here
    assert read_embedding(tmp_path / "tree_style.safetensors")[1]["steps"] == 12


def test_a_run_that_is_stopped_at_once_writes_nothing(
    host: StandaloneHost, run: Callable[..., InversionRun], tmp_path: Path
) -> None:
    inversion = run()
    inversion.send("stop")
    assert not any(isinstance(event, EmbeddingsSaved) for event in inversion.on(host))
    assert not list(tmp_path.glob("tree*"))


def test_a_loss_that_is_no_number_ends_it(host: StandaloneHost, image_file: Path) -> None:
    with host.borrow(), host.learnable_encoders() as encoders:
        candidate = candidate_of(host, encoders, image_file, lr=1e30)
        candidate.advance()  # after which the vectors are far too large
        with pytest.raises(TrainingFailed, match="Start again with a lower --lr"):
            candidate.advance()


def test_the_files_are_embeddings_and_no_pair_of_loras(
    host: StandaloneHost, run: Callable[..., InversionRun], tmp_path: Path
) -> None:
    list(run().on(host))
    path = tmp_path / "tree_content.safetensors"
    tensors = load_file(path)
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        "clip_l": (1, 16), "clip_g": (1, 24),
    }  # fmt: skip
    assert find_pairs(tmp_path) == []
    with pytest.raises(InvalidInput, match="is not an SDXL embedding"):
        read_embedding(draw_image(tmp_path / "image.safetensors.png"))


def test_diffusers_draws_with_the_files_what_was_learned(
    host: StandaloneHost, model: Path, run: Callable[..., InversionRun], tmp_path: Path
) -> None:
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTokenizer

    from unziplora.checkpoints.identify import identify
    from unziplora.checkpoints.tokenizer import OWN

    list(run().on(host))
    path = tmp_path / "tree_content.safetensors"
    vectors, _ = read_embedding(path)
    encoders = open_checkpoint(identify(model, None)).text_encoders(
        torch.device("cpu"), torch.float32
    )
    tokenizers = [
        CLIPTokenizer.from_pretrained(str(OWN), pad_token=pad) for pad in ("<|endoftext|>", "!")
    ]
    pipeline = StableDiffusionXLPipeline(
        vae=None, text_encoder=encoders[0], text_encoder_2=encoders[1], tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1], unet=host.unet, scheduler=None, add_watermarker=False,
    )  # fmt: skip
    for name, encoder, tokenizer in zip(("clip_l", "clip_g"), encoders, tokenizers, strict=True):
        pipeline.load_textual_inversion(
            load_file(path)[name], token="tree_content", text_encoder=encoder, tokenizer=tokenizer
        )
    with torch.no_grad():
        theirs, _, pooled, _ = pipeline.encode_prompt(
            "a tree_content on grass", device="cpu", do_classifier_free_guidance=False
        )
    with host.borrow(), host.learnable_encoders() as words, torch.no_grad():
        one = (vectors[0][0], vectors[1][0])
        ours, own_pooled = words.encode("a sks on grass", {WORDS["content"]: one})
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pooled, own_pooled, rtol=1e-4, atol=1e-4)


@pytest.fixture
def a1111(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its module of embeddings, with stand-ins for what else of the WebUI that imports."""
    folder = Path(os.environ.get("UNZIPLORA_A1111", "")) / "modules" / "textual_inversion"
    if not os.environ.get("UNZIPLORA_A1111") or not folder.is_dir():
        pytest.skip("UNZIPLORA_A1111 names no folder of Automatic1111")

    def stand_in(name: str, **members: Any) -> ModuleType:
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    shared = SimpleNamespace()
    devices = SimpleNamespace(device=torch.device("cpu"))
    hashes = SimpleNamespace(sha256=lambda *_: "0" * 64)
    others = ("sd_hijack", "sd_models", "images", "sd_samplers", "sd_hijack_checkpoint", "errors")
    modules = stand_in("modules", shared=shared, devices=devices, hashes=hashes)
    vars(modules).update({name: SimpleNamespace() for name in others})
    inner = "modules.textual_inversion"
    vars(modules)["textual_inversion"] = stand_in(inner)
    stand_in(f"{inner}.dataset")
    stand_in(f"{inner}.learn_schedule", LearnRateScheduler=None)
    stand_in(f"{inner}.saving_settings", save_settings_to_file=None)
    names = ("embedding_to_b64", "embedding_from_b64", "insert_image_data_embed",
             "extract_image_data_embed", "caption_image_overlay")  # fmt: skip
    stand_in(f"{inner}.image_embedding", **dict.fromkeys(names))
    spec = importlib.util.spec_from_file_location("a1111_ti", folder / "textual_inversion.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_automatic1111_reads_the_files_as_sdxl_embeddings(
    host: StandaloneHost, run: Callable[..., InversionRun], tmp_path: Path, a1111: Any
) -> None:
    list(run().on(host))
    path = tmp_path / "tree_style.safetensors"
    found = []
    database = a1111.EmbeddingDatabase()
    database.register_embedding = lambda embedding, model: found.append(embedding)
    a1111.shared.sd_model = None
    database.load_from_file(str(path), path.name)
    (embedding,) = found
    assert (embedding.name, embedding.vectors, embedding.shape) == ("tree_style", 1, 16 + 24)
    (first, second), _ = read_embedding(path)
    assert torch.equal(embedding.vec["clip_l"], first)
    assert torch.equal(embedding.vec["clip_g"], second)


def test_consistent_embeddings_that_differ_score_best() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(2, 64, generator=generator)

    def images(centre: torch.Tensor, spread: float) -> torch.Tensor:
        return centre + spread * torch.randn(6, 64, generator=generator)

    apart = score(images(centres[0], 0.1), images(centres[1], 0.1))
    alike = score(images(centres[0], 0.1), images(centres[0], 0.1))
    vague = score(images(centres[0], 5.0), images(centres[1], 5.0))
    assert apart > alike > vague
    same = torch.ones(3, 4) * torch.arange(4.0)
    assert score(same, same) == pytest.approx(2.0)  # 1 + 1 + 1 - 1


def test_what_the_unet_sees_is_a_vector_for_each_image(host: StandaloneHost) -> None:
    context, pooled = host.encode_prompts([""])
    from unziplora.host import SizeIds

    added = host.added_conditioning(pooled, SizeIds((64, 64), (0, 0), (64, 64)))
    with torch.no_grad(), innermost(host.unet) as found:
        host.denoise(torch.randn(1, 4, 8, 8), torch.tensor([200]), context, added)
    assert [tuple(one.shape) for one in found] == [(64,)]
    assert not host.unet.down_blocks[-1]._forward_hooks


def test_noisy_timesteps_are_drawn_more_often() -> None:
    weights = timestep_weights(1000)
    assert weights[0] == 0.5
    assert weights.argmax() == 999
    assert bool((weights.diff() > 0).all())


def test_the_command_line_trains_it_and_refuses_what_means_nothing(
    model: Path, image_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["train", str(image_file), "--method", "inspiration-tree", "--model", str(model)]
    command = [*base, "--subject", "tree", "--style", "ink", "--out", str(tmp_path)]
    for more, message in {
        ("--rank", "4"): "takes no --rank",
        ("--preview-every", "4"): "takes no --preview-every",
        ("--steps", "0"): "cannot have 0 steps",
        ("--lr", "-1"): "cannot have the learning rate -1",
    }.items():
        assert main([*command, *more]) == 2
        assert message in capsys.readouterr().err
    assert main([*base, "--out", str(tmp_path)]) == 2
    assert "train needs --subject" in capsys.readouterr().err
    (tmp_path / "tree-ink_style.safetensors").write_bytes(b"somebody's")
    assert main(command) == 2
    assert "tree-ink_style.safetensors exists already" in capsys.readouterr().err
    assert main([*command, "--steps", "1", "--name", "mine"]) == 0
    out = capsys.readouterr()
    for role in BRANCHES:
        path = tmp_path / f"mine_{role}.safetensors"
        assert str(path) in out.out
        assert read_embedding(path)[1]["steps"] == 1
    assert out.out.count("consistency") == 4


def test_programs_without_encoders_to_learn_through_refuse_it(
    documented: dict[str, Any], run: Callable[..., InversionRun]
) -> None:
    other = documented["MyHost"](documented["small_unet"]())
    with pytest.raises(InvalidInput, match="does not lend"):
        list(run().on(other))
    with pytest.raises(InvalidInput, match="on the command line"):
        Settings("tree", "ink", method="inspiration-tree")
