# What testenv adds to the official image's docker-entrypoint.sh, which reads
# this file just before it would start its work.
#
# The official functions are kept and called; five of them are wrapped, because
# their names are what the official image promises to those who write entrypoints
# of their own, and because a script in /docker-entrypoint-initdb.d would be
# hidden by a user's mount, and would not be the last one to run.
#
# state file: $PGDATA/testenv.state, "unfinished" from initdb until everything is
# done, then "ready" and a line for each snapshot.  It lies in the data directory
# because it says something about that: a container that starts again, or an
# image with a baked one, must find it.  No file: a data directory made elsewhere.

testenv_say() { printf 'testenv: %s\n' "$*"; }
testenv_refuse() { printf 'testenv: %s\n' "$*" >&2; exit 1; }

# testenv_keep FUNCTION: the official one gets the name official_FUNCTION
testenv_keep()
{
	local definition
	definition=$(declare -f "$1") || testenv_refuse "docker-entrypoint.sh has no function $1"
	eval "official_$definition"
}

# A file that is read twice must not wrap its own functions.
if ! declare -F official_docker_setup_env >/dev/null; then
	for testenv_function in docker_setup_env docker_verify_minimum_env docker_init_database_dir docker_setup_db docker_temp_server_stop; do
		testenv_keep "$testenv_function"
	done
	unset testenv_function
fi

# The extension refuses every other database.
testenv_is_test() { case ${1,,} in *test*) return 0 ;; *) return 1 ;; esac; }

# the databases of TESTENV_DATABASES, a line each; the program testenv splits a
# list of names in the same way
testenv_databases() { tr -s '; \t\r\n' '\n' <<<"${TESTENV_DATABASES:-}" | sed '/^$/d' | awk '!seen[$0]++'; }

# the name of the snapshot to take, nothing where none is wanted
testenv_snapshot_name()
{
	case ${TESTENV_SNAPSHOT:-default} in
	[oO][fF][fF]) ;;
	*) printf '%s\n' "${TESTENV_SNAPSHOT:-default}" ;;
	esac
}

# SQL in one database, whatever POSTGRES_DB is
testenv_sql()
{
	local database=$1
	shift
	POSTGRES_DB='' docker_process_sql --dbname "$database" --quiet --no-align --tuples-only "$@"
}

docker_setup_env()
{
	local name
	official_docker_setup_env
	# as root this is the first of two passes
	[ "$(id -u)" != 0 ] || return 0
	for name in $(compgen -e TESTENV_); do
		case $name in
		TESTENV_SNAPSHOT | TESTENV_DATABASES) ;;
		*) testenv_say "warning: unknown variable $name; TESTENV_SNAPSHOT and TESTENV_DATABASES are known" >&2 ;;
		esac
	done
	if [ -n "${DATABASE_ALREADY_EXISTS:-}" ] && [ -e "$PGDATA/testenv.state" ] && ! grep -qx ready "$PGDATA/testenv.state"; then
		testenv_say "warning: the first start of this data directory did not finish; it stays unhealthy, remove it and start again" >&2
	fi
}

