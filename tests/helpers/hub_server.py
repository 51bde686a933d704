"""A server on 127.0.0.1 with the Hub's file protocol and optional faults."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """One repository.

    Attributes:
        repository: its name.
        files: name -> content.
        faults: set by a test. ``cut`` sends half of the weights and closes the connection, ``hang``
            sends half of them and keeps it open, ``drip`` sends them byte by byte, ``flip`` changes
            a bit of them, ``flip small`` changes a bit of other files, ``slow`` answers after 60 s,
            and a number is the HTTP status of every answer.
        requests: method and path of each request.
        url: address of the server.
    """

    repository: str
    files: dict[str, bytes]
    faults: set[str | int] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def info(self) -> bytes:
        """Return the answer to ``/api/models/REPOSITORY?blobs=true``."""
        siblings = []
        for name, data in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
            entry: dict[str, object] = {
                "rfilename": name, "size": len(data), "blobId": blob.hexdigest()
            }  # fmt: skip
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
            """Log nothing."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if "slow" in hub.faults:
                time.sleep(60)
            status = next((f for f in hub.faults if isinstance(f, int)), None)
            if status is not None:
                self.send_error(status)
            elif self.path.startswith(f"/api/models/{hub.repository}"):
                self._send(hub.info(), {"Content-Type": "application/json"}, body)
            else:
                self._send_file(body)

        def _send_file(self, body: bool) -> None:
            name = re.sub(r"/resolve/(main|refs%2Fpr%2F\d+)/", f"/resolve/{COMMIT}/", self.path)
            name = name.partition(f"/resolve/{COMMIT}/")[2]
            if name not in hub.files:
                self.send_error(404)
                return
            data = hub.files[name]
            etag = hashlib.sha256(data).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            is_weights = name.endswith(".safetensors")
            if ("flip" if is_weights else "flip small") in hub.faults:
                data = data[:-1] + bytes([data[-1] ^ 1])
            self._send(data, headers, body, hub.faults if is_weights else set())

        def _send(
            self,
            data: bytes,
            headers: dict[str, str],
            body: bool,
            faults: Collection[str | int] = (),
        ) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if not body:
                return
            is_cut = bool({"cut", "hang"} & set(faults))
            for piece in self._pieces(data[: len(data) // 2] if is_cut else data, faults):
                self.wfile.write(piece)
                self.wfile.flush()
            if "hang" in faults:
                time.sleep(60)
            if is_cut:
                self.close_connection = True

        def _pieces(self, data: bytes, faults: Collection[str | int]) -> Iterator[bytes]:
            if "drip" not in faults:
                yield data
                return
            for byte in data:
                yield bytes([byte])
                time.sleep(0.3)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            """Log nothing when a client closes the connection early."""

    server = Server(("127.0.0.1", 0), Handler)
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
