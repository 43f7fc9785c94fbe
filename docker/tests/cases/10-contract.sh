# What the official image documents must still be true of ours.  Each case is one
# paragraph of its documentation.

case_data_is_kept()
{
	fresh kept
	healthy kept
	sql kept app_test 'CREATE TABLE t AS SELECT 1 AS i'
	docker stop "$run-kept" >/dev/null
	docker start "$run-kept" >/dev/null
	healthy kept
	is "$(sql kept app_test 'SELECT count(*) FROM t')" 1 'a row written before the restart'
	has "$(logs kept)" 'Skipping initialization' 'the second start'
	is "$(snapshots kept app_test)" 'default 0' 'the snapshot after the restart'
	serves kept app_test
}

case_scripts_of_every_kind()
{
	seeds "$work/scripts"
	fresh scripts -v "$work/scripts:/docker-entrypoint-initdb.d:ro"
	healthy scripts
	is "$(sql scripts app_test "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")" \
		'a b c d e zz' 'tables'
	# zz is the last one's: the snapshot came after all of them
	is "$(snapshots scripts app_test)" 'default 6' 'the snapshot'
	sql scripts app_test 'DELETE FROM a; DELETE FROM zz'
	sql scripts app_test 'SELECT testenv_restore()' >/dev/null
	is "$(sql scripts app_test 'SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM zz)')" '100|1' 'rows put back'
}

case_single_file_mounted()
{
	say 'CREATE TABLE single AS SELECT 1 AS i;' >"$work/single.sql"
	chmod 644 "$work/single.sql"
	fresh single -v "$work/single.sql:/docker-entrypoint-initdb.d/single.sql:ro"
	healthy single
	is "$(snapshots single app_test)" 'default 1' 'the snapshot'
}

case_custom_command()
{
	start command -e POSTGRES_PASSWORD=secret -e POSTGRES_DB=app_test "$image" postgres -c fsync=on -c max_connections=42 -p 5433
	healthy command
	is "$(inside command psql -p 5433 -U postgres -Atc 'SHOW fsync')" on 'fsync, off in our file'
	is "$(inside command psql -p 5433 -U postgres -Atc 'SHOW max_connections')" 42 'max_connections'
	is "$(inside command psql -p 5433 -U postgres -d app_test -Atc 'SELECT name FROM testenv_restore()')" default 'restore'
}

case_options_only()
{
	start options -e POSTGRES_PASSWORD=secret -e POSTGRES_DB=app_test "$image" -c wal_level=logical -c testenv.new_tables=error
	healthy options
	is "$(sql options app_test 'SHOW wal_level')" logical 'wal_level'
	is "$(sql options app_test "SELECT pg_create_logical_replication_slot('s', 'pgoutput') IS NOT NULL")" t 'a logical slot'
	is "$(sql options app_test 'SHOW testenv.new_tables')" error 'a setting of testenv'
	sql options app_test 'CREATE TABLE n (i int)'
	has "$(refused 'a new table' sql options app_test 'SELECT testenv_restore()')" 'was created' 'testenv.new_tables'
}

case_other_programs()
{
	is "$(docker run --rm --label "$label" "$image" echo hello)" hello 'echo'
	has "$(docker run --rm --label "$label" "$image" postgres --version)" 'postgres (PostgreSQL)' 'postgres --version'
	has "$(docker run --rm --label "$label" "$image" --version)" 'postgres (PostgreSQL)' '--version'
}

# entrypoints of others read the official one for its functions
case_sourced()
{
	local output
	output=$(docker run --rm --label "$label" "$image" bash -c \
		'source /usr/local/bin/docker-entrypoint.sh; declare -F docker_setup_env docker_create_db_directories docker_verify_minimum_env \
		docker_init_database_dir docker_setup_db docker_process_init_files docker_process_sql docker_temp_server_start docker_temp_server_stop _main; echo sourced only')
	has "$output" 'docker_temp_server_stop' 'functions'
	is "$(tail -n 1 <<<"$output")" 'sourced only' 'after it'
}

