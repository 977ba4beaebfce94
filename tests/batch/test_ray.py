"""Ray's actors, in a network of their own so that nothing listens beyond this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batch.test_local import NAMES, command, hashes, manifest, steps_done, until
from tests.conftest import ROOT
from unziplora.batch.ray_driver import RayWorkers

__all__ = ["manifest"]  # the fixture

ISOLATED = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]


def isolated() -> bool:
    """Whether a process can have a network with loopback alone here."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run([*ISOLATED, "true"], capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="The package ray lacks."),
    pytest.mark.skipif(not isolated(), reason="No network of its own can be made here (unshare)."),
]


def ray_command(manifest: Path, out: Path) -> subprocess.Popen[str]:
    arguments = ["tests.batch.small_base", str(manifest), str(out), "ray:2"]
    return subprocess.Popen(
        [*ISOLATED, sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def actors() -> list[int]:
    """Processes of our actors (Ray names a process for what it runs)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::_Actor" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(
    "UNZIPLORA_LONG_TESTS" not in os.environ,
    reason="Starting Ray takes half a minute. Set UNZIPLORA_LONG_TESTS=1.",
)
def test_actors_that_are_killed_are_replaced_and_their_jobs_resumed(
    manifest: Path, tmp_path: Path
) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    command(manifest, calm, workers=1).communicate()
    process = ray_command(manifest, rough)
    until(lambda: steps_done(rough, "a") >= 3 and bool(actors()), process)
    before = set(actors())
    for actor in before:
        os.kill(actor, signal.SIGKILL)
    text = process.communicate()[0]
    assert before, text
    assert process.returncode == 1, text  # the bad image has no pair
    assert "bad: refused." in text
    assert hashes(rough) == hashes(calm)
    assert all(f"| {name} | completed |" in text for name in NAMES)


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from unziplora.batch.base import StandaloneBase
    from unziplora.errors import InvalidInput

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInput, match=r"pip install 'unziplora\[ray\]'"):
        RayWorkers(None, 1, StandaloneBase("mini"), tmp_path)
