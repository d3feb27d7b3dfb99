#!/usr/bin/env bash
# docker/install.sh in an empty place, and `raypatch run demo` there as a user who is not root: check_install.sh [--debian]
#
# Without an option: into an empty environment in a temporary folder. --debian: in an empty Debian root made by
# debootstrap, with the commands of docker/Dockerfile; for root. Either needs up to 8 GB of disk for torch.
set -euo pipefail
root=$(realpath "$(dirname "$0")/..")
folder=$(mktemp -d /var/tmp/raypatch-install.XXXXXX)
place=$folder user=65534 inside=() mounted=()
clean_up() {
  for mount in ${mounted[@]+"${mounted[@]}"}; do umount "$mount" || return; done
  rm -rf --one-file-system "$folder"
}
trap clean_up EXIT
chmod 755 "$folder"

mount_at() { # mount_at PLACE ARG...: mount, to be undone at the end
  mkdir -p "$1"
  mount "${@:2}" "$1"
  mounted=("$1" ${mounted[@]+"${mounted[@]}"})
}

if [ "${1-}" = --debian ]; then
  place=$folder/debian inside=(chroot "$folder/debian")
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$place" >"$folder/log"
  mount_at "$place/proc" -t proc proc
  mount_at "$place/dev/shm" -t tmpfs tmpfs
  cp /etc/resolv.conf /etc/hosts "$place/etc"
  # How this machine's pip finds packages, so that the root finds them too.
  cp /etc/ssl/certs/ca-certificates.crt "$place/etc/ssl/certs"
  for file in /etc/pip.conf /etc/xdg/pip; do
    if [ -e "$file" ]; then mkdir -p "$place/$(dirname "$file")" && cp -R "$file" "$place/$file"; fi
  done
  for index in $(python3 -m pip config list | grep -o 'file://[^ '"'"']*' | sort -u); do
    index=$(dirname "${index#file://}")
    if [ -d "$index" ]; then mount_at "$place$index" --bind -o ro "$index"; fi
  done
  "${inside[@]}" useradd --uid 10001 --user-group --create-home raypatch
  user=10001
fi

source=$place/source home=$place/home/raypatch
mkdir -p "$source/docker" "$home" "$place/opt"
cp -R "$root"/{raypatch,analysis,search_spaces,constraints.txt,pyproject.toml,README.md,LICENSE} "$source"
cp "$root"/docker/{install,node}.sh "$source/docker"
chmod -R go+rX "$source"
[ ${#inside[@]} -eq 0 ] || { source=/source home=/home/raypatch; }
prefix=${source%/source}/opt/raypatch

"${inside[@]}" sh "$source/docker/install.sh" "$prefix" 2>&1 | { grep -v '^WARNING: Location' || true; }
echo "installed after ${SECONDS}s: $(du -sh "$place/${prefix#"$place"}" | cut -f1)"

as_user=()
if [ "$(id -u)" = 0 ]; then
  "${inside[@]}" chown -R "$user:$user" "$home"
  as_user=(setpriv "--reuid=$user" "--regid=$user" --clear-groups)
fi
run() {
  "${inside[@]}" "${as_user[@]}" env --ignore-environment HOME="$home" PATH="$prefix/bin:/usr/bin:/bin" OMP_NUM_THREADS=1 \
    sh -c 'cd && exec "$@"' sh "$@"
}
run sh -c 'test "$(id -u)" != 0 && test ! -w "$(dirname "$(command -v raypatch)")"'
run raypatch run demo
run raypatch report runs/demo >/dev/null
run env RAYPATCH_RUNS=runs MEDMNIST_ROOT=. raypatch-node healthy
run test -s runs/demo/report/report.md
echo "install.sh and the demo work for a user who is not root, after ${SECONDS}s"
