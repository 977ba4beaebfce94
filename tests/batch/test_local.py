"""Two real processes: killed workers lose nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.batch.processes import steps_done
from tests.batch.small_base import SmallBase
from unziplora import mini
from unziplora.batch.driver import Batch
from unziplora.batch.local import LocalWorkers
from unziplora.batch.worker import Worker
from unziplora.checkpoints.identify import identify
from unziplora.cli import main
from unziplora.lora.write import tensor_hash
from unziplora.training.manifest import BatchJob, read_manifest

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


class Unreadable(BatchJob):
    """A job of another version of the program."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise ModuleNotFoundError("another version")


def test_a_job_that_a_worker_cannot_read_ends_the_worker_and_is_given_up(tmp_path: Path) -> None:
    job = Unreadable(1, "a", tmp_path / "a.png", {})
    workers = LocalWorkers(1, SmallBase(), tmp_path)
    try:
        results = Batch([job], workers, tmp_path).run()
    finally:
        workers.close()
    assert results["a"].state == "failed"
    assert "died 3 times" in results["a"].message


def test_a_worker_that_has_served_ends_by_itself(manifest: Path, tmp_path: Path) -> None:
    """Python warns of what a killed one leaves behind."""
    out = tmp_path / "out"
    out.mkdir()
    bad = [job for job in read_manifest(manifest, {}) if job.name == "bad"]
    workers = LocalWorkers(1, SmallBase(), out)
    process = workers._processes[0].process
    try:
        assert Batch(bad, workers, out).run()["bad"].state == "refused"
    finally:
        workers.close()
    assert process.exitcode == 0


@pytest.mark.slow
def test_scores_are_measured_with_the_models_own_guidance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra scores is not installed")
    pytest.importorskip("diffusers", reason="the extra standalone is not installed")
    (tmp_path / "bad.png").write_bytes(b"no image")
    manifest = tmp_path / "jobs.csv"
    manifest.write_text("image,subject,style\nbad.png,car,ink\n")
    arguments = [str(manifest), "--model", "mini", "--out", str(tmp_path / "out"), "--score"]
    assert main(["batch", *arguments]) == 1  # its image is refused, so that nothing is drawn
    own = identify(mini.MODEL).defaults.guidance
    assert f"guidance {own:g}," in capsys.readouterr().out
