"""A Ray cluster of several nodes on this machine, in a process of its own that obeys its stdin."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

MEMORY = 80 * 1024 * 1024  # bytes: the smallest object store


class RayCluster:
    """The cluster, as tests see it: nodes are added, and really killed."""

    def __init__(self) -> None:
        environ = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=environ,
        )  # fmt: skip
        self.address: str = self._answer()["address"]

    def add(self, name: str, cpus: int) -> None:
        """Start a node whose processes have its name in ``WHICH_NODE``."""
        self._ask(add=name, cpus=cpus)

    def kill(self, name: str) -> None:
        """End a node as a power cut would."""
        self._ask(kill=name)

    def close(self) -> None:
        """End all of it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, **asked: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        assert self._answer() == {"done": True}

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:  # Ray prints there, too
            if line.startswith("{"):
                return json.loads(line)
        raise AssertionError("the cluster's process has ended")


def serve() -> None:
    """Start the head, and do what is asked."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes: dict[str, Any] = {"head": cluster.head_node}
    print(json.dumps({"address": cluster.address}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "add" in asked:
            os.environ["WHICH_NODE"] = asked["add"]
            nodes[asked["add"]] = cluster.add_node(
                num_cpus=asked["cpus"], object_store_memory=MEMORY
            )
        else:
            cluster.remove_node(nodes.pop(asked["kill"]), allow_graceful=False)
        print(json.dumps({"done": True}), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))  # not every test is a module of Ray's
    serve()
