#!/bin/sh
# Install raypatch into a virtual environment of its own, with the versions of constraints.txt: install.sh PREFIX
#
#   TORCH_INDEX   address of a package index that has builds of torch for this machine, such as those without CUDA;
#                 when empty, torch comes from where pip takes everything else
#   EXTRAS        what to install beside it: medical (the default), mlflow, wandb; several with commas
#
# Needs python3, 3.11 or newer, with venv; about 7 GB for the CUDA build of torch, 2 GB without. Again: brings it up to
# date.
set -eu
if [ $# -ne 1 ]; then
  echo "usage: install.sh PREFIX" >&2
  exit 2
fi
prefix=$1
source=$(cd "$(dirname "$0")/.." && pwd)
extras=${EXTRAS-medical}

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "raypatch needs Python 3.11 or newer, this is $(python3 --version)" >&2
  exit 2
}
python3 -m venv "$prefix"
install() {
  "$prefix/bin/pip" install --quiet --disable-pip-version-check --constraint "$source/constraints.txt" "$@"
}
install --upgrade pip
if [ -n "${TORCH_INDEX-}" ]; then
  install --index-url "$TORCH_INDEX" torch torchvision
fi
copy=$(mktemp -d) # setuptools writes beside what it builds, and the source may be read-only
trap 'rm -rf "$copy"' EXIT
cp -R "$source/raypatch" "$source/analysis" "$source/search_spaces" "$copy"
cp "$source/pyproject.toml" "$source/README.md" "$source/LICENSE" "$copy"
install --upgrade "raypatch${extras:+[$extras]} @ file://$copy"
cp "$source/docker/node.sh" "$prefix/bin/raypatch-node"
chmod 755 "$prefix/bin/raypatch-node"
"$prefix/bin/raypatch" spaces >/dev/null
echo "raypatch is in $prefix/bin"
