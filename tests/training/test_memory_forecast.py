"""What a run will need is foretold, and the plan chosen by it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.simulate_memory import Live, simulate
from tests.torch_versions import counts_storages
from unziplora import mini
from unziplora.cli.commands import main
from unziplora.errors import InvalidInput
from unziplora.hosts.standalone.host import unloaded
from unziplora.testing.random_checkpoint import FULL, Widths, meta_models, write_random_model
from unziplora.training import memory_forecast as memory
from unziplora.training.memory_forecast import SpillWatch, forecast, is_full, simulated, smaller
from unziplora.training.memory_plans import PLANS
from unziplora.training.settings import Settings

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SETTINGS = Settings("cat", "ink", rank=64, resolution=1024).resolve()
BARS = {"full": 12.2, "selective": 9.4, "checkpoint": 7.4, "low": 6.3, "lowest": 3.7}


@pytest.fixture(scope="module")
def sdxl() -> Any:
    return meta_models("sdxl", FULL, 1024)["unet"].to(torch.bfloat16)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how many GB are free, of 12."""
    monkeypatch.setattr(memory, "total_memory", lambda device: 12)
    return lambda gb: monkeypatch.setattr(memory, "free_memory", lambda device, unet: gb)


@pytest.mark.parametrize("plan", list(PLANS))
def test_the_table_of_sdxl_is_within_what_each_plan_promises(plan: str) -> None:
    peak = simulated("sdxl", 1024, 64, plan)
    assert peak is not None
    assert peak <= BARS[plan]


@counts_storages
def test_the_table_is_what_the_code_does_now() -> None:
    for plan in ("checkpoint", "low"):
        found = simulate("koala-700m", 512, 16, plan).peak / 1e9
        assert found == pytest.approx(simulated("koala-700m", 512, 16, plan), rel=0.01)


def test_between_its_rows_the_table_is_linear_in_rank_and_pixels() -> None:
    def peak(resolution: int, rank: int) -> float:
        found = simulated("sdxl", resolution, rank, "checkpoint")
        assert found is not None
        return found

    assert peak(1024, 48) == pytest.approx((peak(1024, 32) + peak(1024, 64)) / 2)
    assert peak(1024, 128) == pytest.approx(3 * peak(1024, 64) - 2 * peak(1024, 32))
    assert peak(768, 32) < peak(800, 32) < peak(1024, 32)
    assert simulated("unheard-of", 1024, 64, "full") is None


@pytest.mark.parametrize(
    ("gb", "plan"),
    [(40, "full"), (10.4, "selective"), (8.0, "checkpoint"), (7.2, "low"), (5.5, "lowest")],
)
def test_auto_takes_the_fastest_plan_that_fits(sdxl: Any, free: Any, gb: float, plan: str) -> None:
    free(gb)
    found = forecast(sdxl, CUDA, SETTINGS)
    assert found.plan.name == plan
    assert found.fits
    assert found.text == f"VRAM: about {found.need:.1f} GB of {gb:.1f} GB free (plan: {plan})"
    assert found.needs[plan] > (simulated("sdxl", 1024, 64, plan) or 0)


def test_checkpoint_keeps_as_many_blocks_as_fit(sdxl: Any, free: Any) -> None:
    free(40)
    needs = forecast(sdxl, CUDA, SETTINGS).needs
    least, most = needs["checkpoint"], needs["selective"]
    kept = []
    for share in (0.01, 0.5, 0.99):
        gb = least + share * (most - least)
        free(gb)
        found = forecast(sdxl, CUDA, SETTINGS)
        assert found.plan.name == "checkpoint"
        assert least <= found.need <= gb
        assert found.need == pytest.approx(gb, abs=0.05)
        kept.append(found.plan.kept_blocks)
    assert kept[0] == 0 < kept[1] < kept[2] < 70, "SDXL has 70 blocks"
    stepped = smaller(found.plan, sdxl, CUDA)
    assert stepped is PLANS["checkpoint"]
    assert forecast(sdxl, CUDA, replace(SETTINGS, memory="checkpoint")).plan.kept_blocks == 0


def test_the_choice_is_told_in_words(sdxl: Any, free: Any, monkeypatch: Any) -> None:
    def choice(gb: float) -> str:
        free(gb)
        return forecast(sdxl, CUDA, SETTINGS).choice

    def percent(text: str) -> int:
        found = re.fullmatch(r"Fits your 12 GB: about (\d+) % slower than the fastest plan", text)
        assert found, text
        return int(found[1])

    assert choice(40) == "Fits your 12 GB: the fastest plan"
    slower = [percent(choice(gb)) for gb in (10.4, 9.6, 8.0, 7.2, 5.5)]
    assert slower == sorted(slower)
    assert slower[0] < slower[1] < slower[2], "blocks that are kept save time"
    assert choice(2.0).startswith("May not fit your 12 GB: about ")
    monkeypatch.setattr(memory, "total_memory", lambda device: None)
    assert choice(40) == "The fastest plan"


def test_every_plan_is_slower_than_the_one_before_and_needs_less(sdxl: Any, free: Any) -> None:
    free(40)
    needs = list(forecast(sdxl, CUDA, SETTINGS).needs.values())
    assert needs == sorted(needs, reverse=True)
    slowdowns = [plan.slowdown for plan in PLANS.values()]
    assert slowdowns == sorted(slowdowns)


