"""ZipLoRA: what is learned is nearer to both files than their sum, and the file is what was
learned."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.results import model_checksum
from tests.lora.layouts import KINDS, kohya, linears, pairs
from tests.sgm_unet import make_sgm_unet
from tests.torch_versions import half_on_cpu
from unziplora.errors import InvalidInput, TrainingFailed
from unziplora.host import SizeIds
from unziplora.lora.apply import applied, targets_in
from unziplora.lora.merge import merge
from unziplora.lora.mergers import Learned
from unziplora.lora.metadata import read_info
from unziplora.lora.read import read_lora
from unziplora.method.prompts import BRANCHES
from unziplora.unet.recompute import recomputed
from unziplora.ziplora.learn import DrawnForMerge, MergeMessage, MergeStep, ZipSettings
from unziplora.ziplora.merging import ZipMerge

pytestmark = pytest.mark.slow
QUICK = {"images": 1, "image_steps": 1}
WEIGHTS = (0.8, 1.1)
Files = Mapping[str, Path]


def write(path: Path, tensors: Mapping[str, torch.Tensor], trigger: str | None) -> Path:
    header = {} if trigger is None else {"modelspec.trigger_phrase": trigger}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, header)
    return path


@pytest.fixture
def files(host: Any, tmp_path: Path) -> Files:
    """Two LoRAs of one model, with other ranks."""
    triggers = {"content": "sks tree", "style": "ink style"}
    return {
        role: write(
            tmp_path / f"{role}.safetensors",
            kohya(pairs(linears(host.unet), rank=3 + seed, seed=seed), alpha=10.0),
            triggers[role],
        )
        for seed, role in enumerate(BRANCHES)
    }


def zip_of(files: Files, path: Path, **settings: Any) -> ZipMerge:
    parts = [(files[role], weight) for role, weight in zip(BRANCHES, WEIGHTS, strict=True)]
    return ZipMerge(path, parts, settings=ZipSettings(**{**QUICK, **settings}))


def zipped(host: Any, files: Files, path: Path, **settings: Any) -> Path:
    merging = zip_of(files, path, **settings)
    list(merging.on(host))
    assert merging.saved is not None
    return merging.saved.path


def record_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_lora(path).metadata["ss_network_args"])["zip"]
    return found


@torch.no_grad()
def distances(host: Any, path: Path, files: Files) -> float:
    """How far a merged file's predictions are from each part's alone, at noise that the merge has
    not seen."""
    modules = targets_in("unet", host.unet)

    def predictions(of: Path, weight: float, role: str) -> torch.Tensor:
        prompt = {"content": "a sks tree", "style": "an image in ink style"}[role]
        context, pooled = host.encode_prompts([prompt])
        added = host.added_conditioning(pooled, SizeIds((64, 64), (0, 0), (64, 64)))
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(77))
        with host.borrow(), applied(host.unet, modules, [(read_lora(of), weight)]):
            times = (100, 400, 700, 950)
            return torch.cat([host.denoise(x, torch.tensor([t]), context, added) for t in times])

    return sum(
        float(
            (predictions(path, 1.0, role) - predictions(files[role], weight, role)).square().mean()
        )
        for role, weight in zip(BRANCHES, WEIGHTS, strict=True)
    )


def test_what_is_learned_is_nearer_to_both_files_and_overlaps_less_than_their_sum(
    host: Any, files: Files, tmp_path: Path
) -> None:
    parts = [(files[role], weight) for role, weight in zip(BRANCHES, WEIGHTS, strict=True)]
    plain = merge(tmp_path / "plain.safetensors", parts).path
    learned = zipped(host, files, tmp_path / "zip.safetensors", steps=40)
    assert distances(host, learned, files) < 0.8 * distances(host, plain, files)
    record = record_of(learned)
    before, after = record["loss_of_sum"], record["loss"]
    assert after["content"] + after["style"] < before["content"] + before["style"]
    assert before["overlap"] == 1.0
    assert after["overlap"] < 0.9


def test_lambda_is_what_drives_the_overlap_down(host: Any, files: Files, tmp_path: Path) -> None:
    overlaps = {
        weight: record_of(zipped(host, files, tmp_path / f"{weight}.safetensors", steps=15,
                                 overlap=weight))["loss"]["overlap"]
        for weight in (0.0, 100.0)
    }  # fmt: skip
    assert overlaps[100.0] < overlaps[0.0] - 0.1


def test_a_file_with_mergers_changes_the_weights_by_the_formula(
    files: Files, tmp_path: Path
) -> None:
    loras = {role: read_lora(files[role]) for role in BRANCHES}
    generator = torch.Generator().manual_seed(1)
    mergers = {
        target: tuple(
            torch.rand(loras[role].adapters[target].down.shape[1], generator=generator)
            for role in BRANCHES
        )
        for target in loras["content"].adapters
    }
    del mergers[next(iter(mergers))]  # a layer that keeps the plain sum
    made = merge(
        tmp_path / "made.safetensors",
        [(files[role], weight) for role, weight in zip(BRANCHES, WEIGHTS, strict=True)],
        how="zip",
        learned=Learned(mergers, WEIGHTS, {}),
    )
    got = read_lora(made.path).adapters
    for target, adapter in got.items():
        weight = torch.zeros(adapter.up.shape[0], adapter.down.shape[1], dtype=torch.float64)
        m = [merger.double() for merger in mergers.get(target, (torch.ones(1), torch.ones(1)))]
        wanted = sum(
            w * loras[role].adapters[target].delta(weight) * m[number]
            for number, (role, w) in enumerate(zip(BRANCHES, WEIGHTS, strict=True))
        )
        assert (adapter.delta(weight) - wanted).norm() < 2e-3 * wanted.norm()  # written in fp16


def test_the_same_seed_gives_the_same_file_and_another_one_another(
    host: Any, files: Files, tmp_path: Path
) -> None:
    made = [
        read_info(
            zipped(host, files, tmp_path / f"{n}.safetensors", steps=2, seed=seed)
        ).tensor_hash
        for n, seed in enumerate((3, 3, 4))
    ]
    assert made[0] == made[1] != made[2]


def test_the_header_says_how_it_was_learned(host: Any, files: Files, tmp_path: Path) -> None:
    path = zipped(host, files, tmp_path / "made.safetensors", steps=2, seed=5, overlap=0.02)
    record = record_of(path)
    assert (record["steps"], record["seed"], record["overlap"], record["lr"]) == (2, 5, 0.02, 0.01)
    assert record["prompts"] == {"content": "a sks tree", "style": "an image in ink style"}
    assert record["model"] == "my-model"
    assert json.loads(read_lora(path).metadata["ss_network_args"])["how"] == "zip"
    assert "learned by ZipLoRA" in read_lora(path).metadata["ss_training_comment"]
    assert read_info(path).trigger == "sks tree, ink style"


def test_progress_is_told_and_the_model_is_as_it_was(
    host: Any, files: Files, tmp_path: Path
) -> None:
    before = model_checksum(host)
    events = list(zip_of(files, tmp_path / "made.safetensors", steps=3, images=2).on(host))
    drawn = [(e.number, e.count) for e in events if isinstance(e, DrawnForMerge)]
    assert drawn == [(1, 4), (2, 4), (3, 4), (4, 4)]
    steps = [e for e in events if isinstance(e, MergeStep)]
    assert [(e.step, e.steps) for e in steps] == [(1, 3), (2, 3), (3, 3)]
    assert all(e.time_left is not None and e.time_left >= 0 for e in steps)
    assert model_checksum(host) == before


def test_a_merge_that_is_stopped_writes_what_it_has_learned(
    host: Any, files: Files, tmp_path: Path
) -> None:
    before = model_checksum(host)
    merging = zip_of(files, tmp_path / "made.safetensors", steps=50)
    messages = []
    for event in merging.on(host):
        if isinstance(event, MergeStep) and event.step == 2:
            merging.send("stop")
        if isinstance(event, MergeMessage):
            messages.append(event.text)
    assert merging.stopped
    assert record_of(tmp_path / "made.safetensors")["steps"] == 2
    assert messages == ["Stopped: made.safetensors has the mergers of step 2 of 50."]
    assert model_checksum(host) == before


def test_a_merge_that_is_stopped_before_its_first_step_writes_nothing(
    host: Any, files: Files, tmp_path: Path
) -> None:
    merging = zip_of(files, tmp_path / "made.safetensors")
    merging.send("stop")
    assert not any(isinstance(event, MergeStep) for event in merging.on(host))
    assert merging.saved is None
    assert not list(tmp_path.glob("made*"))


def test_whoever_leaves_in_the_middle_gets_the_model_back_and_no_file(
    host: Any, files: Files, tmp_path: Path
) -> None:
    before = model_checksum(host)
    events = zip_of(files, tmp_path / "made.safetensors").on(host)
    next(event for event in events if isinstance(event, MergeStep))
    assert model_checksum(host) != before
    events.close()
    assert model_checksum(host) == before
    assert not list(tmp_path.glob("made*"))


def test_others_who_wait_for_the_model_have_it_between_two_steps(
    documented: dict[str, Any], make_host: Callable[[], Any], files: Files, tmp_path: Path
) -> None:
    seen = []

    class Shared(documented["MyHost"]):  # type: ignore[misc]
        waiting = 1

        @contextlib.contextmanager
        def borrow(self) -> Any:
            with contextlib.ExitStack() as self.loan:
                self.loan.enter_context(super().borrow())
                yield

        def wanted(self) -> bool:
            return self.waiting > 0

        def give_way(self, ended: Callable[[], bool]) -> bool:
            self.loan.close()
            self.waiting -= 1
            seen.append(any("forward" in module.__dict__ for module in self.unet.modules()))
            self.loan.enter_context(super().borrow())
            return True

    alone = zipped(make_host(), files, tmp_path / "alone.safetensors", steps=3)
    shared = Shared(documented["small_unet"]())
    made = zipped(shared, files, tmp_path / "shared.safetensors", steps=3)
    assert seen == [False]
    assert read_info(made).tensor_hash == read_info(alone).tensor_hash


def test_a_model_whose_blocks_are_recomputed_learns_the_same(
    make_host: Callable[[], Any], files: Files, tmp_path: Path
) -> None:
    plain = zipped(make_host(), files, tmp_path / "plain.safetensors", steps=3)
    host = make_host()
    with recomputed(host.unet, "blocks"):
        again = zipped(host, files, tmp_path / "again.safetensors", steps=3)
    assert read_info(again).tensor_hash == read_info(plain).tensor_hash


def test_automatic1111s_unet_learns_too(documented: dict[str, Any], tmp_path: Path) -> None:
    class SgmHost(documented["MyHost"]):  # type: ignore[misc]
        def __init__(self) -> None:
            self.unet = make_sgm_unet((32, 64, 64), depths=(1, 1, 1), context=32, vector=16)
            self.dtype = torch.float32
            self.alphas_cumprod = documented["MyHost"](documented["small_unet"]()).alphas_cumprod

        def added_conditioning(self, pooled: torch.Tensor, sizes: SizeIds) -> torch.Tensor:
            return pooled

        def denoise(
            self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor, added: Any
        ) -> torch.Tensor:
            made: torch.Tensor = self.unet(x, t, context=context, y=added)
            return made

    host = SgmHost()
    files = {
        role: write(
            tmp_path / f"{role}.safetensors",
            kohya(pairs(linears(host.unet), rank=3, seed=seed), str, alpha=6.0),
            "sks tree" if role == "content" else "ink style",
        )
        for seed, role in enumerate(BRANCHES)
    }
    before = model_checksum(host)
    record = record_of(zipped(host, files, tmp_path / "made.safetensors", steps=15))
    assert record["loss"]["overlap"] < 0.95
    assert record["loss"]["content"] + record["loss"]["style"] < (
        record["loss_of_sum"]["content"] + record["loss_of_sum"]["style"]
    )
    assert model_checksum(host) == before


def test_text_encoders_and_convolutions_are_added_up_as_they_are(
    host: Any, files: Files, tmp_path: Path
) -> None:
    convolutions = KINDS["LoCon"](host.unet).tensors
    encoder = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.randn(2, 8),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.randn(16, 2),
    }
    content = write(tmp_path / "more.safetensors", {**convolutions, **encoder}, "sks tree")
    parts = [(content, 1.0), (files["style"], 1.0)]
    merging = ZipMerge(tmp_path / "zip.safetensors", parts, settings=ZipSettings(2, **QUICK))
    messages = [event.text for event in merging.on(host) if isinstance(event, MergeMessage)]
    assert any("layers of the text encoders (1) are added up" in text for text in messages)
    plain = read_lora(merge(tmp_path / "plain.safetensors", parts).path).adapters
    learned = read_lora(tmp_path / "zip.safetensors").adapters
    assert learned.keys() == plain.keys()
    is_conv = {t: isinstance(m, nn.Conv2d) for t, m in targets_in("unet", host.unet).items()}
    apart = [target for target in plain if target.network == "te1" or is_conv[target]]
    assert len(apart) > 1
    for target in plain:
        assert torch.equal(learned[target].down, plain[target].down) == (target in apart), target


@half_on_cpu
def test_a_base_in_fp16_learns_too(host: Any, files: Files, tmp_path: Path) -> None:
    host.unet.half()
    host.dtype = torch.float16
    path = zipped(host, files, tmp_path / "made.safetensors", steps=12)
    record = record_of(path)
    assert record["loss"]["overlap"] < record["loss_of_sum"]["overlap"]
    assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_a_loss_that_is_no_number_ends_it_and_nothing_is_written(
    host: Any, files: Files, tmp_path: Path
) -> None:
    events = zip_of(files, tmp_path / "made.safetensors").on(host)
    next(event for event in events if isinstance(event, MergeStep))
    host.alphas_cumprod.fill_(float("nan"))
    with pytest.raises(TrainingFailed, match="loss of ZipLoRA became nan"):
        list(events)
    assert not list(tmp_path.glob("made*"))


def test_what_cannot_be_learned_is_refused(host: Any, files: Files, tmp_path: Path) -> None:
    out = tmp_path / "made.safetensors"
    silent = write(tmp_path / "silent.safetensors", load_file(files["content"]), None)
    with pytest.raises(InvalidInput, match=r"silent.safetensors does not say .* --content-prompt"):
        ZipMerge(out, [(silent, 1.0), (files["style"], 1.0)])
    named = ZipMerge(
        out, [(silent, 1.0), (files["style"], 1.0)], prompts={"content": "a tree"},
        settings=ZipSettings(1, **QUICK),
    )  # fmt: skip
    list(named.on(host))
    assert record_of(out)["prompts"]["content"] == "a tree"
    with pytest.raises(InvalidInput, match="exists already"):
        ZipMerge(out, [(files["content"], 1.0), (files["style"], 1.0)])
    with pytest.raises(InvalidInput, match="takes two files, not 1"):
        ZipMerge(tmp_path / "one.safetensors", [(files["content"], 1.0)])
    for settings in (
        {"steps": 0}, {"overlap": -1.0}, {"overlap": float("nan")}, {"seed": -1}, {"seed": 2**63},
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            ZipSettings(**settings)


def test_files_of_another_model_are_refused(host: Any, files: Files, tmp_path: Path) -> None:
    wide = {
        name: torch.cat([tensor, tensor], dim=1) if "down" in name else tensor
        for name, tensor in load_file(files["content"]).items()
    }
    other = write(tmp_path / "other.safetensors", wide, "sks tree")
    style = write(tmp_path / "wide-style.safetensors", wide, "ink style")
    merging = ZipMerge(tmp_path / "made.safetensors", [(other, 1.0), (style, 1.0)])
    with pytest.raises(InvalidInput, match="fit this model"):
        list(merging.on(host))
