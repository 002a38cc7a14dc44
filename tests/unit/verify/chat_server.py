"""An OpenAI-compatible server for chat that plays its replies."""

import http.server
import json
import threading
from contextlib import contextmanager


class ChatServer(http.server.BaseHTTPRequestHandler):
    """Plays `replies`: a text, a text with its finish reason, or a status to fail with; `asked` has key and body."""

    replies: list = []
    asked: list = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.headers["Authorization"], body))
        reply = self.replies.pop(0)
        status = reply if isinstance(reply, int) else 200
        content, reason = reply if isinstance(reply, tuple) else (reply, "stop")
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        answer["choices"] = [
            {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": reason}
        ]
        sent = json.dumps(answer if status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_):
        pass


@contextmanager
def chat_server():
    """Serve during the block; yields the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ChatServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ChatServer.asked.clear()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
