"""One worker: finished jobs are left alone, unfinished ones continue, refused ones say why."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from unziplora import files
from unziplora.batch import driver, lease
from unziplora.batch.base import until
from unziplora.batch.driver import Batch
from unziplora.batch.lease import leased
from unziplora.batch.results import Result, table, write_contact_sheet
from unziplora.batch.samples import Sampler, Sampling
from unziplora.batch.worker import Worker
from unziplora.host import ModelIdentity
from unziplora.lora.write import tensor_hash
from unziplora.training import memory_forecast
from unziplora.training.manifest import BatchJob
from unziplora.training.run_folder import RunFolder, run_path
from unziplora.training.settings import Settings


def job(image: Path, name: str = "tree", **settings: Any) -> BatchJob:
    given = {"subject": "tree", "style": "flat drawing", "steps": 4, "rank": 2, "resolution": 64,
             "name": name, **settings}  # fmt: skip
    return BatchJob(1, name, image, given)


def worker(host: Any, out: Path) -> Worker:
    return Worker(lambda: host, out, "the only one")


def hashes(out: Path, name: str) -> list[str]:
    return [tensor_hash(out / f"{name}_{branch}.safetensors") for branch in ("content", "style")]


def test_a_job_is_trained_once(host: Any, image_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = worker(host, out).train(job(image_file))
    assert (first.state, first.steps) == ("completed", 4)
    written = [path.stat().st_mtime_ns for path in sorted(out.glob("*.safetensors"))]
    again = worker(host, out).train(job(image_file))
    assert (again.state, again.message) == ("completed", "It was finished before.")
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("*.safetensors"))] == written


def test_a_damaged_pair_is_trained_again(host: Any, image_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    worker(host, out).train(job(image_file))
    wanted = hashes(out, "tree")
    file = out / "tree_style.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    result = worker(host, out).train(job(image_file))
    assert result.state == "completed", result.message
    assert hashes(out, "tree") == wanted


def test_a_stopped_job_continues_to_the_same_pair(
    host: Any, documented: dict[str, Any], image_file: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    state = {name: tensor.clone() for name, tensor in host.unet.state_dict().items()}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    worker(host, whole).train(job(image_file, steps=6))
    first = worker(host, parts)
    first_host_steps = 0

    class Counting:
        """Stops the worker after two steps, as the driver's Ctrl-C does."""

        def __getattr__(self, name: str) -> Any:
            return getattr(host, name)

        def denoise(self, *arguments: Any) -> Any:
            nonlocal first_host_steps
            first_host_steps += 1
            if first_host_steps == 3:
                first.stop()
            return host.denoise(*arguments)

    first._open_host = Counting  # type: ignore[assignment]
    assert first.train(job(image_file, steps=6)).state == "stopped"
    assert RunFolder(run_path(parts, "tree")).has_state
    assert worker(host, parts).train(job(image_file, steps=6)).state == "completed"
    assert hashes(parts, "tree") == hashes(whole, "tree")
    assert all(torch.equal(state[n], t) for n, t in host.unet.state_dict().items())


