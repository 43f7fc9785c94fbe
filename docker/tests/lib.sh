# What the cases have in common: images, containers, questions, comparisons.  To
# be sourced by run.sh.
#
# Everything that a run makes carries its name, so that two runs on one daemon do
# not meet and each removes its own things only.

run=${TESTENV_RUN:-run$$}
image=testenv-test/image:$run
label=testenv-test=$run

# as every newer docker does by itself
export DOCKER_BUILDKIT=1

say() { printf '%s\n' "$*"; }
fail() { printf 'failed: %s\n' "$*"; exit 1; }

# is GOT WANTED WHAT
is() { [ "$1" = "$2" ] || fail "$3: got \"$1\", wanted \"$2\""; }

# has TEXT PIECE WHAT
has() { case $1 in *"$2"*) ;; *) printf '%s\n' "$1" | tail -n 40; fail "$3: there is no \"$2\"" ;; esac; }
lacks() { case $1 in *"$2"*) printf '%s\n' "$1" | tail -n 40; fail "$3: there is \"$2\"" ;; *) ;; esac; }

# refused WHAT COMMAND ...: its output, where it fails as it should
refused()
{
	local what=$1 output
	shift
	if output=$("$@" 2>&1); then
		printf '%s\n' "$output" >&2
		fail "$what was not refused" >&2
	fi
	printf '%s\n' "$output"
}

figure() { printf '%s\n' "$*" >>"$work/figures"; }
now() { date +%s%N; }
# seconds_since NANOSECONDS
seconds_since() { awk -v ns=$(($(now) - $1)) 'BEGIN { printf "%.1f s", ns / 1e9 }'; }

# an address of the container that is not the loopback, where a password is asked
address_of() { inside "$1" hostname -i | cut -d' ' -f1; }

build_images()
{
	local from
	from=$(now)
	docker build --quiet --build-arg BASE="$TESTENV_BASE" -f "$checkout/docker/Dockerfile" -t "$image" "$checkout" >/dev/null
	# 18 has its volume elsewhere
	volume=$(docker image inspect --format '{{range $path, $nothing := .Config.Volumes}}{{$path}}{{end}}' "$TESTENV_BASE")
	printf -- '-- image built: %s\n' "$(seconds_since "$from")"
}

# start NAME [docker run's arguments ... IMAGE COMMAND ...]
start()
{
	local name=$1
	shift
	docker run --detach --name "$run-$name" --label "$label" "$@" >/dev/null
}

# fresh NAME [docker run's options ...]: our image with the two usual variables
fresh()
{
	local name=$1
	shift
	start "$name" -e POSTGRES_PASSWORD=secret -e POSTGRES_DB=app_test "$@" "$image"
}

inspect() { docker inspect --format "$2" "$run-$1"; }
logs() { docker logs "$run-$1" 2>&1; }
inside() { local name=$1; shift; docker exec -i "$run-$name" "$@"; }

# sql NAME DATABASE QUERY [USER]: over the socket
sql() { inside "$1" psql --quiet --no-align --tuples-only --no-psqlrc -v ON_ERROR_STOP=1 -U "${4:-postgres}" -d "$2" -c "$3"; }

# await SECONDS COMMAND ...
await()
{
	local left=$(($1 * 10))
	shift
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		[ "$left" -gt 0 ] || return 1
		sleep 0.1
	done
}

has_health() { [ "$(inspect "$1" '{{.State.Health.Status}}')" = "$2" ]; }
has_ended() { [ "$(inspect "$1" '{{.State.Running}}')" = false ]; }
healthy_or_ended() { has_health "$1" healthy || has_ended "$1"; }

# as docker itself sees it
healthy()
{
	await 90 healthy_or_ended "$1" || true
	has_health "$1" healthy || { logs "$1" | tail -n 50; inspect "$1" '{{json .State}}'; fail "$1 did not become healthy"; }
}

# ended NAME: prints the exit status
ended()
{
	await 90 has_ended "$1" || { logs "$1" | tail -n 50 >&2; fail "$1 did not end" >&2; }
	inspect "$1" '{{.State.ExitCode}}'
}

# serves NAME DATABASE: a change is put back, and what was seeded is still there
serves()
{
	sql "$1" "$2" 'CREATE TABLE IF NOT EXISTS made_later (i int)'
	sql "$1" "$2" 'INSERT INTO made_later VALUES (1)'
	is "$(sql "$1" "$2" 'SELECT testenv_is_clean()')" f "changed"
	sql "$1" "$2" "SELECT testenv_restore()" >/dev/null
	is "$(sql "$1" "$2" 'SELECT count(*) FROM made_later')" 0 "restored"
	is "$(sql "$1" "$2" 'SELECT testenv_is_clean()')" t "clean"
}

# snapshots NAME DATABASE: "name tables", a line each
snapshots() { sql "$1" "$2" "SELECT concat_ws(' ', name, tables) FROM testenv_snapshots() ORDER BY name"; }

# seeds FOLDER: a script of every kind that the official image reads
seeds()
{
	local dir=$1
	mkdir -p "$dir"
	say "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 100);" >"$dir/10-a.sql"
	say "CREATE TABLE b (id int); INSERT INTO b VALUES (1);" | gzip >"$dir/20-b.sql.gz"
	say "CREATE TABLE c (id int); INSERT INTO c VALUES (1);" | xz >"$dir/30-c.sql.xz"
	printf '#!/bin/bash\nset -e\npsql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "CREATE TABLE d AS SELECT 1 AS id"\n' >"$dir/40-d.sh"
	chmod 755 "$dir/40-d.sh"
	say 'docker_process_sql -c "CREATE TABLE zz AS SELECT 1 AS id"' >"$dir/zz-last.sh"
	chmod 644 "$dir/zz-last.sh"
	if command -v zstd >/dev/null; then
		say "CREATE TABLE e (id int); INSERT INTO e VALUES (1);" | zstd -q >"$dir/50-e.sql.zst"
	else
		say "CREATE TABLE e (id int);" >"$dir/50-e.sql"
	fi
	chmod -R a+rX "$dir"
}

remove_containers()
{
	docker ps --all --quiet --filter "label=$label" | xargs -r docker rm --force --volumes >/dev/null 2>&1 || true
	docker volume ls --quiet --filter "label=$label" | xargs -r docker volume rm --force >/dev/null 2>&1 || true
}

# compose's own things carry compose's labels
compose()
{
	local id=$1
	shift
	TEST_RUN_ID=$id TESTENV_IMAGE=$image EXAMPLE_IMAGE=testenv-test/example:$run \
		docker compose -f "$checkout/docker/compose.yml" "$@"
}

remove_all()
{
	local id
	remove_containers
	for id in "${run}a" "${run}b"; do compose "$id" down --volumes --timeout 1 >/dev/null 2>&1 || true; done
}
