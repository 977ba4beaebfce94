"""A file is written whole or not at all, under a name that works everywhere."""

from __future__ import annotations

import errno
import os
import shutil
import unicodedata
from collections import namedtuple
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unziplora import files as atomic
from unziplora.errors import InvalidInput, UnZipLoRAError


def test_a_file_is_written_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "a.bin", b"one")
    atomic.write_bytes(tmp_path / "a.bin", b"two")
    assert os.listdir(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"two"


def test_a_failure_halfway_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic.writing(path) as temporary:
            temporary.write_bytes(b"ne")
            raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        write_half()
    assert os.listdir(tmp_path) == ["a.bin"]
    assert path.read_bytes() == b"old"


def test_a_written_file_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "ours", "ä")
    (tmp_path / "plain").write_text("ä", encoding="utf-8")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "ours").read_bytes() == "ä".encode()


def test_a_full_disk_is_said_in_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnZipLoRAError, match="full"):
        atomic.write_bytes(tmp_path / "a.bin", b"x")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_missing_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(UnZipLoRAError, match=r"a\.bin"):
        atomic.write_bytes(tmp_path / "nowhere" / "a.bin", b"x")


def windows_replace(mapped: set[str]):  # type: ignore[no-untyped-def]
    """os.replace as Windows does it: a file that is mapped cannot be replaced."""
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if str(target) in mapped and os.path.exists(target):
            raise PermissionError(errno.EACCES, "user-mapped section open")
        real(source, target)

    return replace


def test_on_windows_a_file_that_the_host_has_mapped_is_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    (tmp_path / ".a.bin.01234567.old").write_bytes(b"left by an earlier run")
    (tmp_path / "user.old").write_bytes(b"not ours")
    monkeypatch.setattr(atomic, "_WINDOWS", True)
    monkeypatch.setattr(atomic, "_RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(os, "replace", windows_replace({str(path)}))
    atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "user.old"]


def test_elsewhere_a_refusal_is_an_error_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(atomic, "_WINDOWS", False)
    monkeypatch.setattr(os, "replace", windows_replace({str(path)}))
    with pytest.raises(UnZipLoRAError, match="user-mapped"):
        atomic.write_bytes(path, b"new")
    assert os.listdir(tmp_path) == ["a.bin"]
    assert path.read_bytes() == b"old"


BAD_NAMES = [
    "", " ", ".", "..", "...", ". .", "a/b", "a\\b", "../a", "C:a", "a:1", "a<b", "a>b", 'a"b',
    "a|b", "a?", "a*", "cat, watercolor", "a\nb", "a\x00b", "a\x7fb", "a\u2028b", "\ud800",
    "CON", "nul", "COM1", "lpt9", "com¹", "con.txt", "NUL .x", "AUX.tar.gz", "CONIN$",
    "a.", "a ", " a", ".hidden", "x" * 101, "猫" * 61,
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_breaks_somewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        atomic.check_name(name)
    message = str(refusal.value)
    assert "\n" not in message
    assert len(message) < 300
    message.encode("utf-8")


@pytest.mark.parametrize(
    "name", ["cat", "cat-watercolor", "my cat 2", "v1.5_final", "猫", "Katze ü", "console", "COM10"]
)
def test_an_ordinary_name_is_kept(name: str) -> None:
    assert atomic.check_name(name) == name


@given(st.text(max_size=130))
def test_a_name_that_is_taken_is_one_part_of_a_path_on_every_system(name: str) -> None:
    try:
        taken = atomic.check_name(name)
    except InvalidInput:
        return
    assert taken == unicodedata.normalize("NFC", name)
    assert PureWindowsPath(taken + ".safetensors").name == taken + ".safetensors"
    assert Path(taken).name == taken
    assert not is_reserved(taken)
    assert f"<lora:{taken}:1>"[1:-1].split(":") == ["lora", taken, "1"]
    assert len(f".{taken}_content-000600.safetensors.01234567.tmp".encode()) < 256


def is_reserved(name: str) -> bool:
    numbered = {f"{device}{n}" for device in ("COM", "LPT") for n in range(10)}
    return name.split(".")[0].rstrip().upper() in {"CON", "PRN", "AUX", "NUL"} | numbered


def test_an_output_folder_may_be_there_or_be_missing_from_a_folder_that_is(tmp_path: Path) -> None:
    atomic.check_output_folder(tmp_path, 1000)
    atomic.check_output_folder(tmp_path / "results", 1000)
    assert os.listdir(tmp_path) == []


def test_a_relative_output_folder_lies_in_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    atomic.check_output_folder(Path("results"), 1)
    atomic.check_output_folder(Path("."), 1)


def test_an_output_folder_in_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        atomic.check_output_folder(tmp_path / "no" / "results", 1)
    assert os.listdir(tmp_path) == []


def test_a_file_is_no_output_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x", encoding="utf-8")
    with pytest.raises(InvalidInput, match="not a folder"):
        atomic.check_output_folder(tmp_path / "a", 1)
    with pytest.raises(InvalidInput, match="does not exist"):
        atomic.check_output_folder(tmp_path / "a" / "b", 1)


def test_a_read_only_output_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere
        monkeypatch.setattr(os, "open", denied)
    with pytest.raises(InvalidInput, match="Nothing can be written"):
        atomic.check_output_folder(folder, 1)
    with pytest.raises(InvalidInput, match="Nothing can be written"):
        atomic.check_output_folder(folder / "results", 1)


def test_a_full_disk_is_refused_with_what_is_free_and_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**8))
    atomic.check_output_folder(tmp_path, 10**8)
    with pytest.raises(InvalidInput, match=r"0\.10 GB free, and 2\.20 GB are needed"):
        atomic.check_output_folder(tmp_path, 2_200_000_000)
