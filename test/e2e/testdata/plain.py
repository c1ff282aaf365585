"""http.server as it comes: PORT (or a path: a Unix socket), LOG, protocol version, ADDRESS."""
import socketserver
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

where, log, version = sys.argv[1:4]
address = sys.argv[4] if len(sys.argv) > 4 else "127.0.0.1"
served = open(log, "a", buffering=1)


class Origin(BaseHTTPRequestHandler):
    protocol_version = version

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        found = not self.path.startswith("/none")
        body = b"x" * 1000
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_request(self, code="-", size="-"):
        served.write("%s %s\n" % (self.command, self.path))


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        return self.socket.accept()[0], ("local", 0)


if where.isdigit():
    ThreadingHTTPServer((address, int(where)), Origin).serve_forever()
UnixServer(where, Origin).serve_forever()
