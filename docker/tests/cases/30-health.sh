# The health check is green when the final server answers over TCP and the
# snapshots are there, and at no other time.

case_not_healthy_while_scripts_run()
{
	mkdir -p "$work/slow"
	say 'touch /tmp/in-script; while [ ! -e /tmp/go-on ]; do sleep 0.1; done' >"$work/slow/slow.sh"
	chmod -R a+rX "$work/slow"
	fresh slow -v "$work/slow:/docker-entrypoint-initdb.d:ro"
	await 60 inside slow test -e /tmp/in-script || { logs slow; fail 'the script was not run'; }
	inside slow pg_isready -q -U postgres -d postgres || fail 'the temporary server does not answer on its socket'
	has "$(refused 'health' inside slow testenv-health)" 'the first start has not finished' 'the health check'
	has "$(refused 'TCP' inside slow pg_isready -h 127.0.0.1 -U postgres -d postgres)" 'no response' 'the temporary server over TCP'
	# docker itself has asked, and was told the same
	await 20 asked slow || fail 'docker did not ask'
	has_health slow starting || fail 'docker thinks otherwise'
	inside slow touch /tmp/go-on
	healthy slow
}
asked() { [ "$(inspect "$1" '{{len .State.Health.Log}}')" -gt 0 ]; }
asked_in_vain() { asked "$1" && [ "$(inspect "$1" '{{(index .State.Health.Log 0).ExitCode}}')" = 1 ]; }

# failing NAME: the first start with the scripts of $work/NAME ended badly, and
# the container that is started again is never healthy
failing()
{
	local name=$1 status
	chmod -R a+rX "$work/$name"
	fresh "$name" -v "$work/$name:/docker-entrypoint-initdb.d:ro"
	status=$(ended "$name")
	[ "$status" != 0 ] || fail 'the container ended well'
	figure "$name: exit status $status"
	docker start "$run-$name" >/dev/null
	# the official image's own idea of health
	await 60 inside "$name" pg_isready -q -h 127.0.0.1 -U postgres -d postgres || fail 'the server did not start again'
	await 20 asked_in_vain "$name" || fail 'docker found it healthy, or did not ask'
	has "$(refused 'health' inside "$name" testenv-health)" 'the first start has not finished' 'the health check'
	has "$(logs "$name")" 'the first start of this data directory did not finish' 'the log'
}

case_failing_script()
{
	mkdir -p "$work/sql" "$work/shell"
	say 'CREATE TABLE t (i int); SELECT 1 / 0;' >"$work/sql/bad.sql"
	failing sql
	has "$(logs sql)" 'division by zero' 'the error'
	say 'exit 7' >"$work/shell/bad.sh"
	failing shell
	is "$(inspect shell '{{.State.Running}}')" true 'still running'
}

# a failure in a further database's scripts, and of the snapshot itself
case_failing_later()
{
	mkdir -p "$work/later/b_test" "$work/blocked"
	say 'SELECT 1 / 0;' >"$work/later/b_test/bad.sql"
	chmod -R a+rX "$work/later"
	fresh later -e TESTENV_DATABASES=b_test -v "$work/later:/docker-entrypoint-initdb.d:ro"
	[ "$(ended later)" != 0 ] || fail 'the container ended well'
	has "$(logs later)" 'division by zero' 'the error'
	# a session that goes on holding a lock
	cat >"$work/blocked/lock.sh" <<-'SCRIPT'
	docker_process_sql -c 'CREATE TABLE t AS SELECT 1 AS i' -c "ALTER DATABASE app_test SET testenv.lock_timeout = '200ms'"
	(echo 'BEGIN; LOCK TABLE t;'; sleep 30) | psql -q -U postgres -d app_test &
	sleep 1
	SCRIPT
	failing blocked
	has "$(logs blocked)" 'other sessions hold locks' 'the error'
}

case_snapshot_gone()
{
	fresh gone
	healthy gone
	sql gone app_test "SELECT testenv_drop('default')" >/dev/null
	has "$(refused 'health' inside gone testenv-health)" 'snapshot "default" is not there' 'the health check'
	sql gone app_test 'SELECT testenv_snapshot()' >/dev/null
	inside gone testenv-health || fail 'not healthy with the snapshot taken again'
}

# replacing a snapshot takes a while; the health check must not wait for it
case_healthy_while_replaced()
{
	fresh replaced
	healthy replaced
	inside replaced psql -q -U postgres -d app_test -c 'BEGIN' -c 'SELECT testenv_snapshot()' -c 'SELECT pg_sleep(8)' -c COMMIT >/dev/null &
	await 10 sleeps replaced || fail 'no session sleeps'
	inside replaced timeout 4 testenv-health || fail 'not healthy meanwhile'
	wait
}
sleeps() { [ "$(sql "$1" postgres "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(8)' AND state = 'active'")" = 1 ]; }

# it asks once in a while for ever: nothing of that may fill the log
case_quiet()
{
	fresh quiet
	healthy quiet
	for _ in 1 2 3 4 5; do inside quiet testenv-health; done
	lacks "$(logs quiet)" 'FATAL' 'the log'
}
