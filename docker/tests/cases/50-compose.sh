# The compose example, as people run it, and two runs of it at once.

# example ID: runs it to its end; the tests' exit status, output in $work/compose-ID
example()
{
	compose "$1" -f "$checkout/docker/compose.ci.yml" up --no-build --no-color --exit-code-from tests >"$work/compose-$1" 2>&1
}

build_example()
{
	docker image inspect "testenv-test/example:$run" >/dev/null 2>&1 ||
		docker build --quiet --build-arg BASE="$TESTENV_DEBIAN" -t "testenv-test/example:$run" "$checkout/docker/example" >/dev/null
}

# with its port, and until the service is ready: what a developer waits for
case_compose()
{
	local from address status=0
	build_example
	from=$(now)
	compose "${run}a" up --no-build --detach --wait db service
	figure "service ready after $(seconds_since "$from")"
	address=$(compose "${run}a" port db 5432)
	has "$address" '127.0.0.1:' 'the published port'
	is "$(compose "${run}a" exec -T db psql -U postgres -d "app_test_${run}a" -Atc "SELECT name, tables FROM testenv_snapshots()")" 'default|4' 'the snapshot that the service took'
	has "$(compose "${run}a" exec -T db df /var/lib/postgresql/data)" tmpfs 'where the data lies'
	from=$(now)
	compose "${run}a" run --rm --no-deps tests >"$work/tests" 2>&1 || status=$?
	cat "$work/tests"
	is "$status" 0 'exit status of the tests'
	has "$(cat "$work/tests")" 'Ran 9 tests' 'the tests'
	figure "tests $(seconds_since "$from")"
	# without the restore they fail: they show what they are said to show
	status=0
	compose "${run}a" exec -T db psql -q -U postgres -d "app_test_${run}a" -c \
		"ALTER FUNCTION testenv_restore(text, boolean) RENAME TO kept_restore" -c "CREATE FUNCTION testenv_restore() RETURNS void LANGUAGE sql AS ''"
	compose "${run}a" run --rm --no-deps tests >"$work/tests" 2>&1 || status=$?
	is "$status" 1 'exit status of the tests without a restore'
	has "$(cat "$work/tests")" 'FAILED (failures=' 'the tests without a restore'
	compose "${run}a" down --volumes --timeout 1
}

case_two_runs_at_once()
{
	local one two
	build_example
	example "${run}a" & one=$!
	example "${run}b" & two=$!
	wait "$one" || { cat "$work/compose-${run}a"; fail 'the first run'; }
	wait "$two" || { cat "$work/compose-${run}b"; fail 'the second run'; }
	has "$(cat "$work/compose-${run}a")" 'Ran 9 tests' 'the first run'
	has "$(cat "$work/compose-${run}b")" 'Ran 9 tests' 'the second run'
	lacks "$(cat "$work/compose-${run}a")" "${run}b" 'the first run'
	compose "${run}a" down --volumes --timeout 1
	compose "${run}b" down --volumes --timeout 1
	is "$(docker ps --all --quiet --filter "label=com.docker.compose.project=testenv-${run}a" | wc -l)" 0 'containers left'
}

# compose.ci.yml publishes nothing and builds nothing
case_compose_for_ci()
{
	local config
	config=$(compose "${run}a" -f "$checkout/docker/compose.ci.yml" config)
	lacks "$config" 'host_ip' 'ports'
	lacks "$config" 'dockerfile' 'builds'
	# compose.yml alone does both
	config=$(compose "${run}a" config)
	has "$config" 'host_ip: 127.0.0.1' 'the port of compose.yml'
	has "$config" 'dockerfile' 'builds of compose.yml'
}
