"""Two drivers never share a run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from unziplora.batch.lease import LEASE_SECONDS, LeaseTakenError, leased


def lease_of(folder: Path, **fields: object) -> Path:
    path = folder / "lease.json"
    path.write_text(json.dumps({"token": "theirs", **fields}))
    return path


def test_a_second_owner_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    held = pytest.raises(LeaseTakenError, match=socket.gethostname())
    with leased(tmp_path), held, leased(tmp_path):
        pass
    with leased(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_died_on_this_machine_has_lost_its_lease(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lease_of(tmp_path, host=socket.gethostname(), pid=dead.pid)
    with leased(tmp_path):
        pass
    lease_of(tmp_path, host=socket.gethostname(), pid=os.getppid())
    with pytest.raises(LeaseTakenError), leased(tmp_path):
        pass


def test_another_machines_lease_is_taken_over_once_it_is_old(tmp_path: Path) -> None:
    path = lease_of(tmp_path, host="elsewhere", pid=1)
    with pytest.raises(LeaseTakenError, match="elsewhere"), leased(tmp_path):
        pass
    old = path.stat().st_mtime - LEASE_SECONDS - 1
    os.utime(path, (old, old))
    with leased(tmp_path):
        assert json.loads(path.read_text())["token"] != "theirs"


def test_a_lease_that_was_taken_over_is_not_removed_by_its_first_owner(tmp_path: Path) -> None:
    with leased(tmp_path):
        path = lease_of(tmp_path, host="elsewhere", pid=1)
    assert json.loads(path.read_text())["token"] == "theirs"


def test_a_damaged_lease_of_long_ago_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    path.write_bytes(b"\xff{")
    with pytest.raises(LeaseTakenError), leased(tmp_path):
        pass
    os.utime(path, (0, 0))
    with leased(tmp_path):
        pass
