"""Batches as processes, in a network of their own so that what listens in it is theirs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.conftest import ROOT

ISOLATED = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
_LISTENS = "0A"  # the state in /proc/net/tcp
_LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


def can_be_isolated() -> bool:
    """Whether a process can have a network with loopback alone here."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run([*ISOLATED, "true"], capture_output=True).returncode == 0


def started(*arguments: str, isolated: bool = False) -> subprocess.Popen[str]:
    """python -m ARGUMENTS; stdout and stderr together."""
    return subprocess.Popen(
        [*(ISOLATED if isolated else []), sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "RAY_ADDRESS": "127.0.0.1:9",  # of a cluster that is gone: not to be joined by itself
        },
    )


def until(met: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits for as long as the process lives."""
    while not met() and process.poll() is None:
        time.sleep(0.05)


def steps_done(out: Path, name: str) -> int:
    file = out / ".unziplora" / name / "progress.csv"
    return max(0, file.read_text().count("\n") - 1) if file.is_file() else 0


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes of its workers: its own (without multiprocessing's resource tracker), or Ray's
    actors, which Ray names for what they run."""
    found = []
    network = os.readlink(f"/proc/{process.pid}/ns/net")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            is_actor = b"ray::_Actor" in command and network == os.readlink(folder / "ns" / "net")
            if is_actor or (b"spawn_main" in command and parent == process.pid):
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue  # it has just ended, or is another user's
    return sorted(found)


def listening(process: subprocess.Popen[str]) -> list[str]:
    """Addresses in the process's network that something listens at, as hexadecimal numbers."""
    rows: list[str] = []
    for table in ("tcp", "tcp6"):
        rows += Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]
    return [row.split()[1].partition(":")[0] for row in rows if row.split()[3] == _LISTENS]


def beyond_loopback(addresses: Sequence[str]) -> list[str]:
    return [address for address in addresses if address not in _LOOPBACK]
