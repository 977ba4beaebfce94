"""Two real processes: killed workers and a killed driver lose nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.batch.small_base import SmallBase
from tests.conftest import ROOT
from unziplora.batch.driver import Batch
from unziplora.batch.local import LocalWorkers
from unziplora.batch.manifest import read_manifest
from unziplora.batch.worker import Worker
from unziplora.lora.write import tensor_hash

pytestmark = pytest.mark.skipif(os.name == "nt", reason="It sends signals that Windows lacks.")

NAMES = ("a", "b")
STEPS = 10


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = ["image,subject,style,name,steps,rank,resolution,save_minutes"]
    for number, name in enumerate(NAMES):
        image = Image.new("RGB", (128, 128), "ivory")
        ImageDraw.Draw(image).ellipse((20, 20, 60 + 20 * number, 100), fill="crimson")
        image.save(tmp_path / f"{name}.png")
        rows.append(f"{name}.png,tree,flat drawing,{name},{STEPS},2,64,0.0001")
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows.append(f"bad.png,tree,flat drawing,bad,{STEPS},2,64,")
    path = tmp_path / "jobs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def command(manifest: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    arguments = ["tests.batch.small_base", str(manifest), str(out), str(workers)]
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def until(met: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits for as long as the process lives."""
    while not met() and process.poll() is None:
        time.sleep(0.05)


def steps_done(out: Path, name: str) -> int:
    file = out / ".unziplora" / name / "progress.csv"
    return max(0, file.read_text().count("\n") - 1) if file.is_file() else 0


def children(process: subprocess.Popen[str]) -> Iterator[int]:
    """Its workers, without multiprocessing's resource tracker."""
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                yield int(child)


def hashes(out: Path) -> dict[str, list[str]]:
    return {
        name: [tensor_hash(out / f"{name}_{branch}.safetensors") for branch in ("content", "style")]
        for name in NAMES
    }


def test_jobs_of_killed_workers_are_resumed_to_the_pairs_of_single_runs(
    manifest: Path, tmp_path: Path
) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    rough.mkdir()
    jobs = read_manifest(manifest, {})
    host = SmallBase().open(1)
    single = [Worker(lambda: host, calm, "the only one").train(job) for job in jobs]
    workers = LocalWorkers(2, SmallBase(), rough)
    killed: set[int] = set()

    def kill_once(line: str) -> None:
        if not killed and steps_done(rough, NAMES[0]) >= 3:
            killed.update(child.pid for child in multiprocessing.active_children() if child.pid)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    try:
        results = Batch(jobs, workers, rough, on_progress=kill_once).run()
    finally:
        workers.close()
    assert len(killed) == 2
    assert [r.state for r in results.values()] == [r.state for r in single]
    assert [r.state for r in single] == ["completed", "completed", "refused"]
    assert hashes(rough) == hashes(calm)
    assert not list(rough.rglob("lease.json"))


@pytest.mark.skipif(
    "UNZIPLORA_LONG_TESTS" not in os.environ,
    reason="It starts eleven processes, which takes minutes. Set UNZIPLORA_LONG_TESTS=1.",
)
def test_killed_workers_and_drivers_give_the_pairs_of_single_runs(
    manifest: Path, tmp_path: Path
) -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("It finds workers in /proc, which this system lacks.")
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    once = command(manifest, calm, workers=1)
    text = once.communicate()[0]
    assert once.returncode == 1, text  # the bad image has no pair
    assert "bad: refused." in text
    first = command(manifest, rough, workers=2)
    until(lambda: steps_done(rough, "a") >= 3, first)
    for worker in children(first):
        os.kill(worker, signal.SIGKILL)
    until(lambda: max(steps_done(rough, name) for name in NAMES) >= 7, first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    second = command(manifest, rough, workers=2)
    until(lambda: any(0 < steps_done(rough, name) < STEPS for name in NAMES), second)
    second.send_signal(signal.SIGTERM)
    text = second.communicate()[0]
    assert second.returncode in (143, 1), text  # 1: it had ended before
    last = command(manifest, rough, workers=2)
    text = last.communicate()[0]
    assert last.returncode == 1, text
    assert hashes(rough) == hashes(calm)
    results = [json.loads(line) for line in (rough / "batch.jsonl").read_text().splitlines()]
    assert {r["name"] for r in results if r["state"] == "completed"} == set(NAMES)
    assert not list(rough.rglob("lease.json"))