def test_what_cannot_be_trained_is_refused_with_its_sentence(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image at all")
    result = worker(host, out).train(job(bad, "bad"))
    assert result.state == "refused"
    assert "bad.png" in result.message
    out.joinpath("taken_content.safetensors").write_bytes(b"somebody else's")
    result = worker(host, out).train(job(image_file, "taken"))
    assert result.state == "refused"
    assert (out / "taken_content.safetensors").read_bytes() == b"somebody else's"


def test_a_run_of_the_name_with_other_settings_is_not_taken_for_this_job(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    worker(host, out).train(job(image_file))
    result = worker(host, out).train(job(image_file, steps=5))
    assert result.state == "refused"
    assert "steps = 4, the manifest 5" in result.message


def test_a_list_that_was_changed_is_not_taken_for_what_was_trained(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    worker(host, out).train(job(image_file, lr=1e-3))
    for changed in (job(image_file), job(image_file, lr=1e-3, seed=1)):  # a column was removed
        result = worker(host, out).train(changed)
        assert result.state == "refused"
        assert "the manifest" in result.message
    host.model = ModelIdentity("other.safetensors")
    result = worker(host, out).train(job(image_file, lr=1e-3))
    assert (result.state, "not other.safetensors" in result.message) == ("refused", True)
    del host.model
    copy = image_file.with_name("copy.bmp")
    Image.open(image_file).save(copy)
    assert worker(host, out).train(job(copy, lr=1e-3)).state == "completed"  # the same pixels
    Image.new("RGB", (160, 120), "navy").save(image_file)
    result = worker(host, out).train(job(image_file, lr=1e-3))
    assert result.state == "refused"
    assert "another image than image.png is now" in result.message


def test_a_run_that_another_driver_has_is_left_alone(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    folder = run_path(out, "tree")
    folder.mkdir(parents=True)
    with leased(folder):
        assert worker(host, out).train(job(image_file)).state == "busy"
    assert worker(host, out).train(job(image_file)).state == "completed"


def test_a_worker_whose_run_was_taken_over_writes_no_more(
    host: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    folder = RunFolder(run_path(out, "tree"))

    class Suspended:
        """Is taken for dead by another worker at its third step."""

        steps = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(host, name)

        def denoise(self, *arguments: Any) -> Any:
            self.steps += 1
            if self.steps == 3:
                (folder.path / "lease.json").write_text('{"token": "theirs"}')
                time.sleep(1)
            return host.denoise(*arguments)

    result = Worker(Suspended, out, "w").train(job(image_file, steps=50))  # type: ignore[arg-type]
    assert result.state == "busy"
    assert "taken this run over" in result.message
    assert (folder.saved_step() or 0) < 3
    assert len(folder.read_progress()) < 50
    assert not list(out.glob("*.safetensors"))


class Small:
    """A host that has no memory for the first two steps."""

    def __init__(self, host: Any) -> None:
        self.host, self.refused = host, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)

    def denoise(self, *arguments: Any) -> Any:
        if self.refused < 2:
            self.refused += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return self.host.denoise(*arguments)


def test_full_memory_takes_the_next_plan(host: Any, image_file: Path, tmp_path: Path) -> None:
    result = worker(Small(host), tmp_path / "out").train(job(image_file, memory="full"))
    assert result.state == "completed"
    assert result.plan not in ("full", "selective")


def test_full_memory_takes_a_plan_below_the_one_that_auto_took(
    host: Any, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings("tree", "flat drawing", rank=2, resolution=64).resolve()
    needs = memory_forecast.forecast(host.unet, host.device, settings).needs
    monkeypatch.setattr(memory_forecast, "free_memory", lambda *_: needs["checkpoint"])
    result = worker(Small(host), tmp_path / "out").train(job(image_file))
    assert result.state == "completed"
    assert result.plan == "low"


class InProcess:
    """`Workers` without processes: each wait trains one job, or loses its worker."""

    def __init__(self, train: Any, deaths: int = 0) -> None:
        self.train, self.deaths, self.given = train, deaths, []  # type: ignore[var-annotated]

    def idle(self) -> list[int]:
        return [] if self.given else [0]

    def alive(self) -> int:
        return 1

    def submit(self, worker: int, job: BatchJob) -> None:
        self.given.append(job)

    def wait(self, seconds: float) -> list[tuple[BatchJob, Result | None]]:
        if not self.given:
            time.sleep(0.01)
            return []
        taken = self.given.pop()
        if self.deaths:
            self.deaths -= 1
            return [(taken, None)]
        return [(taken, self.train(taken))]

    def stop(self) -> None: ...

    def close(self) -> None: ...


def test_the_job_of_a_dead_worker_goes_back_and_a_killer_is_given_up(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    train = worker(host, out).train
    jobs = [job(image_file, name) for name in ("a", "b")]
    results = Batch(jobs, InProcess(train, deaths=2), out).run()
    assert [result.state for result in results.values()] == ["completed", "completed"]
    results = Batch([job(image_file, "c")], InProcess(train, deaths=3), out).run()
    assert results["c"].state == "failed"
    assert "died 3 times" in results["c"].message
    lines = (out / "batch.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 3


def test_a_job_that_another_driver_has_is_offered_again(
    tmp_path: Path, image_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def train(one: BatchJob) -> Result:
        tries.append(one.name)
        free = one.name != "theirs" or len(tries) > 3  # its driver was killed
        return Result(one.name, "completed" if free else "busy")

    monkeypatch.setattr(driver, "REST_SECONDS", 0.01)
    jobs = [job(image_file, name) for name in ("theirs", "ours")]
    results = Batch(jobs, InProcess(train), tmp_path).run()
    assert [result.state for result in results.values()] == ["completed", "completed"]
    assert tries[:2] == ["theirs", "ours"]
    monkeypatch.setattr(driver, "BUSY_SECONDS", 0.05)
    tries.clear()
    results = Batch(jobs[:1], InProcess(lambda one: Result(one.name, "busy")), tmp_path).run()
    assert results["theirs"].state == "busy"


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path: Path, image_file: Path) -> None:
    jobs = [job(image_file, name) for name in ("a", "b")]
    log = tmp_path / "missing" / "batch.jsonl"
    results = Batch(
        jobs, InProcess(lambda one: Result(one.name, "completed")), tmp_path, log=log
    ).run()
    assert [result.state for result in results.values()] == ["completed", "completed"]
    assert "could not be added to batch.jsonl" in results["a"].message


def test_failures_are_tried_again_and_refusals_are_not(tmp_path: Path, image_file: Path) -> None:
    tries: list[str] = []

    def train(one: BatchJob) -> Result:
        tries.append(one.name)
        return Result(one.name, "refused" if one.name == "bad" else "failed")

    jobs = [job(image_file, "bad"), job(image_file, "unlucky")]
    results = Batch(jobs, InProcess(train), tmp_path, retry=2).run()
    assert tries.count("bad") == 1
    assert tries.count("unlucky") == 3
    assert results["unlucky"].state == "failed"


def test_samples_are_drawn_once_and_kept(host: Any, image_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    worker(host, out).train(job(image_file))
    drawn: list[str] = []

    def draw(prompts: Any, loras: Any, seed: int) -> Any:
        drawn.extend(prompts)
        return [Image.new("RGB", (16, 16), (n, len(loras), seed)) for n, _ in enumerate(prompts)]

    sampler = Sampler(Sampling(samples=6), out)
    assert sampler.sample(draw, "tree", image_file) == {}
    assert len(drawn) == 18
    assert len(list((out / "samples" / "tree").rglob("*.png"))) == 19
    sampler.sample(draw, "tree", image_file)
    assert len(drawn) == 18
    Sampler(Sampling(samples=6, seed=1), out).sample(draw, "tree", image_file)
    assert len(drawn) == 36


def test_drawing_ends_after_the_image_at_hand(host: Any, image_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    drawn: list[str] = []

    def draw(prompts: Any, loras: Any, seed: int) -> Any:
        for prompt in prompts:
            drawn.append(prompt)
            yield Image.new("RGB", (16, 16))

    def sample(host: Any, job: BatchJob, stopping: Any) -> Mapping[str, float]:
        return Sampler(Sampling(samples=6), out).sample(
            until(lambda: len(drawn) > 2 or stopping(), draw), job.name, job.image
        )

    result = Worker(lambda: host, out, "w", sample).train(job(image_file))
    assert (result.state, len(drawn)) == ("stopped", 3)
    assert "Its pair is complete." in result.message
    assert not list(out.glob("samples/*"))


def test_a_name_that_is_no_utf_8_does_not_end_a_batch(image_file: Path, tmp_path: Path) -> None:
    message = "fox\udce9.png is slightly damaged.\x1b[2J"  # as Python reads such a name
    log = tmp_path / "batch.jsonl"
    jobs = [job(image_file, name) for name in ("one", "two")]
    workers = InProcess(lambda one: Result(one.name, "completed", message))
    results = Batch(jobs, workers, tmp_path, log=log).run()
    assert len(results) == 2
    assert [json.loads(line)["message"] for line in log.read_text("utf-8").splitlines()] == [
        message, message,
    ]  # fmt: skip
    files.write_text(tmp_path / "batch.md", table(list(results.values())))
    assert (tmp_path / "batch.md").read_text("utf-8").count(
        "fox?.png is slightly damaged.?[2J"
    ) == 2


def test_a_batch_ends_with_a_table_and_a_contact_sheet(
    host: Any, image_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = worker(host, out).train(job(image_file))
    scored: Mapping[str, float] = {"dino content.subject": 0.5}
    bad = Result("bad", "refused", "A | pipe.", scores=scored)
    better = Result("b", "completed", scores={"dino content.subject": 0.7})
    rows = table([result, bad, better]).splitlines()
    assert len({len(row) for row in rows}) == 1  # aligned
    cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]
    assert cells[0][-2:] == ["dino content.subject", "message"]
    assert "A \\| pipe." in rows[3]
    assert [cell for cell in cells[-1] if cell] == ["mean of 2", "0.600 ± 0.100"]
    assert "mean" not in table([result])
    image_file.unlink()  # the run has its own copy
    assert write_contact_sheet(out / "batch.png", out, [result])
    assert Image.open(out / "batch.png").width > 150
    assert not write_contact_sheet(out / "none.png", out, [bad])


@pytest.mark.parametrize("kind", ["local:0", "local:x", "cloud", "ray-ish:3"])
def test_unknown_workers_are_one_sentence(kind: str, image_file: Path, capsys: Any) -> None:
    from unziplora.cli import main

    manifest = image_file.with_name("jobs.csv")
    manifest.write_text(f"image,subject,style\n{image_file.name},tree,ink\n")
    code = main(["batch", str(manifest), "--workers", kind, "--out", str(manifest.parent / "o")])
    assert code == 2
    assert "workers" in capsys.readouterr().err
