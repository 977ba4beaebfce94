"""Trying hard to break it: damaged input, kills, faults at every write, a long run."""
