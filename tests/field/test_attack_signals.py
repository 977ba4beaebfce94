"""A signal to the app, with a page open: the run's state is saved, and then the process ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.samples import LONG
from unziplora.training.run_folder import RunFolder

pytest.importorskip("gradio", reason="the app's page needs gradio")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"] if LONG else ["SIGTERM"])
def test_it_saves_the_state_and_ends(tmp_path: Path, image_file: Path, name: str) -> None:
    script = [sys.executable, "-m", "tests.field.serve_until_signal", str(tmp_path)]
    process = subprocess.Popen(script, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")  # gradio 5.50 prints one of its own before
        said = (re.search(r"127\.0\.0\.1:(\d+)", line) for line in lines)
        address = next((found for found in said if found is not None), None)
        assert address is not None
        run = RunFolder(tmp_path / "out" / ".unziplora" / "fox")
        while steps(run) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", int(address[1]))) as page:
            page.sendall(b"GET /gradio_api/heartbeat/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b"200 OK" in page.recv(100)
            process.send_signal(getattr(signal, name))
            code = process.wait()
    finally:
        process.kill()
        process.wait()
    ended_by = {"SIGTERM": -signal.SIGTERM, "SIGHUP": -signal.SIGHUP, "SIGINT": -signal.SIGINT}
    assert code == ended_by[name]
    assert run.saved_step() is not None
    assert run.saved_step() == steps(run)
    assert not list(run.path.glob(".*.tmp"))


def steps(run: RunFolder) -> int:
    """How many are noted in progress.csv."""
    try:
        return len(run.progress.read_text().splitlines()) - 1
    except OSError:
        return 0
