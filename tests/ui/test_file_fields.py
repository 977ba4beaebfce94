"""A field of files gives what was uploaded, and no other file of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

import gradio as gr

from unziplora.ui.gradio_compat import file_input


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    # what gradio 3 gives it: an object in JSON, which later ones do not know
    monkeypatch.setattr(gr.File, "preprocess", lambda field, value: value)
    return folder


def named(path: Path) -> dict[str, Any]:
    """As gradio 3's page names an upload."""
    return {"name": str(path), "is_file": True, "data": None, "orig_name": "x"}


def test_an_upload_is_given(uploads: Path) -> None:
    (uploads / "x.safetensors").write_bytes(b"x")
    value = named(uploads / "x.safetensors")
    assert file_input().preprocess(value) == value
    assert file_input(file_count="multiple").preprocess([value]) == [value]
    inside = {"name": "x", "data": "data:text/plain;base64,eA=="}
    assert file_input().preprocess(inside) == inside
    assert file_input().preprocess(None) is None


@pytest.mark.parametrize("way", ["outside", "up", "link", "folder", "missing", "relative", "none"])
def test_any_other_file_is_refused(uploads: Path, tmp_path: Path, way: str) -> None:
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(b"x")
    (uploads / "link").symlink_to(secret)
    path = {
        "outside": secret,
        "up": uploads / ".." / "secret.safetensors",
        "link": uploads / "link",
        "folder": uploads,
        "missing": uploads / "missing",
        "relative": Path("secret.safetensors"),
    }.get(way)
    value = named(path) if path is not None else {"name": None, "is_file": True}
    for sent in (value, [value]):
        with pytest.raises(gr.Error, match="cannot have"):
            file_input(file_count="multiple").preprocess(sent)
