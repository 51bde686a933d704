"""A small server on 127.0.0.1 that speaks the Hub's file protocol, and can misbehave."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """One repository; ``faults`` are switched on by a test.

    Faults: ``cut`` sends half of the weights and hangs up, ``flip`` sends other bytes than
    announced, ``slow`` answers after 20 s, a number is sent as HTTP status.
    """

    repository: str
    files: dict[str, bytes]
    faults: set[str | int] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def info(self) -> bytes:
        """Answer of ``/api/models/REPOSITORY?blobs=true``."""
        siblings = []
        for name, data in self.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data)}
            if name.endswith(".safetensors"):
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return json.dumps({"id": self.repository, "sha": COMMIT, "siblings": siblings}).encode()


@contextmanager
def fake_hub(repository: str, folder: Path) -> Iterator[FakeHub]:
    """Serve a checkpoint folder as a repository until the block ends."""
    hub = FakeHub(repository, {p.name: p.read_bytes() for p in sorted(folder.iterdir())})

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if "slow" in hub.faults:
                time.sleep(20)
            status = next((f for f in hub.faults if isinstance(f, int)), None)
            if status is not None:
                self.send_error(status)
            elif self.path.startswith(f"/api/models/{hub.repository}"):
                self._send(hub.info(), {"Content-Type": "application/json"}, body)
            else:
                self._send_file(body)

        def _send_file(self, body: bool) -> None:
            name = self.path.replace("/resolve/main/", f"/resolve/{COMMIT}/")
            name = name.partition(f"/resolve/{COMMIT}/")[2]
            if name not in hub.files:
                self.send_error(404)
                return
            data = hub.files[name]
            etag = hashlib.sha256(data).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            weights = name.endswith(".safetensors")
            if weights and "flip" in hub.faults:
                data = bytes([data[0] ^ 1]) + data[1:]
            self._send(data, headers, body, cut=weights and "cut" in hub.faults)

        def _send(
            self, data: bytes, headers: dict[str, str], body: bool, cut: bool = False
        ) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
