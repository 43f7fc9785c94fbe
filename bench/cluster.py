# The throwaway cluster as the bench sees it: sessions, databases, settings.
#
# Every method is measured over the same driver and the same unix socket, with
# autocommit on, so that what differs is the reset and nothing around it.
import os
import shutil
import time

import psycopg2


class Session:
    """One connection.  run() sends a string of statements in one message."""

    def __init__(self, database):
        self.connection = psycopg2.connect(dbname=database)
        self.connection.autocommit = True
        self.cursor = self.connection.cursor()

    def run(self, sql):
        self.cursor.execute(sql)

    def rows(self, sql):
        self.cursor.execute(sql)
        return self.cursor.fetchall()

    def value(self, sql):
        return self.rows(sql)[0][0]

    def record(self, sql):
        """The one row of a query, as a dict: columns may come and go."""
        row = self.rows(sql)[0]
        return dict(zip((column.name for column in self.cursor.description), row))

    def close(self):
        self.connection.close()


def timed(session, sql):
    """Nanoseconds from sending a query to having all of its rows."""
    cursor = session.cursor
    start = time.perf_counter_ns()
    cursor.execute(sql)
    if cursor.description:
        cursor.fetchall()
    return time.perf_counter_ns() - start


class Cluster:
    def __init__(self, copy_dir):
        self.copy_dir = copy_dir
        self.admin = Session("postgres")
        self.made = set()

    def create(self, name):
        self.admin.run(f"CREATE DATABASE {name}")
        self.made.add(name)

    def clone(self, template, name):
        # the pages of a copy made by file_copy need not pass through the WAL;
        # this is setup, what is measured names its strategy itself
        self.admin.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        self.made.add(name)

    def drop(self, name):
        self.admin.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.made.discard(name)
        shutil.rmtree(os.path.join(self.copy_dir, name), ignore_errors=True)

    def drop_all(self):
        for name in sorted(self.made):
            self.drop(name)

    def set_fsync(self, on):
        """Changes the setting under way, with nothing left to be written that a
        measurement would then pay for."""
        self.admin.run("CHECKPOINT")
        if on:
            os.sync()
        self.admin.run(f"ALTER SYSTEM SET fsync = {'on' if on else 'off'}")
        self.admin.run("SELECT pg_reload_conf()")
        while self.admin.value("SHOW fsync") != ("on" if on else "off"):
            time.sleep(0.05)

    def settle(self):
        """What an earlier measurement left dirty is not the next one's to write."""
        self.admin.run("CHECKPOINT")

    def free_bytes(self):
        directory = self.admin.value("SHOW data_directory")
        usage = os.statvfs(directory)
        return usage.f_bavail * usage.f_frsize

    def settings(self):
        """What is not as the server ships it, without what only says where things are."""
        return self.admin.rows("""
            SELECT name, current_setting(name) FROM pg_settings
            WHERE source NOT IN ('default', 'override', 'client', 'environment variable')
              AND name NOT IN ('config_file', 'data_directory', 'hba_file', 'ident_file', 'unix_socket_directories',
                               'DateStyle', 'TimeZone', 'log_timezone', 'default_text_search_config', 'fsync',
                               'listen_addresses')
              AND name NOT LIKE 'lc\\_%'
            ORDER BY name""")

    def has_detector_setting(self):
        """testenv.detector is a setting of the builds that have two detectors."""
        session = Session("postgres")
        session.run("LOAD 'testenv'")
        found = session.value("SELECT count(*) FROM pg_settings WHERE name = 'testenv.detector'")
        session.close()
        return found == 1
