"""Connections of the fuzzer: every statement is logged, every error judged.

Random work runs into deadlocks, timeouts and constraint violations all the
time; those are SqlError and the work goes on.  What a server must never say,
whatever the work was, is Failure: internal errors and corruption (class XX),
file system errors (class 58), a lost connection, and mistakes of the
fuzzer's own SQL, which would otherwise hide as "normal" errors.
"""
import collections
import threading
import time

import psycopg2
from psycopg2 import extensions

# The fuzzer's own mistakes: syntax error, undefined column or function, wrong type
OWN_MISTAKES = {"42601", "42703", "42883", "42804", "42P18", "42702"}
# Two sessions that update one catalog row: stock PostgreSQL says so as XX000
TOLERATED = ("tuple concurrently updated", "tuple concurrently deleted")


class Failure(Exception):
    """Something that must never happen."""


class Differences(Failure):
    """The database is not what it was after the snapshot."""


class SqlError(Exception):
    """An error that random work may meet."""

    def __init__(self, error):
        super().__init__(str(error).strip())
        self.code = error.pgcode
        self.text = " ".join(filter(None, [error.diag.message_primary, error.diag.message_detail, error.diag.message_hint]))


class OpLog:
    """The statements of a round, in the order in which they were sent."""

    def __init__(self):
        self.lock = threading.Lock()
        self.codes = collections.Counter()
        self.statements = 0
        self.clear()

    def clear(self):
        with self.lock:
            self.entries = []
            self.began = time.monotonic()

    def add(self, sid, sql, once=False):
        entry = [time.monotonic() - self.began, sid, sql, "(running)"]
        with self.lock:
            self.statements += 1
            if not (once and self.entries and self.entries[-1][1:3] == entry[1:3]):
                self.entries.append(entry)
        return entry

    def count(self, code):
        with self.lock:
            self.codes[code] += 1

    def lines(self):
        with self.lock:
            return [f"{at * 1000:8.1f} {sid}: {sql} -- {outcome}" for at, sid, sql, outcome in self.entries]

    def summary(self):
        errors = ", ".join(f"{code} {n}" for code, n in self.codes.most_common(8))
        return f"{self.statements} statements, {sum(self.codes.values())} errors" + (f" ({errors})" if errors else "")


class Session:
    def __init__(self, where, sid, log):
        self.sid = sid
        self.log = log
        self.doomed = False     # somebody may end this session: losing it is no failure
        self.temp_rows = None   # rows in its temporary table, if it has one
        self.held_cursor = None
        self.rowcount = -1      # of the last statement
        self.label = None       # set: its statements are logged as this, once
        try:
            self.conn = psycopg2.connect(application_name=f"fuzz {sid}", **where)
        except psycopg2.OperationalError as error:
            raise Failure(f"{sid} cannot connect: {error}") from error
        self.conn.autocommit = True
        self.pid = self.conn.info.backend_pid

    def run(self, sql, data=None):
        """Run one statement; returns its rows, or None where it has none."""
        text = self.label or (sql if data is None else f"{sql} <<< {data.getvalue()!r}")
        entry = self.log.add(self.sid, text, once=self.label is not None)
        try:
            with self.conn.cursor() as cursor:
                if data is None:
                    cursor.execute(sql)
                else:
                    cursor.copy_expert(sql, data)
                rows = cursor.fetchall() if cursor.description else None
                self.rowcount = cursor.rowcount
                entry[3] = f"ok {cursor.rowcount}"
                return rows
        except psycopg2.Error as error:
            entry[3] = f"ERROR {error.pgcode} {str(error).strip()}"
            self.log.count(error.pgcode)
            raise self.judge(error, sql) from error

    def judge(self, error, sql):
        code = error.pgcode
        if code is None or self.conn.closed:
            if self.doomed:
                return SqlError(error)
            return Failure(f"{self.sid}: connection lost: {str(error).strip()}: {sql[:300]}")
        # an index by name, for a function that locks it later: REINDEX CONCURRENTLY may have dropped it
        gone = sql.startswith("SELECT brin_") and error.diag.message_primary.startswith("could not open relation with OID")
        tolerated = code == "XX000" and (error.diag.message_primary in TOLERATED or gone)
        if (code[:2] in ("XX", "58", "53") and not tolerated) or code in OWN_MISTAKES:
            return Failure(f"{self.sid}: {code} {str(error).strip()[:600]}: {sql[:300]}")
        return SqlError(error)

    def value(self, sql):
        return self.run(sql)[0][0]

    def attempt(self, sql, data=None):
        """Run a statement that may fail; says whether it did not."""
        try:
            self.run(sql, data)
            return True
        except SqlError:
            return False

    def status(self):
        return self.conn.info.transaction_status

    def in_transaction(self):
        return self.status() != extensions.TRANSACTION_STATUS_IDLE

    def usable(self):
        """In a transaction that can still do something."""
        return self.alive() and self.status() == extensions.TRANSACTION_STATUS_INTRANS

    def broken(self):
        """In a transaction that can only be rolled back."""
        return self.alive() and self.status() == extensions.TRANSACTION_STATUS_INERROR

    def settle(self):
        """Leave whatever transaction the session is in."""
        if not self.conn.closed and self.in_transaction():
            self.run("ROLLBACK")

    def alive(self):
        return not self.conn.closed

    def close(self):
        if not self.conn.closed:
            self.conn.close()
