"""A stand-in of a model hub's HTTP API, on this machine: as much of it as a push and a pull speak."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories as name → path → content; `token`: what a request has to bring to write."""

    repositories: dict[str, dict[str, bytes]]
    private: set[str]
    token: str | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.answer(401, {"error": "no"})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            self.server.private |= {name} if asked.get("private") or asked.get("visibility") == "private" else set()
            self.answer(200, {"url": f"{self.server.address}/{name}"})
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif "/commit/" in path:
            name = path.split("/commit/")[0].removeprefix("/api/models/")
            repository = self.server.repositories[name]
            for line in filter(None, body.splitlines()):
                row = json.loads(line)
                if row["key"] == "file":
                    repository[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            url = f"{self.server.address}/{name}/commit/{sha(repository)}"
            self.answer(200, {"commitUrl": url, "commitOid": sha(repository), "pullRequestUrl": None})
        else:
            self.answer(404)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if "/resolve/" in path:
            name, _, rest = path[1:].partition("/resolve/")
            commit, _, file = rest.partition("/")
            content = self.server.repositories.get(name, {}).get(file)
            if content is None:
                self.answer(404, X_Error_Code="EntryNotFound")
            else:
                etag = hashlib.sha256(content).hexdigest()
                self.answer(
                    200, content, ETag=f'"{etag}"', X_Repo_Commit=commit, Content_Type="application/octet-stream"
                )
            return
        parts = path.removeprefix("/api/models/").split("/")
        name, more = "/".join(parts[:2]), parts[2:]
        repository = self.server.repositories.get(name)
        if repository is None:
            self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif more[:1] == ["revision"] and more[1] not in ("main", sha(repository)):
            self.answer(404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound")
        elif more[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for p, c in repository.items()
            ]
            self.answer(200, tree)
        else:
            siblings = [{"rfilename": p} for p in repository]
            self.answer(
                200,
                {
                    "id": name,
                    "modelId": name,
                    "sha": sha(repository),
                    "siblings": siblings,
                    "private": name in self.server.private,
                },
            )

    do_HEAD = do_GET


def sha(repository: dict[str, bytes]) -> str:
    """Name a state of a repository as a commit."""
    return hashlib.sha1(b"".join(p.encode() + c for p, c in sorted(repository.items()))).hexdigest()


@contextlib.contextmanager
def hub(token: str | None = None) -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), Handler)
    server.repositories, server.private, server.token = {}, set(), token
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
