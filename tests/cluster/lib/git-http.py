"""Serves the bare repositories of a folder over http, read-only, with git's
own CGI program. Those under /private/ want a user and a password.

Usage: git-http.py FOLDER ADDRESS PORT USER PASSWORD"""

import base64
import hmac
import http.server
import os
import subprocess
import sys

folder, address, port, user, password = sys.argv[1:6]
basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
ENV = {
    "PATH": os.environ["PATH"],
    "GIT_PROJECT_ROOT": folder,
    "GIT_HTTP_EXPORT_ALL": "1",
    # The folder may belong to another user than the one that serves it, and
    # nobody may push.
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "http.receivepack",
    "GIT_CONFIG_VALUE_1": "false",
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def serve(self):
        body = self.body()
        path, _, query = self.path.partition("?")
        if path == "/":
            return self.answer(200, b"git\n")
        if ".." in path.split("/"):
            return self.answer(400)
        given = self.headers.get("Authorization", "")
        if path.startswith("/private/") and not hmac.compare_digest(given, basic):
            return self.answer(401, headers=[("WWW-Authenticate", 'Basic realm="private"')])
        env = ENV | {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": self.client_address[0],
        }
        out = subprocess.run(["git", "http-backend"], input=body, stdout=subprocess.PIPE, env=env).stdout
        head, _, content = out.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n") if line]
        status = next((int(v.split()[0]) for n, v in headers if n == "Status"), 200)
        self.answer(status, content, [h for h in headers if h[0] not in ("Status", "Content-Length")])

    do_GET = do_POST = serve


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server((address, int(port)), Handler).serve_forever()
