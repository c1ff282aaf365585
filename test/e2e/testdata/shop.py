"""A tier of the end-to-end story: HTTP in, PostgreSQL and Redis out."""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2.pool
import redis

port, database, cache = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rows = psycopg2.pool.ThreadedConnectionPool(1, 20, database)
kept = redis.Redis(port=cache)


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        number = int(self.path.rsplit("/", 1)[1])
        c = rows.getconn()
        with c.cursor() as cursor:
            cursor.execute("SELECT name FROM items WHERE id = %s AND secret <> 'hunter2-in-sql'", (number,))
            name = cursor.fetchone()
        c.commit()
        rows.putconn(c)
        kept.incr("seen:%d" % number)
        body = json.dumps(name).encode()
        self.send_response(200 if name else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Shop).serve_forever()
