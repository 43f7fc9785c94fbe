# pytest-postgresql's reset: what its fixture does between two tests, through its
# own DatabaseJanitor.  The session of the test has been closed by then, as the
# fixture closes it.
#
#   pytest_postgresql_peer.py DATABASE TEMPLATE
import importlib.metadata
import os
import sys

from pytest_postgresql.janitor import DatabaseJanitor


def main():
    database, template = sys.argv[1:]
    janitor = DatabaseJanitor(
        user=os.environ["PGUSER"], host=os.environ["PGHOST"], port=os.environ["PGPORT"], dbname=database, template_dbname=template)
    print("ready", importlib.metadata.version("pytest-postgresql"), flush=True)
    for _ in sys.stdin:
        try:
            janitor.drop()
            janitor.init()
            print("ok", flush=True)
        except Exception as problem:
            print("error:", str(problem).splitlines()[0], flush=True)


main()
