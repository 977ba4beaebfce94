"""Programs that are referees: run by their own Python, with nothing of this project imported."""