docker_verify_minimum_env()
{
	local database
	official_docker_verify_minimum_env
	for database in $(testenv_databases); do
		case $database in
		*[,=/:]*) testenv_refuse "TESTENV_DATABASES: \"$database\" is not the name of a database; blanks separate names" ;;
		esac
	done
	case ${TESTENV_SNAPSHOT:-} in
	'' | [oO][fF][fF]) ;;
	*)
		testenv_is_test "$POSTGRES_DB" ||
			testenv_refuse "TESTENV_SNAPSHOT is set, but the name of database \"$POSTGRES_DB\" (POSTGRES_DB) does not contain \"test\": name a test database, or unset TESTENV_SNAPSHOT"
		[ "$(LC_ALL=C; echo "${#TESTENV_SNAPSHOT}")" -le 54 ] ||
			testenv_refuse "TESTENV_SNAPSHOT is longer than 54 bytes"
		;;
	esac
}

# The settings go to the top of postgresql.conf: whatever initdb, a script, or a
# user writes below, into postgresql.auto.conf or on the command line, wins.
docker_init_database_dir()
{
	local conf=$PGDATA/postgresql.conf
	official_docker_init_database_dir "$@"
	printf 'unfinished\n' >"$PGDATA/testenv.state"
	cp /usr/local/share/testenv/testenv.conf "$PGDATA/testenv.conf"
	{
		printf "# settings for testing; everything below, ALTER SYSTEM and the command line win\ninclude_if_exists 'testenv.conf'\n\n"
		cat "$conf"
	} >"$conf.testenv"
	# keeps owner and mode of the file
	cat "$conf.testenv" >"$conf"
	rm "$conf.testenv"
}

# Before the user's scripts, so that these can use the functions.  POSTGRES_DB is
# there already: it does not inherit from template1, so that a development
# database stays as it is.
docker_setup_db()
{
	official_docker_setup_db "$@"
	testenv_sql template1 --command 'CREATE EXTENSION testenv'
	if testenv_is_test "$POSTGRES_DB"; then testenv_prepare "$POSTGRES_DB"; fi
}

# The extension, and the setting where the server's configuration does not speak
# of it: the user's own config_file does not include ours.
testenv_prepare()
{
	local database=$1 mode
	testenv_sql "$database" --command 'SET client_min_messages = warning' --command 'CREATE EXTENSION IF NOT EXISTS testenv'
	mode=$(testenv_sql "$database" --command "SELECT coalesce(current_setting('testenv.testing_mode', true), '')")
	if [ -z "$mode" ]; then
		testenv_sql "$database" --set database="$database" <<<'ALTER DATABASE :"database" SET testenv.testing_mode = on;'
	fi
}

# After all of the user's scripts: the further databases, then the snapshots.
docker_temp_server_stop()
{
	# an entrypoint of somebody's own may start the temporary server on later starts
	if [ -z "${DATABASE_ALREADY_EXISTS:-}" ] && [ -e "$PGDATA/testenv.state" ] && grep -qx unfinished "$PGDATA/testenv.state"; then
		testenv_finish
	fi
	official_docker_temp_server_stop "$@"
}

testenv_finish()
{
	local database state=$PGDATA/testenv.state.new
	local -a databases
	mapfile -t databases < <(testenv_databases)
	for database in "${databases[@]}"; do testenv_create "$database"; done
	{
		echo ready
		printf 'user\t%s\n' "$POSTGRES_USER"
	} >"$state"
	testenv_take "$POSTGRES_DB" "$state"
	for database in "${databases[@]}"; do
		[ "$database" = "$POSTGRES_DB" ] || testenv_take "$database" "$state"
	done
	# at once, or not at all
	mv "$state" "$PGDATA/testenv.state"
}

# testenv_create DATABASE: with the scripts of the folder of its name
testenv_create()
{
	local database=$1 there
	there=$(testenv_sql postgres --set database="$database" <<<"SELECT 1 FROM pg_database WHERE datname = :'database'")
	(
		export POSTGRES_DB=$database
		# the official one, as ours has done its part; a database that exists is kept
		official_docker_setup_db
		if testenv_is_test "$database"; then
			testenv_prepare "$database"
		elif [ -z "$there" ]; then
			# it came with template1, but such a database is left alone
			testenv_sql "$database" --command 'SET client_min_messages = warning' --command 'DROP EXTENSION IF EXISTS testenv'
		fi
		if compgen -G "/docker-entrypoint-initdb.d/$database/*" >/dev/null; then
			docker_process_init_files "/docker-entrypoint-initdb.d/$database"/*
		fi
	)
}

# testenv_take DATABASE STATE: the snapshot, and a line about it.  With the
# statistics that autovacuum, which is off, would have gathered; a table that a
# script's session has left locked is the snapshot's to report.
testenv_take()
{
	local database=$1 state=$2 name mode
	name=$(testenv_snapshot_name)
	if ! testenv_is_test "$database"; then
		testenv_say "database \"$database\" is left alone: its name does not contain \"test\""
		return
	fi
	if [ -z "$name" ]; then
		testenv_say "database \"$database\": no snapshot, as TESTENV_SNAPSHOT is off"
		return
	fi
	# a script may have replaced the database
	testenv_prepare "$database"
	mode=$(testenv_sql "$database" --command "SELECT current_setting('testenv.testing_mode', true)::boolean")
	if [ "$mode" != t ]; then
		testenv_say "database \"$database\": no snapshot, as testenv.testing_mode is off"
		return
	fi
	testenv_sql "$database" --set name="$name" <<-'SQL'
		ANALYZE (SKIP_LOCKED);
		SELECT format('testenv: database "%s": snapshot "%s", %s tables, %s kB, %s ms', current_database(), name, tables, bytes / 1024, round(elapsed_ms))
		FROM testenv_snapshot(:'name');
	SQL
	printf 'snapshot\t%s\t%s\n' "$database" "$name" >>"$state"
}
