"""A batch on a Ray cluster of two machines, one of which is lost and replaced on the way:

python -m tests.batch.losing_node MANIFEST OUT
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unziplora.batch.base import StandaloneBase
from unziplora.batch.ray_driver import RayWorkers
from unziplora.batch.results import Result
from unziplora.cli.batch import drive
from unziplora.training.manifest import BatchJob, read_manifest
from unziplora.training.run_folder import RunFolder, run_path

_MEMORY = 80_000_000  # bytes of each node's object store


def main(manifest: str, out: str) -> int:
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback alone
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": _MEMORY, "include_dashboard": False},
    )
    node = {"num_cpus": 1, "object_store_memory": _MEMORY}
    lost = cluster.add_node(**node)
    cluster.add_node(**node)
    jobs = read_manifest(Path(manifest), {})
    folder = Path(out)

    class Losing(RayWorkers):
        """Loses a machine once all workers have done a step; Cluster works in this thread only."""

        lost = False

        def wait(self, seconds: float) -> Sequence[tuple[BatchJob, Result | None]]:
            if not self.lost and _in_progress(folder, jobs) >= 2:
                self.lost = True
                cluster.remove_node(lost)
                cluster.add_node(**node)
                print("a node was removed", flush=True)
            return super().wait(seconds)

    workers: Any = Losing(cluster.address, 2, StandaloneBase("mini"), folder)
    try:
        return drive(jobs, workers, folder)
    finally:
        cluster.shutdown()


def _in_progress(out: Path, jobs: Sequence[BatchJob]) -> int:
    folders = [RunFolder(run_path(out, job.name)) for job in jobs]
    return sum(folder.has_state and bool(folder.read_progress()) for folder in folders)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
