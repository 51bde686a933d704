"""A Ray cluster of several nodes on this machine, in a process that reads commands from stdin."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import TIMEOUT

MEMORY = 80 * 1024 * 1024  # bytes: the smallest object store


class RayCluster:
    """A handle of the cluster's process, which adds and kills nodes."""

    def __init__(self) -> None:
        environ = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        environ["RAY_worker_niceness"] = "0"  # by default, workers wait for all other tests
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=environ,
        )  # fmt: skip
        self.address: str = self._read_reply()["address"]

    def add(self, name: str, cpus: int) -> None:
        """Start a node whose processes have its name in ``NODE_NAME``."""
        self._request(add=name, cpus=cpus)

    def kill(self, name: str) -> None:
        """Kill all processes of a node at once."""
        self._request(kill=name)

    def close(self) -> None:
        """Shut down the cluster and its process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(TIMEOUT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _request(self, **request: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        assert self._read_reply() == {"ok": True}

    def _read_reply(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:  # Ray prints other lines
            if line.startswith("{"):
                return json.loads(line)
        raise AssertionError("the process of the cluster has exited")


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A cluster of two nodes with one core each."""
    running = RayCluster()
    running.add("one", cpus=1)
    running.add("two", cpus=1)
    yield running
    running.close()


def serve() -> None:
    """Start the head node; handle requests until stdin closes."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes: dict[str, Any] = {"head": cluster.head_node}
    print(json.dumps({"address": cluster.address}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "add" in request:
            os.environ["NODE_NAME"] = request["add"]
            nodes[request["add"]] = cluster.add_node(
                num_cpus=request["cpus"], object_store_memory=MEMORY
            )
        else:
            cluster.remove_node(nodes.pop(request["kill"]), allow_graceful=False)
        print(json.dumps({"ok": True}), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))  # so that Ray imports no module of the tests
    serve()
