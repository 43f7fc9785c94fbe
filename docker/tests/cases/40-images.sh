# The images themselves: what ours adds to its base, what a build refuses, an
# image of one's own with the data baked in, and the extension's own tests.

size_of() { docker image inspect --format '{{.Size}}' "$1"; }

case_size()
{
	local added
	added=$(($(size_of "$image") - $(size_of "$TESTENV_BASE")))
	figure "$((added / 1024)) kB added"
	[ "$added" -lt 2000000 ] || fail "$added bytes are added"
	[ "$added" -gt 0 ] || fail 'nothing is added'
}

case_contract_of_the_image()
{
	local field
	for field in '{{json .Config.Entrypoint}}' '{{json .Config.Cmd}}' '{{json .Config.Env}}' '{{json .Config.Volumes}}' \
		'{{json .Config.ExposedPorts}}' '{{.Config.StopSignal}}' '{{.Config.User}}' '{{.Config.WorkingDir}}' '{{.Architecture}}'; do
		is "$(docker image inspect --format "$field" "$image")" "$(docker image inspect --format "$field" "$TESTENV_BASE")" "$field"
	done
	is "$(docker image inspect --format '{{json .Config.Healthcheck.Test}}' "$image")" '["CMD","testenv-health"]' 'the health check'
	is "$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$image")" \
		"$(sed -n "s/^default_version = '\(.*\)'/\1/p" "$checkout/testenv.control")" 'the version label'
	is "$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.licenses"}}' "$image")" PostgreSQL 'the licence label'
	is "$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.base.name"}}' "$image")" "$TESTENV_BASE" 'the base label'
	has "$(docker run --rm --label "$label" "$image" cat /usr/local/share/testenv/LICENSE)" 'PostgreSQL License' 'the licence'
	# the compiler and the headers stayed in the first stage
	is "$(docker run --rm --label "$label" "$image" bash -c 'command -v gcc make || true')" '' 'tools in the image'
}

case_no_architecture_is_named()
{
	# the stand-in under tests/ may: its server comes from a wheel
	is "$(cd "$checkout/docker" && grep -rnwiE 'x86_64|x86-64|amd64|aarch64|arm64' --include='*' --exclude-dir=tests . || true)" '' 'names of architectures'
}

# Without BuildKit, too: Debian 12's docker.io does so unless told otherwise.
case_builder_without_buildkit()
{
	DOCKER_BUILDKIT=0 docker build --quiet --build-arg BASE="$TESTENV_BASE" -f "$checkout/docker/Dockerfile" -t "testenv-test/plain:$run" "$checkout"
	is "$(docker run --rm --label "$label" "testenv-test/plain:$run" sha256sum /usr/local/bin/docker-entrypoint.sh /usr/local/lib/testenv/entrypoint.sh)" \
		"$(docker run --rm --label "$label" "$image" sha256sum /usr/local/bin/docker-entrypoint.sh /usr/local/lib/testenv/entrypoint.sh)" 'the same files'
}

# what others build on a base must fail where the base is not what it should be
case_foreign_base()
{
	local output
	mkdir -p "$work/foreign"
	printf 'ARG BASE\nFROM ${BASE}\nRUN sed -i "s/^if ! _is_sourced/if true \\&\\& ! _is_sourced/" /usr/local/bin/docker-entrypoint.sh\n' >"$work/foreign/Dockerfile"
	docker build --quiet --build-arg BASE="$TESTENV_BASE" -t "testenv-test/foreign:$run" "$work/foreign" >/dev/null
	output=$(refused 'a build' docker build --build-arg BASE="testenv-test/foreign:$run" -f "$checkout/docker/Dockerfile" "$checkout")
	has "$output" "does not have the line" 'the reason'
	output=$(refused 'a build' docker build --build-arg BASE="$TESTENV_BASE" --build-arg TESTENV_VERSION=9.9.9 -f "$checkout/docker/Dockerfile" "$checkout")
	has "$output" 'the sources are not version 9.9.9' 'the reason'
}

