"""Makes `import unziplora` work: the package beside this folder, else the one that pip installed.

This folder is linked into custom_nodes, so the package is found from where it really lies. The
repository is not put on sys.path: other nodes would find our tests and tools there.
"""

import importlib.util
import sys
from pathlib import Path

_BESIDE = Path(__file__).resolve().parent.parent / "unziplora"


def find(package: Path = _BESIDE) -> None:
    """Nothing where the package is not there, or `unziplora` is imported already."""
    first = package / "__init__.py"
    if "unziplora" in sys.modules or not first.is_file():
        return
    spec = importlib.util.spec_from_file_location(
        "unziplora", first, submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["unziplora"] = module
    spec.loader.exec_module(module)
