"""A stand-in for the Hugging Face hub on this machine: takes a repository and a commit, and remembers both."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StandIn:
    """files: what was committed, by path. tokens: what the requests came with. address: of this hub."""

    def __init__(self, *, refuse=False):
        self.files: dict[str, bytes] = {}
        self.repos: list[dict] = []
        self.tokens: set[str | None] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, content, status=200):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                if refuse:
                    self.answer({"error": "no right to read"}, 403)
                    return
                self.answer({"id": "me/model", "private": True, "siblings": [], "sha": "0" * 40})

            def do_POST(self):
                body = self.read_body()
                hub.tokens.add(self.headers.get("Authorization"))
                if refuse:
                    self.answer({"error": "no right to write"}, 403)
                elif self.path.startswith("/api/repos/create"):
                    hub.repos.append(json.loads(body))
                    self.answer({"url": f"{hub.address}/me/model", "name": "me/model", "id": "1"})
                elif "/preupload/" in self.path:
                    wanted = json.loads(body)["files"]
                    modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in wanted]
                    self.answer({"files": modes})
                elif "/commit/" in self.path:
                    for line in body.decode().splitlines():
                        entry = json.loads(line)
                        if entry["key"] == "file":
                            hub.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                    address = f"{hub.address}/me/model/commit/{'1' * 40}"
                    self.answer({"commitUrl": address, "commitOid": "1" * 40, "success": True})
                else:
                    self.answer({})

            def read_body(self):
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