# The recipe of docker/bake, as it is.
case_baking()
{
	local from first third
	docker build --build-arg IMAGE="$image" -t "testenv-test/baked:$run" "$checkout/docker/bake"
	from=$(now)
	start baked "testenv-test/baked:$run"
	await 60 inside baked pg_isready -q -h 127.0.0.1 -U postgres -d app_test || { logs baked; fail 'it does not serve'; }
	figure "serves after $(seconds_since "$from")"
	healthy baked
	lacks "$(logs baked)" 'running /docker-entrypoint-initdb.d' 'a first start'
	is "$(snapshots baked app_test)" 'default 2' 'the snapshot'
	is "$(sql baked app_test 'SELECT testenv_is_clean()')" t 'clean from the start'
	sql baked app_test 'DELETE FROM purchase WHERE id <= 10'
	first=$(sql baked app_test 'SELECT round(elapsed_ms::numeric, 1) FROM testenv_restore()')
	is "$(sql baked app_test 'SELECT count(*) FROM purchase')" 100000 'rows after the first restore'
	for _ in 2 3; do
		sql baked app_test 'DELETE FROM purchase WHERE id <= 10'
		third=$(sql baked app_test 'SELECT round(elapsed_ms::numeric, 1) FROM testenv_restore()')
	done
	figure "first restore $first ms, third $third ms"
	is "$(sql baked app_test 'SELECT testenv_is_clean()')" t 'clean at the end'
	is "$(docker exec -e PGPASSWORD=only-for-tests "$run-baked" psql -h "$(address_of baked)" -U postgres -d app_test -Atc 'SELECT 1')" 1 'login by the baked password'
	# it was for the build: a container needs none
	lacks "$(inside baked env)" 'POSTGRES_PASSWORD' 'the environment'
}

case_baking_into_a_volume()
{
	local output
	mkdir -p "$work/volume" "$work/broken"
	printf 'ARG IMAGE\nFROM ${IMAGE}\nENV POSTGRES_DB=app_test\nRUN POSTGRES_PASSWORD=x testenv-bake\n' >"$work/volume/Dockerfile"
	output=$(refused 'a build' docker build --build-arg IMAGE="$image" "$work/volume")
	has "$output" 'where the base image has a volume' 'the reason'
	# a seed that fails must fail the build
	printf 'ARG IMAGE\nFROM ${IMAGE}\nENV PGDATA=/baked POSTGRES_DB=app_test\nRUN echo "SELECT 1 / 0;" >/docker-entrypoint-initdb.d/a.sql && POSTGRES_PASSWORD=x testenv-bake\n' >"$work/broken/Dockerfile"
	output=$(refused 'a build' docker build --build-arg IMAGE="$image" "$work/broken")
	has "$output" 'testenv-bake: the first start failed' 'the reason'
}

# The suite of sql/ in a container of our image.  It creates the extension by
# itself, and its expected files are those of a cluster with C locale and with
# checksums.
case_regression_tests()
{
	local output status=0
	mkdir -p "$work/regress"
	cp -r "$checkout"/{Makefile,testenv.control,extension,sql,expected} "$work/regress/"
	docker build --quiet --build-arg IMAGE="$image" -f "$checkout/docker/tests/regress.Dockerfile" -t "testenv-test/regress:$run" "$work/regress" >/dev/null
	start regress -e POSTGRES_PASSWORD=secret -e POSTGRES_INITDB_ARGS='--no-locale --encoding=UTF8 --data-checksums' "testenv-test/regress:$run"
	healthy regress
	sql regress template1 'DROP EXTENSION testenv'
	output=$(docker exec -e PGUSER=postgres "$run-regress" bash -c 'make -s PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config ISOLATION= installcheck' 2>&1) || status=$?
	printf '%s\n' "$output"
	if [ "$status" != 0 ]; then
		inside regress cat /regress/regression.diffs || true
		fail 'make installcheck in the container'
	fi
	figure "$(grep -cE '^(ok +[0-9]|test .*\.\.\. ok )' <<<"$output") files of sql/"
	is "$(grep -cE '^(ok +[0-9]|test .*\.\.\. ok )' <<<"$output")" "$(find "$checkout/sql" -name '*.sql' | wc -l)" 'files passed'
}

# No Alpine base can be had here: that the sources compile against its C library
# is what can be shown of Dockerfile.alpine.
case_compiles_with_musl()
{
	local file headers
	command -v musl-gcc >/dev/null || apt_install_here musl-tools
	docker build --target build --quiet --build-arg BASE="$TESTENV_BASE" -f "$checkout/docker/Dockerfile" -t "testenv-test/build:$run" "$checkout" >/dev/null
	docker run --rm --label "$label" "testenv-test/build:$run" bash -c 'tar -cC / build/extension usr/include/postgresql' | tar -xC "$work"
	headers=$(dirname "$(find "$work/usr/include/postgresql" -name postgres.h)")
	for file in "$work"/build/extension/*.c; do
		musl-gcc -fsyntax-only -Wall -Werror -fPIC -D_GNU_SOURCE -isystem "$headers" "$file"
	done
	figure "$(find "$work/build/extension" -name '*.c' | wc -l) files"
}
apt_install_here() { (. "$checkout/.ci/apt.sh" && apt_install "$@"); }
