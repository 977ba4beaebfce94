"""What a message may claim about a run's saved state: read from the disk when it is said."""

from __future__ import annotations

from unziplora.training.run import Run
from unziplora.training.run_folder import RunFolder


def what_is_saved(run: Run | None) -> str:
    """A sentence or two on the state that a run left, and what can be done with it."""
    if run is None:
        return "It had not begun. Start it again."
    step = RunFolder(run.kept_in).saved_step()
    if step is None:
        return "No state of it is saved. Start it again."
    return f"Its state of step {step} is saved. Resume it."
