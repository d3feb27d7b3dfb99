"""A Ray cluster on one machine: every node in a network namespace of its own, with an address, a host name and a token.

    python tests/helpers/nodes.py 3 raypatch run demo --address HEAD

starts three nodes, runs the command on the head (HEAD in its words stands for the head's address) and takes everything
down again. Needs root and iproute2.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PORT = 6379
PATIENCE = 120.0


def why_not() -> str | None:
    """Why no such cluster can be built here; None where it can."""
    if os.geteuid():
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "network namespaces need iproute2"
    name = f"rp{secrets.token_hex(3)}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces are not allowed here: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


class Nodes:
    """The nodes of one cluster by name; `node1` is the head. Use it as a context manager: nothing stays behind.

    The names of everything it makes hold a random part, and its network is a random one of 198.18.0.0/15, which is
    set aside for such tests, so that two clusters do not meet.
    """

    def __init__(self) -> None:
        self.tag = f"rp{secrets.token_hex(3)}"
        number = secrets.randbelow(512)
        self.network = f"198.{18 + number // 256}.{number % 256}"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.tag}."))  # short: Ray's sockets lie in it
        self.token = self.folder / "token"
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self._spaces: list[str] = []

    def __enter__(self) -> "Nodes":
        try:
            self.token.touch(0o600)
            self.token.write_text(secrets.token_hex(32))
            _ip("link", "add", self.tag, "type", "bridge")
            _ip("link", "set", self.tag, "up")
            self.add()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for space in self._spaces:
            _kill_all(space)
        for process in self.started.values():
            process.wait()
        for words in (*(("netns", "delete", space) for space in self._spaces), ("link", "delete", self.tag)):
            subprocess.run(["ip", *words], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """Of the head, for --address."""
        return f"{self.network}.1:{PORT}"

    def add(
        self, *, cpus: int = 1, gpus: int = 0, environment: Mapping[str, str] = {}, hidden: Path | None = None
    ) -> str:
        """Start a node, wait until it is up, return its name. hidden: a folder in whose place it sees an empty one."""
        name = f"node{len(self._spaces) + 1}"
        self._make_namespace(name)
        ray = ["ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--node-ip-address", self.ip(name)]
        ray += ["--num-cpus", str(cpus), "--num-gpus", str(gpus), "--object-store-memory", str(100 << 20)]
        if name == "node1":
            ray += ["--head", "--port", str(PORT), "--include-dashboard", "false", "--temp-dir", str(self.folder)]
        else:
            ray += ["--address", self.address]
        words = [sys.executable, "-m", *ray]
        if hidden:
            words = ["sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(hidden), *words]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.started[name] = self.start(words, name=name, environment=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while "Ray runtime started" not in (said := (self.folder / f"{name}.log").read_text(errors="replace")):
            assert self.started[name].poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        return name

    def ip(self, name: str) -> str:
        return f"{self.network}.{name.removeprefix('node')}"

    def start(
        self, words: Sequence[str], *, name: str = "node1", environment: Mapping[str, str] = {}, **how: Any
    ) -> "subprocess.Popen[bytes]":
        """Start a command on a node, under the node's host name and with the cluster's token."""
        inside = ["ip", "netns", "exec", self._space(name), "unshare", "--uts", "sh", "-c"]
        inside += ['hostname "$0" && exec "$@"', name, *words]
        settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token), "OMP_NUM_THREADS": "1"}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        everything = {**inherited, **settings, **environment}
        return subprocess.Popen(inside, env={key: value for key, value in everything.items() if value}, **how)

    def kill(self, name: str) -> None:
        """Kill all processes of a node with -9, at once, as a power cut would."""
        _kill_all(self._space(name))
        self.started[name].wait()

    def _space(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def _make_namespace(self, name: str) -> None:
        space, outside = self._space(name), f"{self.tag}-{name.removeprefix('node')}"
        _ip("netns", "add", space)
        self._spaces.append(space)
        _ip("link", "add", outside, "master", self.tag, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", outside, "up")
        _ip("-n", space, "address", "add", f"{self.ip(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def _kill_all(space: str) -> None:
    deadline = time.monotonic() + 30
    while pids := _ip("netns", "pids", space).split():
        assert time.monotonic() < deadline, f"{space} still has processes {pids}"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.05)


def main() -> int:
    """Run a command on the head of a cluster made for it."""
    count, *words = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with Nodes() as nodes:
        for _ in range(int(count) - 1):
            nodes.add()
        return nodes.start([word.replace("HEAD", nodes.address) for word in words]).wait()


if __name__ == "__main__":
    sys.exit(why_not() or main())
