"""A base small enough to be opened in a second, and a driver of a batch on it as a program:

python -m tests.batch.small_base MANIFEST OUT WORKERS
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, python_blocks


class SmallBase:
    """The host of docs/extending.md, with the same weights in every process."""

    def open(self, threads: int) -> Any:
        import torch

        names: dict[str, Any] = {}
        exec(python_blocks(ROOT / "docs" / "extending.md")[0], names)
        torch.set_num_threads(1)
        torch.manual_seed(0)
        return names["MyHost"](names["small_unet"]())

    def sampler(self, out: Path) -> None:
        return None


def main(manifest: str, out: str, kind: str) -> int:
    from unziplora.batch.manifest import read_manifest
    from unziplora.batch.ray_driver import RayWorkers
    from unziplora.cli.batch import drive

    jobs = read_manifest(Path(manifest), {})
    folder = Path(out)
    folder.mkdir(exist_ok=True)
    if kind.startswith("ray"):
        workers: Any = RayWorkers(None, int(kind[4:]), SmallBase(), folder)
    else:
        from unziplora.batch.local import LocalWorkers

        workers = LocalWorkers(int(kind), SmallBase(), folder)
    return drive(jobs, workers, folder)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
