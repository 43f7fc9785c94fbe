# What our image adds at its first start: settings, the extension, databases, the
# snapshot, and what it refuses.

case_first_start()
{
	local from
	from=$(now)
	fresh first --tmpfs "$volume"
	healthy first
	figure "healthy after $(seconds_since "$from")"
	is "$(snapshots first app_test)" 'default 0' 'the snapshot'
	serves first app_test
	# Testcontainers waits for the second of two such lines
	is "$(logs first | grep -c 'database system is ready to accept connections')" 2 'ready lines'
	is "$(sql first app_test 'SELECT testenv_snapshot() IS NOT NULL')" t 'another snapshot'
	has "$(inside first testenv --version)" 'testenv' 'the program'
}

case_settings()
{
	fresh settings
	healthy settings
	is "$(sql settings app_test "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE sourcefile LIKE '%/testenv.conf'")" \
		'autovacuum=off checkpoint_timeout=3600 fsync=off full_page_writes=off synchronous_commit=off' 'from our file'
	is "$(sql settings app_test 'SHOW testenv.testing_mode')" on 'the guard'
	is "$(sql settings app_test "SELECT count(*) FROM pg_settings WHERE source = 'command line'")" 0 'settings on the command line'
	sql settings app_test 'ALTER SYSTEM SET fsync = on'
	sql settings app_test 'SELECT pg_reload_conf()' >/dev/null
	await 10 fsync_is_on settings || fail 'ALTER SYSTEM does not win'
}

fsync_is_on() { [ "$(sql "$1" app_test 'SHOW fsync')" = on ]; }

# scripts write to the end of postgresql.conf, or uncomment a line of it
case_settings_of_scripts()
{
	mkdir -p "$work/conf"
	cat >"$work/conf/settings.sh" <<-'SCRIPT'
	echo "autovacuum = on" >>"$PGDATA/postgresql.conf"
	sed -i 's/^#fsync = on/fsync = on/' "$PGDATA/postgresql.conf"
	SCRIPT
	chmod -R a+rX "$work/conf"
	fresh conf -v "$work/conf:/docker-entrypoint-initdb.d:ro"
	healthy conf
	is "$(sql conf app_test 'SHOW autovacuum')" on 'appended'
	is "$(sql conf app_test 'SHOW fsync')" on 'uncommented'
	is "$(sql conf app_test 'SHOW synchronous_commit')" off 'not mentioned'
}

# a config_file of the user's own does not include ours: the database has the
# setting then, so that the tests work
case_own_config_file()
{
	printf '%s\n' "listen_addresses = '*'" "unix_socket_directories = '/var/run/postgresql, /tmp'" 'max_connections = 33' >"$work/own.conf"
	chmod 644 "$work/own.conf"
	start config -e POSTGRES_PASSWORD=secret -e POSTGRES_DB=app_test -v "$work/own.conf:/etc/own.conf:ro" "$image" -c config_file=/etc/own.conf
	healthy config
	is "$(sql config app_test 'SHOW max_connections')" 33 'a setting of it'
	is "$(sql config app_test 'SHOW fsync')" on 'a setting of ours'
	serves config app_test
}

case_testing_mode_off()
{
	start off -e POSTGRES_PASSWORD=secret -e POSTGRES_DB=app_test "$image" -c testenv.testing_mode=off
	healthy off
	has "$(logs off)" 'no snapshot, as testenv.testing_mode is off' 'the log'
	is "$(snapshots off app_test)" '' 'snapshots'
	has "$(refused 'a snapshot' sql off app_test 'SELECT testenv_snapshot()')" 'testenv.testing_mode is off' 'the guard'
}

# the extension is in template1, so in what scripts and tests create
case_template()
{
	mkdir -p "$work/template"
	say 'CREATE DATABASE second_test;' >"$work/template/second.sql"
	chmod -R a+rX "$work/template"
	fresh template -v "$work/template:/docker-entrypoint-initdb.d:ro"
	healthy template
	sql template postgres 'CREATE DATABASE third_test'
	for database in second_test third_test; do
		is "$(sql template "$database" 'SELECT name FROM testenv_snapshot()')" default "a snapshot in $database"
		serves template "$database"
	done
	is "$(sql template postgres "SELECT count(*) FROM pg_extension WHERE extname = 'testenv'")" 0 'the extension in database postgres'
}

case_snapshot_named()
{
	fresh named -e TESTENV_SNAPSHOT='it'\''s "seeded"'
	healthy named
	is "$(snapshots named app_test)" 'it'\''s "seeded" 0' 'the snapshot'
}

case_snapshot_off()
{
	fresh none -e TESTENV_SNAPSHOT=off
	healthy none
	is "$(snapshots none app_test)" '' 'snapshots'
	is "$(sql none app_test 'SELECT name FROM testenv_snapshot()')" default 'one of the own'
}

