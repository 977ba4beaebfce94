"""Two drivers never share a run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest

from unziplora.batch.lease import LEASE_SECONDS, LeaseTakenError, leased
from unziplora.errors import WriteError


def lease_of(folder: Path, **fields: object) -> Path:
    path = folder / "lease.json"
    path.write_text(json.dumps({"token": "theirs"} | fields))
    return path


def test_a_second_owner_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    held = pytest.raises(LeaseTakenError, match=socket.gethostname())
    with leased(tmp_path), held, leased(tmp_path):
        pass
    with leased(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def own_lease(folder: Path) -> dict[str, object]:
    with leased(folder):
        return dict(json.loads((folder / "lease.json").read_text()))


def test_a_process_that_died_on_this_machine_has_lost_its_lease(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = own_lease(tmp_path)
    lease_of(tmp_path, **{**here, "token": "theirs", "pid": dead.pid})
    with leased(tmp_path):
        pass
    lease_of(tmp_path, **{**here, "token": "theirs", "pid": os.getppid()})
    with pytest.raises(LeaseTakenError), leased(tmp_path):
        pass


@pytest.mark.parametrize("other", ["boot", "processes"])
def test_a_number_of_another_container_or_start_says_nothing_of_its_process(
    tmp_path: Path, other: str
) -> None:
    here = own_lease(tmp_path)
    if other not in here:
        pytest.skip("The system does not say which container this is.")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lease_of(tmp_path, **{**here, "token": "theirs", "pid": dead.pid, other: "another"})
    with pytest.raises(LeaseTakenError), leased(tmp_path):
        pass


def test_a_process_that_lives_but_does_not_answer_has_lost_its_lease(tmp_path: Path) -> None:
    path = lease_of(tmp_path, **{**own_lease(tmp_path), "token": "theirs", "pid": os.getppid()})
    old = path.stat().st_mtime - LEASE_SECONDS - 1
    os.utime(path, (old, old))
    with leased(tmp_path):
        pass


def test_an_owner_learns_that_its_run_was_taken_over(tmp_path: Path) -> None:
    with leased(tmp_path) as lease:
        lease.renew()
        assert not lease.lost
        lease_of(tmp_path, host="elsewhere", pid=1)
        lease.renew()
        assert lease.lost


def test_one_of_many_takes_over_a_dead_owners_run(tmp_path: Path) -> None:
    path = lease_of(tmp_path, host="elsewhere", pid=1)
    os.utime(path, (0, 0))
    together, held, refused = Barrier(8), [], []

    def take() -> None:
        together.wait()
        try:
            with leased(tmp_path) as lease:
                held.append(lease)
                done.wait()
        except LeaseTakenError as error:
            refused.append(error)

    done = Event()
    threads = [Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(held) + len(refused) < 8:
        time.sleep(0.01)
    for lease in held:
        lease.renew()
    alone = [lease for lease in held if not lease.lost]
    done.set()
    for thread in threads:
        thread.join()
    assert len(alone) == 1
    assert list(tmp_path.iterdir()) == []


def test_this_machines_clock_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease_of(tmp_path, host="elsewhere", pid=1)
    for now in (0.0, 4e9):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        with pytest.raises(LeaseTakenError), leased(tmp_path):
            pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="There is no /dev/full.")
def test_a_full_disk_leaves_no_lease_without_an_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def full(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if Path(path).name != "lease.json":
            return opened(path, flags, mode, **more)
        os.close(opened(path, flags, mode))
        return opened("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(WriteError, match="make room"), leased(tmp_path):
        pass
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


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