# as documented for such entrypoints: the first start with two script folders
case_own_entrypoint()
{
	cat >"$work/own-entrypoint.sh" <<-'SCRIPT'
	#!/usr/bin/env bash
	set -Eeo pipefail
	source /usr/local/bin/docker-entrypoint.sh
	docker_setup_env
	docker_create_db_directories
	if [ "$(id -u)" = 0 ]; then exec gosu postgres bash "$0" "$@"; fi
	if [ -z "$DATABASE_ALREADY_EXISTS" ]; then
		docker_verify_minimum_env
		docker_init_database_dir
		pg_setup_hba_conf "$@"
		export PGPASSWORD=$POSTGRES_PASSWORD
		docker_temp_server_start "$@"
		docker_setup_db
		docker_process_init_files /docker-entrypoint-initdb.d/*
		docker_process_init_files /more/*
		docker_temp_server_stop
	else
		docker_temp_server_start "$@"
		docker_process_init_files /always/*
		docker_temp_server_stop
	fi
	exec "$@"
	SCRIPT
	mkdir -p "$work/more" "$work/always"
	say 'CREATE TABLE more AS SELECT 1 AS i;' >"$work/more/more.sql"
	say 'INSERT INTO more VALUES (2);' >"$work/always/always.sql"
	chmod -R a+rX "$work/more" "$work/always" "$work/own-entrypoint.sh"
	start own -e POSTGRES_PASSWORD=secret -e POSTGRES_DB=app_test -v "$work/more:/more:ro" -v "$work/always:/always:ro" \
		-v "$work/own-entrypoint.sh:/own-entrypoint.sh:ro" --entrypoint bash "$image" /own-entrypoint.sh postgres
	healthy own
	is "$(snapshots own app_test)" 'default 1' 'the snapshot'
	docker stop "$run-own" >/dev/null
	docker start "$run-own" >/dev/null
	healthy own
	is "$(sql own app_test 'SELECT testenv_is_clean()')" f 'the row of the second start is not in the snapshot'
	is "$(sql own app_test 'SELECT count(*) FROM more')" 2 'rows'
}

case_variables_from_files()
{
	local address
	mkdir -p "$work/secrets"
	say 'from a file' >"$work/secrets/password"
	say 'alice' >"$work/secrets/user"
	say 'Files "Test"' >"$work/secrets/db"
	chmod -R a+rX "$work/secrets"
	start files -v "$work/secrets:/run/secrets:ro" -e POSTGRES_PASSWORD_FILE=/run/secrets/password \
		-e POSTGRES_USER_FILE=/run/secrets/user -e POSTGRES_DB_FILE=/run/secrets/db "$image"
	healthy files
	is "$(snapshots_of_alice)" 'default 0' 'the snapshot'
	address=$(address_of files)
	is "$(docker exec -e PGPASSWORD='from a file' "$run-files" psql -h "$address" -U alice -d 'Files "Test"' -Atc 'SELECT current_user')" alice 'login by password'
	has "$(refused 'a wrong password' docker exec -e PGPASSWORD=wrong "$run-files" psql -h "$address" -U alice -d 'Files "Test"' -c 'SELECT 1')" \
		'password authentication failed' 'login with a wrong one'
}
snapshots_of_alice() { sql files 'Files "Test"' "SELECT concat_ws(' ', name, tables) FROM testenv_snapshots()" alice; }

case_initdb_arguments()
{
	fresh arguments -e POSTGRES_INITDB_ARGS='--data-checksums --auth=scram-sha-256' -e POSTGRES_INITDB_WALDIR=/var/lib/postgresql/wal
	healthy arguments
	is "$(docker exec -e PGPASSWORD=secret "$run-arguments" psql -U postgres -Atc 'SHOW data_checksums')" on 'data checksums'
	is "$(inside arguments sh -c 'readlink $PGDATA/pg_wal')" /var/lib/postgresql/wal 'the folder of the WAL'
	has "$(refused 'no password' inside arguments psql -w -U postgres -c 'SELECT 1')" 'no password supplied' 'a password on the socket, too'
}

case_trust()
{
	start trust -e POSTGRES_HOST_AUTH_METHOD=trust -e POSTGRES_DB=app_test "$image"
	healthy trust
	is "$(inside trust psql -w -h "$(address_of trust)" -U postgres -Atc 'SELECT 1')" 1 'login without a password'
}

case_password_is_required()
{
	start nopassword -e POSTGRES_DB=app_test "$image"
	is "$(ended nopassword)" 1 'exit status'
	has "$(logs nopassword)" POSTGRES_PASSWORD 'the reason'
}

# uid and gid that no passwd file knows, and those of the server's own user
case_arbitrary_user()
{
	# a folder of the host: docker gives an empty volume to the image's own user
	mkdir "$work/user"
	give_user 1234:1234
	fresh user --user 1234:1234 -v "$work/user:$volume"
	healthy user
	is "$(inside user id -u)" 1234 'who runs it'
	serves user app_test
	docker rm --force "$run-user" >/dev/null
	give_user "$(id -u):$(id -g)"
	fresh named --user postgres
	healthy named
	serves named app_test
}

give_user() { docker run --rm --label "$label" -v "$work/user:/data" --entrypoint chown "$image" -R "$1" /data; }

case_read_only_root()
{
	fresh readonly --read-only --tmpfs /tmp --tmpfs /var/run/postgresql
	healthy readonly
	serves readonly app_test
}

case_data_directory_of_the_base()
{
	docker volume create --label "$label" "$run-existing" >/dev/null
	start before -e POSTGRES_PASSWORD=secret -e POSTGRES_DB=app_test -v "$run-existing:$volume" "$TESTENV_BASE"
	await 60 sql before app_test 'CREATE TABLE t AS SELECT 1 AS i' || fail 'the base did not start'
	# the temporary server of the first start answers on the socket, too
	await 60 inside before pg_isready -q -h 127.0.0.1 -U postgres -d postgres || fail 'the base did not start'
	docker stop "$run-before" >/dev/null
	docker start "$run-before" >/dev/null
	await 60 inside before pg_isready -q -h 127.0.0.1 -U postgres -d postgres || fail 'the base did not start again'
	docker stop "$run-before" >/dev/null
	fresh after -v "$run-existing:$volume"
	healthy after
	is "$(sql after app_test 'SELECT count(*) FROM t')" 1 'its rows'
	is "$(sql after app_test 'SHOW fsync')" on 'its settings'
	is "$(inside after sh -c 'ls $PGDATA | grep -c testenv || true')" 0 'files of ours in it'
	sql after app_test 'CREATE EXTENSION testenv; ALTER DATABASE app_test SET testenv.testing_mode = on'
	is "$(sql after app_test 'SELECT tables FROM testenv_snapshot()')" 1 'a snapshot, once it is asked for'
	sql after app_test 'DELETE FROM t'
	sql after app_test 'SELECT testenv_restore()' >/dev/null
	is "$(sql after app_test 'SELECT count(*) FROM t')" 1 'restored'
}

case_data_directory_for_the_base()
{
	docker volume create --label "$label" "$run-back" >/dev/null
	fresh ours -v "$run-back:$volume"
	healthy ours
	sql ours app_test 'CREATE TABLE t AS SELECT 1 AS i'
	docker stop "$run-ours" >/dev/null
	start theirs -e POSTGRES_PASSWORD=secret -v "$run-back:$volume" "$TESTENV_BASE"
	await 60 inside theirs pg_isready -q -h 127.0.0.1 -U postgres -d postgres || { logs theirs; fail 'the base does not start with it'; }
	is "$(sql theirs app_test 'SELECT count(*) FROM t')" 1 'its rows'
}

case_extensions_that_suites_use()
{
	local name
	start extensions -e POSTGRES_PASSWORD=secret -e POSTGRES_DB=app_test "$image" -c shared_preload_libraries=pg_stat_statements
	healthy extensions
	for name in pgcrypto pg_stat_statements uuid-ossp citext pg_trgm; do sql extensions app_test "CREATE EXTENSION \"$name\""; done
	is "$(sql extensions app_test "SELECT encode(digest('a', 'sha256'), 'hex')")" ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb pgcrypto
	is "$(sql extensions app_test "SELECT uuid_generate_v5(uuid_ns_dns(), 'example.org')")" aad03681-8b63-5304-89e0-8ca8f49461b5 uuid-ossp
	is "$(sql extensions app_test "SELECT 'A'::citext = 'a'::citext")" t citext
	is "$(sql extensions app_test "SELECT similarity('test', 'test')")" 1 pg_trgm
	is "$(sql extensions app_test "SELECT count(*) > 0 FROM pg_stat_statements")" t pg_stat_statements
	sql extensions app_test 'CREATE TABLE words (w citext PRIMARY KEY); CREATE INDEX ON words USING gin (w gin_trgm_ops); SELECT testenv_snapshot()' >/dev/null
	sql extensions app_test "INSERT INTO words SELECT 'word ' || i FROM generate_series(1, 100) i"
	sql extensions app_test 'SELECT testenv_restore()' >/dev/null
	is "$(sql extensions app_test "SELECT count(*) FROM words WHERE w LIKE '%word%'")" 0 'restored, with their types and indexes'
}
