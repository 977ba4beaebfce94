"""The whole of `unziplora batch` on the miniature: six images, a bad one, two workers; workers and
drivers that are killed, and a machine that is lost, change nothing in the pairs."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.batch.processes import (
    beyond_loopback,
    can_be_isolated,
    listening,
    started,
    steps_done,
    until,
    workers,
)

pytestmark = [
    pytest.mark.skipif(
        "UNZIPLORA_LONG_TESTS" not in os.environ,
        reason="Each takes minutes. Set UNZIPLORA_LONG_TESTS=1.",
    ),
    pytest.mark.skipif(not can_be_isolated(), reason="No network of its own can be made here."),
]

NAMES = tuple("abcdef")
STEPS = 12
HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn images, and one that is none."""
    folder = tmp_path_factory.mktemp("images")
    rows = ["image,subject,style,name,steps,rank,resolution,save_minutes"]
    for number, name in enumerate(NAMES):
        image = Image.new("RGB", (128, 128), "ivory")
        ImageDraw.Draw(image).ellipse((20, 20, 40 + 10 * number, 100), fill="crimson")
        image.save(folder / f"{name}.png")
        rows.append(f"{name}.png,tree,flat drawing,{name},{STEPS},2,64,0.0001")
    (folder / "bad.png").write_bytes(b"no image")
    rows.insert(2, f"bad.png,tree,flat drawing,bad,{STEPS},2,64,")
    path = folder / "jobs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def single(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """The tensors of six single runs, without `unziplora batch`."""
    import unziplora
    from unziplora import mini
    from unziplora.hosts.standalone.host import StandaloneHost

    out = tmp_path_factory.mktemp("single")
    host = StandaloneHost.open(mini.MODEL)
    for name in NAMES:
        settings = {"steps": STEPS, "rank": 2, "resolution": 64, "name": name}
        run = unziplora.train(
            manifest.parent / f"{name}.png", subject="tree", style="flat drawing", host=host,
            settings=settings, out=out,
        )  # fmt: skip
        for _ in run:
            pass
    return pairs(out)


def pairs(out: Path) -> dict[str, list[bytes]]:
    """Of each image what its two files hold after their headers."""
    return {
        name: [_tensors(out / f"{name}_{branch}.safetensors") for branch in ("content", "style")]
        for name in NAMES
    }


def _tensors(path: Path) -> bytes:
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def finished(out: Path) -> int:
    return len(list(out.glob("*_style.safetensors")))


def in_progress(out: Path) -> int:
    """Steps of runs that have not ended and have a state to be resumed from."""
    saved = [n for n in NAMES if (out / ".unziplora" / n / "state.safetensors").is_file()]
    return sum(steps_done(out, name) for name in saved)


@pytest.mark.parametrize(
    "kind",
    ["local:2", pytest.param("ray:2", marks=pytest.mark.skipif(not HAS_RAY, reason="no ray"))],
)
def test_killed_workers_and_a_killed_driver_give_the_pairs_of_single_runs(
    manifest: Path, single: dict[str, list[bytes]], tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    command = ("unziplora", "batch", str(manifest), "--model", "mini", "--out", str(out),
               "--workers", kind)  # fmt: skip
    first = started(*command, isolated=True)
    until(lambda: in_progress(out) >= 3, first)
    there = workers(first)
    assert len(there) == 2, first.communicate()[0]
    addresses = listening(first)
    os.kill(there[0], signal.SIGKILL)
    until(lambda: finished(out) >= 1 and in_progress(out) >= 3, first)
    os.kill(there[1], signal.SIGKILL)
    until(lambda: finished(out) >= 2 and in_progress(out) >= 3, first)
    assert first.poll() is None, first.communicate()[0]
    first.kill()
    first.wait()
    second = started(*command, isolated=True)
    text = second.communicate()[0]
    assert second.returncode == 1, text  # the bad image has no pair
    assert "bad: refused." in text
    assert pairs(out) == single
    assert not beyond_loopback(addresses)
    assert bool(addresses) == kind.startswith("ray")
    lines = (out / "batch.jsonl").read_text("utf-8").splitlines()
    ended = [json.loads(line) for line in lines]
    assert {r["name"] for r in ended if r["state"] == "completed"} == set(NAMES)
    assert not list(out.rglob("lease.json"))


@pytest.mark.skipif(not HAS_RAY, reason="The package ray is not installed.")
def test_the_job_of_a_lost_machine_is_resumed_on_another(
    manifest: Path, single: dict[str, list[bytes]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    process = started("tests.batch.losing_node", str(manifest), str(out), isolated=True)
    text = process.communicate()[0]
    assert process.returncode == 1, text
    assert "a node was removed" in text
    assert pairs(out) == single
