"""What takes the snapshot and puts it back.

Testenv is the extension.  The two others exist to try the fuzzer itself:
Template restores by dropping the database and cloning it from a template, which is
exact by construction, so every difference reported under it is a mistake of the
fuzzer; Nothing restores nothing, so a round that passes under it compared too little.
"""
from session import Failure, Session, SqlError


class Testenv:
    sessions_stay = True    # sessions stay connected over a restore
    restores = True

    def __init__(self, state, check):
        self.state = state
        self.check = check
        self.calls = 0
        self.since = None       # the server's time when the last snapshot or restore began

    def prepare(self, session):
        session.run("CREATE EXTENSION testenv")
        for setting in ("testenv.testing_mode = on", "testenv.lock_timeout = '2s'",
                        f"testenv.check_detector = {'on' if self.check else 'off'}"):
            session.run(f"ALTER DATABASE {self.state.dbname} SET {setting}")

    def snapshot(self, session, name):
        self.since = session.value("SELECT clock_timestamp()::text")
        return session.run(f"SELECT * FROM testenv_snapshot('{name}')")

    def restore(self, session, name=None, terminate=False, as_text=False):
        """Returns (snapshot, tables, sequences, pages, milliseconds)."""
        # mostly the detector that has more ways to be wrong
        self.calls += 1
        session.run(f"SET testenv.detector = {('wal', 'auto', 'wal', 'wal', 'look')[self.calls % 5]}")
        arguments = []
        if name is not None or terminate:
            arguments.append("NULL" if name is None else f"'{name}'")
        if terminate:
            arguments.append("terminate => true")
        call = f"testenv_restore({', '.join(arguments)})"
        columns = f"{call}::text" if as_text else "name, tables, sequences, pages, elapsed_ms"
        row = session.run(f"SELECT {columns}, statement_timestamp()::text{'' if as_text else f' FROM {call}'}")[0]
        self.since = row[-1]
        if not as_text:
            return row[:-1]
        fields = row[0].strip("()").split(",")
        return (fields[0].strip('"'), int(fields[1]), int(fields[2]), int(fields[3]), float(fields[4]))

    def is_clean(self, session, name=None):
        return session.value(f"SELECT testenv_is_clean({'' if name is None else repr(name)})")

    def drop(self, session, name):
        session.run(f"SELECT testenv_drop('{name}')")

    def close(self):
        pass


class Nothing(Testenv):
    restores = False

    def prepare(self, session):
        pass

    def snapshot(self, session, name):
        """What the extension promises of a snapshot: frozen tables, sequences without values logged ahead."""
        if session.in_transaction():
            session.run("COMMIT")
        session.run("VACUUM (FREEZE, ANALYZE)")
        # VACUUM leaves pages unfrozen that were added and never initialised
        for (table,) in session.run("""SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'm') AND oid >= 16384
                AND relpersistence <> 't' AND relam = (SELECT oid FROM pg_am WHERE amname = 'heap')
                AND (SELECT all_frozen FROM pg_visibility_map_summary(oid)) <> pg_relation_size(oid) / current_setting('block_size')::int"""):
            session.run(f"VACUUM (FULL) {table}")
            session.run(f"VACUUM (FREEZE) {table}")
        sequences = session.run("""SELECT format('%I.%I', schemaname, sequencename) FROM pg_sequences WHERE schemaname !~ '^pg_'""")
        for (sequence,) in sequences:
            session.run(f"SELECT setval('{sequence}', last_value, is_called) FROM {sequence}")

    def restore(self, session, name=None, terminate=False, as_text=False):
        return (name or "default", 0, 0, 0, 0.0)

    def is_clean(self, session, name=None):
        return True

    def drop(self, session, name):
        pass


class Template(Nothing):
    sessions_stay = False
    restores = True

    def __init__(self, state, check):
        super().__init__(state, check)
        self.taken = {}
        self.current = None

    def admin(self):
        return Session({**self.state.where, "dbname": "postgres"}, "admin", self.state.log)

    def snapshot(self, session, name):
        super().snapshot(session, name)
        session.close()
        self.state.disconnect()
        admin = self.admin()
        clone = self.taken.get(name, f"{self.state.dbname}_{name}")
        admin.run(f"DROP DATABASE IF EXISTS {clone}")
        admin.run(f"CREATE DATABASE {clone} TEMPLATE {self.state.dbname} STRATEGY file_copy")
        admin.close()
        self.taken[name] = clone
        self.current = name

    def restore(self, session, name=None, terminate=False, as_text=False):
        self.state.disconnect()
        self.current = name or self.current
        admin = self.admin()
        admin.run(f"DROP DATABASE {self.state.dbname} WITH (FORCE)")
        admin.run(f"CREATE DATABASE {self.state.dbname} TEMPLATE {self.taken[self.current]} STRATEGY file_copy")
        admin.close()
        return (self.current, 0, 0, 0, 0.0)

    def close(self):
        admin = self.admin()
        for clone in self.taken.values():
            admin.run(f"DROP DATABASE IF EXISTS {clone} WITH (FORCE)")
        admin.close()


ENGINES = {"testenv": Testenv, "template": Template, "nothing": Nothing}


def must(call, *arguments, **named):
    """Call into the engine where no error is expected."""
    try:
        return call(*arguments, **named)
    except SqlError as error:
        raise Failure(f"{call.__name__}: {error}") from error
