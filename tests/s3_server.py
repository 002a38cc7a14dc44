"""A real S3 API for tests: moto's server behind a proxy that answers random requests with 503 or drops them."""

import http.client
import random
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class FaultyProxy(ThreadingHTTPServer):
    """Forwards requests to `target`. While `share` is above 0, that share of them fails, drawn by the seed."""

    daemon_threads = True

    def __init__(self, target: str, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.share = 0.0
        self.denied: set[str] = set()
        """Request methods that are answered with 403."""
        self.told: Counter[str] = Counter()
        self._draw = random.Random(seed)
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fate(self) -> str:
        with self._lock:
            fails = self._draw.random() < self.share
            fate = self._draw.choice(["503", "dropped"]) if fails else "passed"
            self.told[fate] += 1
            return fate


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def _answer(self) -> None:
        body = self._body()
        match self.server.fate():
            case "dropped":
                self.close_connection = True
                return
            case "503":
                self._send(503, [("Content-Type", "application/xml")], SLOW_DOWN)
                return
        if self.command in self.server.denied:
            self._send(403, [("Content-Type", "application/xml")], DENIED)
            return
        onward = http.client.HTTPConnection(self.server.target, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key.lower() != "transfer-encoding"}
        onward.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
        answer = onward.getresponse()
        content = answer.read()
        self._send(answer.status, answer.getheaders(), content)
        onward.close()

    def _send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for key, value in headers:
            if key.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif key.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(key, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer

    def log_message(self, *_: object) -> None:
        pass
