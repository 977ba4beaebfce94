#!/usr/bin/env bash
# Sets up a virtual environment and runs the demo in it; arguments go to `unziplora demo`.
. "$(dirname "$0")/setup.sh" standalone
unziplora demo "$@"
