"""A web server on loopback that can be told to misbehave."""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web(ThreadingHTTPServer):
    """Serves a directory; `breaks` and `asked` say what happens and what happened."""

    daemon_threads = True

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.breaks = []  # after how many bytes of a body the next connections break off
        self.asked = []  # (path, value of Range, status)
        self.tagged = True  # whether a version has a name
        self.moved = {}  # path → where it is now
        self.broken = {}  # path → status

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_GET(self):
        web, path = self.server, self.path.partition("?")[0]
        if path in web.moved:
            return self.say(302, {"Location": web.moved[path]})
        if path in web.broken:
            return self.say(web.broken[path], {})
        file = web.root / path.lstrip("/")
        if not file.is_file():
            return self.say(404, {})
        data = file.read_bytes()
        headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'} if web.tagged else {}
        wanted = self.headers.get("Range", "")
        same = self.headers.get("If-Range", "") == headers.get("ETag", "none")
        status, begin = 200, 0
        if wanted and same:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            if begin >= len(data):
                return self.say(416, {"Content-Range": f"bytes */{len(data)}"})
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        return self.say(status, headers, data[begin:])

    def say(self, status, headers, body=b""):
        self.server.asked.append((self.path, self.headers.get("Range", ""), status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if len(body) > 1000 and self.server.breaks:
            body = body[: self.server.breaks.pop(0)]
            self.close_connection = True
        self.wfile.write(body)


@contextmanager
def serving(root):
    """Give a running server of a directory."""
    web = Web(root)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        web.shutdown()
        web.server_close()
        thread.join()
