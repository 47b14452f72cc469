"""Releases for tests/real/install.bats: serves a folder on a loopback port, with the faults that a path's first part
names. Prints the port, and every request as a line of the log."""

import http.server
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])
asked = {}


class Releases(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        fault, _, path = self.path.lstrip("/").partition("/")
        asked[self.path] = asked.get(self.path, 0) + 1
        file = folder / path.rsplit("/", 1)[-1]
        print("GET", self.path, file=sys.stderr, flush=True)
        if fault == "away" and asked[self.path] < 3:
            return self.send_error(503)
        if not file.is_file():
            return self.send_error(404)
        content = file.read_bytes()
        if fault == "elsewhere":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/" + path)
            return self.end_headers()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "corrupted":
            content = content[:40] + bytes([content[40] ^ 1]) + content[41:]
        if fault == "truncated":
            content = content[: len(content) // 2]
            self.close_connection = True
        self.wfile.write(content)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Releases)
print(server.server_port, flush=True)
server.serve_forever()
