#!/usr/bin/env bash
# Install a wheel into an empty environment and use it from elsewhere: check_wheel.sh FILE.whl
set -euo pipefail
wheel=$(realpath "$1")
constraints=$(realpath "$(dirname "$0")/../constraints.txt")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --constraint "$constraints" "$wheel"
cd "$folder"
venv/bin/raypatch spaces | tee spaces.txt
grep -q '^grid ' spaces.txt
grep -q '^demo ' spaces.txt
venv/bin/raypatch report --help | grep -q 'Usage'
venv/bin/python -c 'import raypatch.analysis.frames.load, raypatch.search_spaces; from raypatch.data.catalog import catalog; assert len(catalog()) > 50'
echo "the wheel works in an empty environment"
