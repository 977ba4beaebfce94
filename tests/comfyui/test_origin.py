"""The checkpoint of a MODEL is found in the workflow, whatever lies in between."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.comfyui.workflows import node
from unziplora.hosts.comfyui import origin

NAME = "ponyMix.safetensors"


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ComfyUI's `folder_paths` knows."""
    (tmp_path / NAME).write_bytes(b"weights")
    folders = ModuleType("folder_paths")

    def get_full_path(kind: str, name: str) -> str | None:
        path = tmp_path / name
        return str(path) if kind in ("checkpoints", "diffusion_models") and path.exists() else None

    folders.get_full_path = get_full_path  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "folder_paths", folders)
    return tmp_path / NAME


def workflow(**between: Any) -> dict[str, Any]:
    loader = node("CheckpointLoaderSimple", ckpt_name=NAME)
    return {"1": loader, "3": node("UnZipLoRA_UnzipImage", model=["1", 0]), **between}


def test_of_a_loader_it_is_the_loaders_file(checkpoint: Path) -> None:
    assert origin.model_file(workflow(), "3") == checkpoint
    of_a_unet = {"1": node("UNETLoader", unet_name=NAME), "3": node("x", model=["1", 0])}
    assert origin.model_file(of_a_unet, "3") == checkpoint


def test_through_other_nodes_it_is_still_that(checkpoint: Path) -> None:
    between = {"2": node("ModelSamplingDiscrete", model=["1", 0], sampling="v_prediction")}
    changed = workflow(**between)
    changed["3"]["inputs"]["model"] = ["2", 0]
    assert origin.model_file(changed, "3") == checkpoint


@pytest.mark.parametrize(
    "changed",
    [
        {"1": node("SomeLoader", path="x")},
        {"1": node("CheckpointLoaderSimple", ckpt_name="gone.safetensors")},
        {"1": node("Loop", model=["3", 0])},
        {"1": {}},
    ],
)
def test_where_there_is_none_the_model_is_unknown(
    checkpoint: Path, changed: dict[str, Any]
) -> None:
    found = origin.model_file({**workflow(), **changed}, "3")
    assert found is None
    assert origin.identity(found).name == origin.UNKNOWN
    assert origin.model_file(None, "3") is None


def test_a_file_is_known_by_name_hash_and_family(checkpoint: Path) -> None:
    identity = origin.identity(checkpoint)
    assert identity.name == NAME
    assert identity.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert identity.family == "Pony"
    checkpoint.write_bytes(b"other weights")  # another file of that name
    assert origin.identity(checkpoint).sha256 == hashlib.sha256(b"other weights").hexdigest()
