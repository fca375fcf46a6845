"""A stand-in for a model hub on loopback: what its client asks for when it downloads a repository, and the ways in which that fails."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """A repository: revision → file → content. The commit of a revision is a hash of its name."""

    revisions: dict[str, dict[str, bytes]]
    gated: bool = False
    offers: list[str] = field(default_factory=list)  # pull requests of the hub's own converter
    lost: set[str] = field(default_factory=set)  # files that are listed, and not there
    cut: dict[str, int] = field(default_factory=dict)  # file → bytes after which the connection breaks off, once each

    def commit(self, revision: str) -> str | None:
        commits = {commit_of(name): commit_of(name) for name in self.revisions}
        return commits.get(revision) or (commit_of(revision) if revision in self.revisions else None)

    def files(self, commit: str) -> dict[str, bytes]:
        return next(files for name, files in self.revisions.items() if commit_of(name) == commit)


def commit_of(revision: str) -> str:
    return hashlib.sha1(revision.encode()).hexdigest()


class Hub(ThreadingHTTPServer):
    def __init__(self, repositories: Mapping[str, Repository]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories = repositories
        self.asked: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.lock = threading.Lock()
        self.root = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A connection that the other side closed is no matter here."""


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.server.lock:
            self.server.asked[f"{self.command} {path}"] += 1
        parts = path.strip("/").split("/")
        api = parts[0] == "api"
        name = "/".join(parts[2:4] if api else parts[:2])
        repository = self.server.repositories.get(name)
        if repository is None:
            self.refuse(401, "RepoNotFound")
        else:
            self.answer_of(name, repository, "/".join(parts[4:] if api else parts[2:]))

    def answer_of(self, name: str, repository: Repository, rest: str) -> None:
        kind, _, rest = rest.partition("/")
        revision = next((r for r in self.revisions(repository) if rest == r or rest.startswith(f"{r}/")), None)
        if kind == "discussions":
            offers = [{"num": n, "title": "Adding safetensors", "status": "open", "isPullRequest": True,
                       "author": {"name": "SFconvertbot"}, "createdAt": "2023-01-01T00:00:00.000Z",
                       "repo": {"name": name, "type": "model"}} for n in repository.offers]  # fmt: skip
            self.send_json({"discussions": offers, "count": len(offers), "start": 0})
        elif revision is None or (commit := repository.commit(revision)) is None:
            self.refuse(404, "RevisionNotFound")
        elif kind == "revision":
            siblings = [{"rfilename": file} for file in repository.files(commit)]
            self.send_json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []})
        elif repository.gated:
            self.refuse(403, "GatedRepo")
        elif kind == "tree":
            listed = repository.files(commit).items()
            oids = {file: hashlib.sha1(content).hexdigest() for file, content in listed}
            self.send_json([{"type": "file", "path": f, "size": len(c), "oid": oids[f]} for f, c in listed])
        else:
            self.send_file(repository, commit, repository.files(commit), rest.removeprefix(f"{revision}/"))

    def refuse(self, code: int, reason: str) -> None:
        self.send(code, b"{}", {"X-Error-Code": reason, "X-Error-Message": reason})

    def revisions(self, repository: Repository) -> list[str]:
        names = [*repository.revisions, *map(commit_of, repository.revisions)]
        return sorted(names, key=len, reverse=True)

    def send_file(self, repository: Repository, commit: str, files: dict[str, bytes], name: str) -> None:
        if name not in files or name in repository.lost:
            self.refuse(404, "EntryNotFound")
            return
        content = files[name]
        start = 0
        if wanted := self.headers.get("Range"):
            self.server.ranges.append(f"{name} {wanted}")
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = repository.cut.pop(name, None) if self.command == "GET" else None
        self.send(206 if start else 200, content[start:], headers, cut)

    def send_json(self, document: Any) -> None:
        self.send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def send(self, code: int, body: bytes, headers: Mapping[str, str], cut: int | None = None) -> None:
        self.send_response(code)
        for key, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass
