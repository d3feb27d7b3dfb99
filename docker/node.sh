#!/bin/sh
# One node of a Ray cluster; installed as raypatch-node.
#
#   raypatch-node head COMMAND...       start the head, then become the command, in which --address auto finds it
#   raypatch-node worker HOST [ARG...]  join the head at HOST and stay as long as it does; ARGs go to `ray start`
#   raypatch-node healthy               exit 0 if runs and data can be written and the cluster of $RAYPATCH_HEAD answers
#
# $RAYPATCH_CPUS: cores that trials may use here, all by default. $RAYPATCH_PORT: of the head, 6379 by default.
# $RAYPATCH_NODE_IP: this node's address, where Ray would take that of another network.
#
# Every node needs the same token in $RAY_AUTH_TOKEN_PATH (or ~/.ray/auth_token). Who reaches the ports below and has the
# token can run code here; the token travels unencrypted. Metrics (6385) ask for no token.
set -eu
umask 022
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
port=${RAYPATCH_PORT:-6379}

start_ray() {
  ray start --disable-usage-stats --node-manager-port 6380 --object-manager-port 6381 --runtime-env-agent-port 6382 \
    --dashboard-agent-grpc-port 6383 --dashboard-agent-listen-port 6384 --metrics-export-port 6385 \
    --min-worker-port 10002 --max-worker-port 10999 --object-store-memory 200000000 \
    ${RAYPATCH_CPUS:+--num-cpus "$RAYPATCH_CPUS"} ${RAYPATCH_NODE_IP:+--node-ip-address "$RAYPATCH_NODE_IP"} "$@"
}

case ${1-} in
head)
  shift
  start_ray --head --port "$port" --ray-client-server-port 6386 --dashboard-port 8265 \
    --dashboard-host "${RAYPATCH_DASHBOARD_HOST:-127.0.0.1}" \
    ${RAYPATCH_AUTOSCALING:+--autoscaling-config "$RAYPATCH_AUTOSCALING"} >/dev/null
  exec "$@"
  ;;
worker)
  head=$2
  shift 2
  tries=0
  until ray health-check --address "$head:$port" 2>/dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -ge 10 ]; then
      echo "no Ray at $head:$port that takes this node's token and has this node's version of Ray" >&2
      exit 1
    fi
    sleep 3
  done
  start_ray --address "$head:$port" --block "$@"
  ;;
healthy)
  for folder in "${RAYPATCH_RUNS:-runs}" "${MEDMNIST_ROOT:-$HOME/.medmnist}"; do
    test -w "$folder" || {
      echo "cannot write $folder" >&2
      exit 1
    }
  done
  if [ -n "${RAYPATCH_HEAD-}" ]; then
    ray health-check --address "$RAYPATCH_HEAD:$port"
  fi
  ;;
*)
  sed -n '3,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
  ;;
esac
