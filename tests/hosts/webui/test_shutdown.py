"""A WebUI that ends lets a run save its state first: real signals to a real process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# A WebUI's own handler ends the process at once, as modules/initialize_util.py:163 does.
PROGRAM = """
import os, signal, sys, time, types
sys.modules["modules"] = types.ModuleType("modules")
sys.modules["modules.restart"] = restart = types.ModuleType("modules.restart")
restart.stop_program = lambda: os._exit(5)

class Job:
    id, name, step, state = "1", "closed", 7, "running"

class Waiting(Job):
    id, state = "2", "waiting"

class Jobs:
    current = Job
    def all(self):
        return [Job, Waiting]
    def send(self, job, command):
        print("sent", job, command, flush=True)
        if command == "pause" and sys.argv[2] == "saves":
            Job.state = "paused"

def own(number, frame):
    print("own handler", flush=True)
    os._exit(3)

if sys.argv[1] == "handled":
    signal.signal(signal.SIGINT, own)
from unziplora.hosts.webui.shutdown import SaveAtExit
at_exit = SaveAtExit(lambda: Jobs() if sys.argv[2] != "idle" else None, seconds=0.2)
at_exit.install()
at_exit.install()
print("ready", flush=True)
if sys.argv[1] == "stopped":
    restart.stop_program()
if sys.argv[1] != "ended":
    while True:
        time.sleep(0.1)
"""


def end(how: str, jobs: str, number: signal.Signals | None = None) -> tuple[int, list[str]]:
    """Exit code and lines of the program, ended this way."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how, jobs], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    if number is not None:
        program.send_signal(number)
    lines = program.stdout.read().splitlines()
    return program.wait(), lines


SAVED = ["sent 2 cancel", "sent 1 pause", "UnZipLoRA: saved at step 7."]


def test_ctrl_c_saves_and_then_the_webuis_own_handler_ends_it() -> None:
    code, lines = end("handled", "saves", signal.SIGINT)
    assert lines[1:] == [*SAVED, "own handler"]
    assert "saving the run closed" in lines[0]
    assert code == 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_save_and_then_end_it_as_they_always_did(name: str) -> None:
    number = signal.Signals[name]
    code, lines = end("handled", "saves", number)
    assert lines[1:] == SAVED
    assert code == -number


@pytest.mark.parametrize(("how", "expected"), [("stopped", 5), ("ended", 0)])
def test_its_own_ways_to_end_save_too(how: str, expected: int) -> None:
    code, lines = end(how, "saves")
    assert lines[1:] == SAVED
    assert code == expected


def test_a_run_that_does_not_stop_in_time_does_not_keep_it_from_ending() -> None:
    code, lines = end("handled", "hangs", signal.SIGINT)
    assert lines[-2:] == ["UnZipLoRA: not saved in time, at step 7.", "own handler"]
    assert code == 3


def test_without_a_run_nothing_is_said() -> None:
    code, lines = end("handled", "idle", signal.SIGINT)
    assert lines == ["own handler"]
    assert code == 3
