"""`unziplora merge --how zip` as a user meets it: it learns on the model that is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.lora.layouts import kohya, linears, pairs
from tests.waiting import until
from unziplora.cli.commands import main
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.read import read_lora
from unziplora.testing.random_checkpoint import Widths, write_random_model

TINY = Widths(unet=(32, 64, 64), text=(16, 16), layers=(1, 1))


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """With a model and two files; the output's name and the steps are still to come."""
    folder = tmp_path_factory.mktemp("merge")
    model = write_random_model(
        folder / "vega.safetensors", architecture="vega", widths=TINY, resolution=64
    )
    unet = StandaloneHost.open(model, device="cpu").unet
    for seed, (role, trigger) in enumerate({"content": "sks cat", "style": "ink style"}.items()):
        tensors = kohya(pairs(linears(unet), rank=2, seed=seed))
        header = {"modelspec.trigger_phrase": trigger}
        save_file({k: t.contiguous() for k, t in tensors.items()},
                  folder / f"{role}.safetensors", header)  # fmt: skip
    files = [str(folder / "content.safetensors:0.9"), str(folder / "style.safetensors")]
    return ["merge", *files, "--how", "zip", "--model", str(model)]


def test_zip_learns_on_the_model_that_is_named(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "made.safetensors"
    more = ["--zip-steps", "2", "--seed", "7", "--zip-overlap", "0.5", "--style-prompt", "in ink"]
    assert main([*command, *more, "--out", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path} (")
    arguments = json.loads(read_lora(path).metadata["ss_network_args"])
    record = arguments["zip"]
    assert (record["steps"], record["seed"], record["overlap"]) == (2, 7, 0.5)
    assert record["prompts"] == {"content": "a sks cat", "style": "in ink"}
    assert record["model"] == "vega.safetensors"
    assert [part["weight"] for part in arguments["of"]] == [0.9, 1.0]


def test_ctrl_c_ends_it_with_what_it_has_learned(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "made.safetensors"
    arguments = [*command, "--zip-steps", "5000", "--out", str(path)]
    log = tmp_path / "log.txt"
    with log.open("w") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "unziplora", *arguments], stdout=subprocess.PIPE,
            stderr=errors, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        until(lambda: "overlap=" in log.read_text() or child.poll() is not None)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate()
    assert child.returncode == 130, log.read_text()
    assert str(path) in out
    learned = json.loads(read_lora(path).metadata["ss_network_args"])["zip"]
    assert 1 <= learned["steps"] < learned["planned_steps"] == 5000
    assert f"mergers of step {learned['steps']} of 5000" in log.read_text()
