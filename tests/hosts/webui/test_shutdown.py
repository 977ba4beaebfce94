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

def save():
    print("saved", flush=True)
    if sys.argv[2] == "fails":
        raise OSError("the disk is full")
    if sys.argv[2] == "hangs":
        time.sleep(600)

def own(number, frame):
    print("own handler", flush=True)
    os._exit(3)

if sys.argv[1] == "handled":
    signal.signal(signal.SIGINT, own)
from unziplora.hosts.webui.shutdown import SaveAtExit
at_exit = SaveAtExit(save)
at_exit.install()
at_exit.install()
print("ready", flush=True)
if sys.argv[1] == "stopped":
    restart.stop_program()
if sys.argv[1] != "ended":
    while True:
        time.sleep(0.1)
"""


def end(how: str, save: str, *numbers: signal.Signals) -> tuple[int, list[str]]:
    """Exit code and lines of the program, ended this way; a second signal comes while it saves."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how, save], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    lines = []
    for number in numbers:
        program.send_signal(number)
        lines.append(program.stdout.readline().strip())
    lines += program.stdout.read().splitlines()
    return program.wait(), lines


def test_ctrl_c_saves_and_then_the_webuis_own_handler_ends_it() -> None:
    assert end("handled", "works", signal.SIGINT) == (3, ["saved", "own handler"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_save_and_then_end_it_as_they_always_did(name: str) -> None:
    number = signal.Signals[name]
    assert end("handled", "works", number) == (-number, ["saved"])


@pytest.mark.parametrize(("how", "code"), [("stopped", 5), ("ended", 0)])
def test_its_own_ways_to_end_save_too(how: str, code: int) -> None:
    assert end(how, "works") == (code, ["saved"])


def test_a_save_that_fails_does_not_keep_it_from_ending() -> None:
    assert end("handled", "fails", signal.SIGINT) == (3, ["saved", "own handler"])


def test_a_second_ctrl_c_ends_it_at_once() -> None:
    twice = (signal.SIGINT, signal.SIGINT)
    assert end("handled", "hangs", *twice) == (3, ["saved", "own handler"])