case_further_databases()
{
	mkdir -p "$work/further/one_test" "$work/further/two-Test"
	say 'CREATE TABLE shared AS SELECT 1 AS i;' >"$work/further/shared.sql"
	say 'CREATE TABLE one AS SELECT 1 AS i; CREATE TABLE more AS SELECT 2 AS i;' >"$work/further/one_test/one.sql"
	say 'docker_process_sql -c "CREATE TABLE two AS SELECT current_database()"' >"$work/further/two-Test/two.sh"
	chmod -R a+rX "$work/further"
	fresh further -e TESTENV_DATABASES='one_test two-Test; three_test' -e TESTENV_SNAPSHOT=seeded -v "$work/further:/docker-entrypoint-initdb.d:ro"
	healthy further
	is "$(snapshots further app_test)" 'seeded 1' app_test
	is "$(snapshots further one_test)" 'seeded 2' one_test
	is "$(snapshots further two-Test)" 'seeded 1' two-Test
	is "$(sql further two-Test 'SELECT current_database FROM two')" two-Test 'where the script ran'
	is "$(snapshots further three_test)" 'seeded 0' three_test
	serves further one_test
	# the program reads the same list
	sql further one_test 'INSERT INTO one VALUES (2)'
	inside further testenv restore -U postgres
	is "$(sql further one_test 'SELECT count(*) FROM one')" 1 'rows after testenv restore'
	is "$(sql further two-Test 'SELECT testenv_is_clean()')" t 'another database'
}

# a development database beside the test database
case_development_database()
{
	mkdir -p "$work/dev/app_test"
	say 'CREATE TABLE precious AS SELECT 1 AS i;' >"$work/dev/precious.sql"
	say 'CREATE TABLE t AS SELECT 1 AS i;' >"$work/dev/app_test/t.sql"
	chmod -R a+rX "$work/dev"
	start dev -e POSTGRES_PASSWORD=secret -e POSTGRES_DB=app -e TESTENV_DATABASES='app_test app_dev' -v "$work/dev:/docker-entrypoint-initdb.d:ro" "$image"
	healthy dev
	has "$(logs dev)" 'database "app" is left alone: its name does not contain "test"' 'the log'
	has "$(logs dev)" 'database "app_dev" is left alone' 'the log'
	is "$(sql dev app "SELECT count(*) FROM pg_extension WHERE extname = 'testenv'")" 0 'the extension in app'
	is "$(sql dev app_dev "SELECT count(*) FROM pg_extension WHERE extname = 'testenv'")" 0 'the extension in app_dev'
	is "$(snapshots dev app_test)" 'default 1' 'the snapshot of app_test'
	serves dev app_test
	# not even when somebody asks for it
	sql dev app 'CREATE EXTENSION testenv'
	has "$(refused 'a snapshot of app' sql dev app 'SELECT testenv_snapshot()')" 'it is not a test database' 'the guard'
	is "$(sql dev app 'SELECT count(*) FROM precious')" 1 'its row'
}

case_not_a_test_database()
{
	start refused -e POSTGRES_PASSWORD=secret -e POSTGRES_DB=app -e TESTENV_SNAPSHOT=seeded "$image"
	is "$(ended refused)" 1 'exit status'
	is "$(logs refused | wc -l)" 1 'lines in the log'
	has "$(logs refused)" 'the name of database "app" (POSTGRES_DB) does not contain "test"' 'the reason'
	# POSTGRES_DB is POSTGRES_USER by default
	start refused2 -e POSTGRES_PASSWORD=secret -e TESTENV_SNAPSHOT=seeded "$image"
	is "$(ended refused2)" 1 'exit status'
	has "$(logs refused2)" '"postgres" (POSTGRES_DB)' 'the reason'
	# without it being asked for, such a server is as the official one
	start plain -e POSTGRES_PASSWORD=secret -e POSTGRES_DB=app "$image"
	healthy plain
	has "$(logs plain)" 'database "app" is left alone' 'the log'
}

case_name_too_long()
{
	fresh long -e TESTENV_SNAPSHOT="$(printf '%055d' 1)"
	is "$(ended long)" 1 'exit status'
	has "$(logs long)" 'longer than 54 bytes' 'the reason'
}

case_not_a_list_of_names()
{
	fresh list -e TESTENV_DATABASES='a_test,b_test'
	is "$(ended list)" 1 'exit status'
	has "$(logs list)" '"a_test,b_test" is not the name of a database' 'the reason'
}

case_unknown_variable()
{
	fresh unknown -e TESTENV_SNAPSHOTS=off -e TESTENV_SNAPSHOT=default
	healthy unknown
	is "$(logs unknown | grep -c 'unknown variable')" 1 'warnings'
	has "$(logs unknown)" 'unknown variable TESTENV_SNAPSHOTS' 'the warning'
}
