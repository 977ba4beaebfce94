"""What ComfyUI loads finds the package from wherever its folder is linked to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.conftest import ROOT
from unziplora.version import __version__

PACK = ROOT / "comfyui"
FIND = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("engine", sys.argv[1] + "/engine.py")
engine = importlib.util.module_from_spec(spec)
spec.loader.exec_module(engine)
engine.find()
import unziplora.version
print(unziplora.__file__)
print([path for path in sys.path if path.rstrip("/") == sys.argv[2]])
"""


def test_a_linked_folder_finds_the_package_beside_it(tmp_path: Path) -> None:
    link = tmp_path / "custom_nodes" / "unziplora"
    link.parent.mkdir()
    link.symlink_to(PACK)
    command = [sys.executable, "-I", "-S", "-c", FIND, str(link), str(ROOT)]
    found = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    package, on_the_path = found.stdout.splitlines()
    assert Path(package) == ROOT / "unziplora" / "__init__.py"
    assert on_the_path == "[]"  # our tests and tools are nobody's


def test_its_version_is_the_packages() -> None:
    text = (PACK / "pyproject.toml").read_text("utf-8")
    assert re.search(rf'^version = "{re.escape(__version__)}"$', text, re.M)
    assert f'"unziplora=={__version__}"' in text


def test_examples_have_nothing_of_the_computer_they_were_made_on() -> None:
    found = sorted((PACK / "examples").rglob("*.json"))
    assert len(found) == 4
    for path in found:
        text = path.read_text("utf-8")
        json.loads(text)
        assert str(ROOT) not in text
        assert "sd_xl_base_1.0.safetensors" in text


def test_the_image_has_its_workflow_in_it() -> None:
    with Image.open(PACK / "examples" / "train_and_draw.png") as image:
        inside = json.loads(image.info["workflow"])
    assert inside == json.loads((PACK / "examples" / "train_and_draw.json").read_text("utf-8"))


def test_every_link_of_an_example_leads_to_a_node() -> None:
    for path in sorted((PACK / "examples" / "api").glob("*.json")):
        workflow = json.loads(path.read_text("utf-8"))
        links = [value for one in workflow.values() for value in one["inputs"].values()
                 if isinstance(value, list)]  # fmt: skip
        assert links
        assert all(source in workflow for source, _ in links)