def test_where_nothing_fits_the_smallest_is_tried_and_said_to_be_doubtful(
    sdxl: Any, free: Any
) -> None:
    free(2.0)
    found = forecast(sdxl, CUDA, SETTINGS)
    assert found.plan.name == "lowest"
    assert found.text.endswith("(plan: lowest, may not fit)")
    assert forecast(sdxl, CPU, SETTINGS).plan.name == "low"  # fp8 saves nothing there


def test_where_free_memory_cannot_be_asked_a_large_model_is_checkpointed(
    sdxl: Any, free: Any, host: Any
) -> None:
    free(None)
    assert forecast(sdxl, torch.device("mps"), SETTINGS).plan.name == "checkpoint"
    assert forecast(host.unet, CPU, replace(SETTINGS, rank=2)).plan.name == "full"


def test_the_miniature_is_called_what_it_says_it_is(free: Any) -> None:
    free(None)
    unet, _, defaults, _ = unloaded(mini.MODEL)
    assert forecast(unet, CPU, SETTINGS, defaults.architecture).architecture == "mini"
    assert forecast(unet, CPU, SETTINGS).architecture == "sdxl-like"


def test_a_named_plan_is_taken_or_refused(sdxl: Any, free: Any) -> None:
    free(1.0)
    assert forecast(sdxl, CUDA, replace(SETTINGS, memory="full")).plan.name == "full"
    with pytest.raises(InvalidInput, match="fp8"):
        forecast(sdxl, torch.device("mps"), replace(SETTINGS, memory="lowest"))


def test_the_base_counts_in_its_own_precision(sdxl: Any, free: Any) -> None:
    free(99.0)
    half = forecast(sdxl, CPU, SETTINGS).needs
    single = forecast(sdxl.to(torch.float32), CPU, SETTINGS).needs
    sdxl.to(torch.bfloat16)
    more = single["checkpoint"] - half["checkpoint"]
    assert more > 1.05 * 2 * 2.567  # another two bytes a weight, and activations


def test_what_a_run_moves_away_first_is_free_for_it(sdxl: Any, free: Any) -> None:
    free(6.0)
    assert forecast(sdxl, CUDA, SETTINGS).plan.name == "lowest"
    found = forecast(sdxl, CUDA, SETTINGS, freed=1_800_000_000)  # SDXL's text encoders and VAE
    assert (found.plan.name, found.free) == ("low", pytest.approx(7.8))


def test_free_memory_counts_the_models_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 2929687 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    model = torch.nn.Linear(1000, 1000, bias=False)
    assert memory.free_memory(CPU, model) == pytest.approx(3.004, abs=1e-5)


def test_each_plan_has_a_smaller_one_until_the_last(sdxl: Any) -> None:
    on_gpu = smaller(PLANS["low"], sdxl, CUDA)
    assert on_gpu is PLANS["lowest"]
    assert smaller(PLANS["lowest"], sdxl, CUDA) is None
    assert smaller(PLANS["low"], sdxl, CPU) is None


@counts_storages
def test_live_counts_what_is_alive() -> None:
    with Live() as live:
        a = torch.zeros(1000, device="meta")
        b = a * 2
        view = b[10:]
        assert live.bytes == 8000
        del a
        assert live.bytes == 4000
        del b
        assert live.bytes == 4000  # the view holds the storage
        del view
    assert live.bytes == 0
    assert live.peak == 8000


def test_a_slow_step_on_a_full_gpu_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    full = {"free": 100}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (full["free"], 10_000))
    watch = SpillWatch(CUDA)
    assert watch.message(2.0, 1.0) is None
    full["free"] = 5000
    assert watch.message(9.0, 1.0) is None
    full["free"] = 100
    said = watch.message(9.0, 1.0)
    assert said is not None
    assert "9 s instead of 1" in said
    assert watch.message(9.0, 1.0) is None
    assert SpillWatch(CPU).message(9.0, 1.0) is None


def test_full_memory_is_known_whatever_the_device() -> None:
    assert is_full(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert is_full(RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"))
    assert is_full(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_full(RuntimeError("shapes do not match"))


def test_plan_prints_the_models_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "koala.safetensors"
    widths = Widths(unet=(32, 64, 64), text=(16, 16), layers=(1, 1))
    write_random_model(path, architecture="koala-700m", widths=widths, resolution=128)
    assert main(["plan", "--model", str(path), "--rank", "16", "--resolution", "512"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("koala-700m, 512 px, rank 16\n")
    assert all(name in text for name in PLANS)
    assert re.search(r"^V?RAM: about .* GB free \(plan: full\)$", text, re.MULTILINE)

    assert main(["plan", "--model", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["resolution"], report["rank"]) == (128, 8)
    assert report["plan"] in PLANS
    assert report["needs"].keys() == PLANS.keys()
    assert report["choice"] in text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_free_memory_is_at_most_what_it_has() -> None:
    free = memory.free_memory(torch.device("cuda"), torch.nn.Identity())
    assert free is not None
    assert 0 < free <= torch.cuda.mem_get_info()[1] / 1e9
