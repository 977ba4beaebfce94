#!/usr/bin/env bash
# Sets up a virtual environment and runs every check and test in it, two files at a time; arguments
# go to pytest. The page in a browser is test_ui.sh's: its driver hangs inside pytest-xdist.
. "$(dirname "$0")/setup.sh" standalone,app,test
# The sgm UNet that WebUIs train on, as published: only its code is wanted, not its dependencies.
pip show --quiet auto1111sdk 2>/dev/null || pip install --quiet --no-deps auto1111sdk==0.0.95

ruff check .
ruff format --check .
mypy
lint-imports
HF_HUB_OFFLINE=1 python -m pytest --numprocesses=2 --dist=loadfile --ignore=tests/ui/browser "$@"
