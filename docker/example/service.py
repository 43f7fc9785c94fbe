# The example's service: orders of customers, over HTTP.
#
# Like many services it migrates at its start, and in a test environment it seeds
# as well.  The one thing that is new is the last statement of prepare(): the
# state that every test begins with is declared here.
#
#   GET /health, GET /customers, GET /orders, POST /orders {customer, item, cents}
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg2
import psycopg2.extras


def connect():
    # the libpq variables of the environment say where to
    connection = psycopg2.connect("")
    connection.autocommit = True
    return connection


def migrate(cursor):
    cursor.execute("CREATE TABLE IF NOT EXISTS migration (file text PRIMARY KEY)")
    for path in sorted(Path("migrations").glob("*.sql")):
        cursor.execute("SELECT 1 FROM migration WHERE file = %s", [path.name])
        if cursor.fetchone() is None:
            cursor.execute(path.read_text())
            cursor.execute("INSERT INTO migration VALUES (%s)", [path.name])


def seed(cursor):
    cursor.execute("SELECT count(*) FROM customer")
    if cursor.fetchone()[0] == 0:
        cursor.execute(
            """INSERT INTO customer (name, country)
               SELECT 'customer ' || i, (ARRAY['de', 'fr', 'jp', 'pl'])[i % 4 + 1] FROM generate_series(1, 1000) i"""
        )
        cursor.execute("INSERT INTO orders (customer, item, cents) SELECT id, 'first order', 100 * id FROM customer")


def prepare():
    started = time.monotonic()
    with connect().cursor() as cursor:
        migrate(cursor)
        seed(cursor)
        # autovacuum is off in the image: without this the planner knows nothing
        cursor.execute("ANALYZE")
        cursor.execute("SELECT tables, pages FROM testenv_snapshot()")
        tables, pages = cursor.fetchone()
    seconds = time.monotonic() - started
    print(f"migrated, seeded, snapshot of {tables} tables and {pages} pages taken: {seconds:.2f} s")


class Handler(BaseHTTPRequestHandler):
    def query(self, sql, arguments=()):
        # one connection for all requests, open while the tests restore
        with self.server.database.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(sql, arguments)
            return cursor.fetchall()

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {"status": "ok"})
        elif self.path in ("/customers", "/orders"):
            table = {"/customers": "customer", "/orders": "orders"}[self.path]
            self.answer(200, self.query(f"SELECT * FROM {table} ORDER BY id"))
        else:
            self.answer(404, {"error": "no such page"})

    def do_POST(self):
        if self.path != "/orders":
            self.answer(404, {"error": "no such page"})
            return
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            rows = self.query(
                "INSERT INTO orders (customer, item, cents) VALUES (%s, %s, %s) RETURNING *",
                [order["customer"], order["item"], order["cents"]],
            )
        except psycopg2.IntegrityError as error:
            self.answer(422, {"error": error.diag.message_primary})
            return
        self.answer(201, rows[0])

    def log_message(self, *arguments):
        pass


def main():
    prepare()
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler)
    server.database = connect()
    print(f"listening on port {server.server_port}")
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
