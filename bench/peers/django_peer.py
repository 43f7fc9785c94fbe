# Django's reset: the _fixture_teardown of its TransactionTestCase, which calls
# its flush command, and then, for "seed", its _fixture_setup with
# serialized_rollback, which brings back what its test runner had serialized.
#
#   django_peer.py DATABASE TABLES flush|seed
import os
import sys

import django
from django.conf import settings


def configure(database, count):
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": database, "HOST": os.environ["PGHOST"],
                               "PORT": os.environ["PGPORT"], "USER": os.environ["PGUSER"]}},
        INSTALLED_APPS=["seeded"], SEEDED_TABLES=count, USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.AutoField")
    django.setup()


def make_case(way):
    from django.db import connection
    from django.test import TransactionTestCase

    class Case(TransactionTestCase):
        serialized_rollback = way == "seed"

        def test(self):
            pass

    if way == "seed":
        # as create_test_db(serialize=True) does
        connection._test_serialized_contents = connection.creation.serialize_db_to_string()
    return Case("test")


def root(problem):
    """Django wraps what the server said in errors of its own."""
    while problem.__cause__:
        problem = problem.__cause__
    return (str(problem).splitlines() or [repr(problem)])[0]


def main():
    database, count, way = sys.argv[1:]
    configure(database, int(count))
    case = make_case(way)
    print("ready", django.get_version(), flush=True)
    for _ in sys.stdin:
        try:
            case._fixture_teardown()
            if way == "seed":
                case._fixture_setup()
            print("ok", flush=True)
        except Exception as problem:
            print("error:", root(problem), flush=True)


main()
