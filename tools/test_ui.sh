#!/usr/bin/env bash
# Tests the page in Chromium with the current gradio, Forge's and A1111's, each in a separate
# environment beside .venv; arguments go to pytest. Screenshots go to build/screenshots.
. "$(dirname "$0")/setup.sh" standalone,app,test
pip install --quiet playwright
mkdir -p build

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo --non-interactive "$@"; fi; }
if ! command -v chromium chromium-browser google-chrome >/dev/null; then
    # Debian's own where it can be had; else playwright's; without either the tests skip and say so
    if command -v apt-get >/dev/null && as_root apt-get update -qq; then
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -qq -y --no-install-recommends chromium >/dev/null || true
    fi
    command -v chromium >/dev/null || playwright install chromium || true
fi

# A1111 and Forge, and what they pin, need Python 3.10 or 3.11
if python -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then
    packages=$(python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    for gradio in 3.41.2 4.40.0; do
        own=$VIRTUAL_ENV-gradio-$gradio
        if [ ! -f "$own/ready" ]; then
            python -m venv "$own"
            # torch is looked for in .venv, after all that this environment has itself
            echo "$packages" > "$("$own/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/zz_torch.pth"
            # these pin their own, which the constraints of the current gradio would forbid
            env --unset=PIP_CONSTRAINT "$own/bin/pip" install --quiet --requirement "tests/ui/browser/gradio-$gradio.txt"
            touch "$own/ready"
        fi
    done
    export UNZIPLORA_GRADIO3_PYTHON=$VIRTUAL_ENV-gradio-3.41.2/bin/python
    export UNZIPLORA_GRADIO4_PYTHON=$VIRTUAL_ENV-gradio-4.40.0/bin/python
fi
# the rules of test_accessibility.py, where npm can be asked for them
if command -v npm >/dev/null && [ ! -f build/axe/package/axe.min.js ]; then
    mkdir -p build/axe
    (cd build/axe && npm pack --silent axe-core@4.14.1 && tar xzf axe-core-*.tgz package/axe.min.js) || true
fi
[ ! -f build/axe/package/axe.min.js ] || export UNZIPLORA_AXE=$PWD/build/axe/package/axe.min.js
# All gradios at once, each in a process with its own browser: they wait most of the time.
# A hang ends here.
run() { HF_HUB_OFFLINE=1 timeout --signal=INT --kill-after=60 25m python -m pytest tests/ui/browser -k "$1" "${@:2}"; }
failed=0
for gradio in 3.41.2 4.40.0; do
    run "$gradio" "$@" > "build/ui-$gradio.txt" 2>&1 &
    running+=($!)
done
run "not 3.41.2 and not 4.40.0" "$@" || failed=$?
for process in "${running[@]}"; do wait "$process" || failed=$?; done
cat build/ui-*.txt
exit $failed
