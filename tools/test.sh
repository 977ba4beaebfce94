#!/usr/bin/env bash
# Sets up a virtual environment and runs every check and test in it, two files at a time:
#   tools/test.sh           everything but the page in a browser (tools/test_ui.sh, whose driver
#                           hangs inside pytest-xdist)
#   tools/test.sh --quick   the same checks, and the tests that are not marked as slow
# Other arguments go to pytest.
. "$(dirname "$0")/setup.sh" standalone,app,test
# The sgm UNet that WebUIs train on, as published: only its code is needed, not its dependencies.
pip show --quiet auto1111sdk 2>/dev/null || pip install --quiet --no-deps auto1111sdk==0.0.95

chosen=()
if [ "${1:-}" = --quick ]; then
    shift
    chosen=(-m "not slow")
fi

ruff check .
ruff format --check .
mypy
lint-imports
python tools/check_structure.py
git ls-files -z '*.py' '*.md' '*.js' '*.css' '*.sh' '*.toml' '*.yml' | xargs -0 codespell
# A test that hangs ends here, after pytest has shown where.
limit() { if command -v timeout >/dev/null; then timeout --signal=INT --kill-after=60 45m "$@"; else "$@"; fi; }
HF_HUB_OFFLINE=1 limit python -m pytest --numprocesses=2 --dist=loadfile \
    --ignore=tests/ui/browser "${chosen[@]}" "$@"
