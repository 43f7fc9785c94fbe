#!/usr/bin/env bash
# The entrypoint of the stand-in base image: what the official image promises of
# its own, written from its documentation.
#
# Kept: a command that begins with '-' is options of the server; another program
# runs as it is; the server never runs as root; POSTGRES_USER, _PASSWORD, _DB,
# _INITDB_ARGS, each also as a file by _FILE; POSTGRES_HOST_AUTH_METHOD;
# POSTGRES_INITDB_WALDIR; scripts run once, in the order of their names, on a
# server that listens on its socket only; a data directory that exists is left
# alone; the file can be sourced for its functions, whose names others rely on.
set -Eeo pipefail

# Is this file being sourced, not run?
_is_sourced()
{
	[ "${FUNCNAME[1]:-}" = source ]
}

stop_with()
{
	printf 'error: %s\n' "$1" >&2
	exit 1
}

# file_env NAME [DEFAULT]: the value of NAME, or of the file that NAME_FILE names
file_env()
{
	local name=$1 file=$1_FILE value=${2:-}
	if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then stop_with "$name and $file exclude each other"; fi
	if [ -n "${!name:-}" ]; then
		value=${!name}
	elif [ -n "${!file:-}" ]; then
		value=$(cat "${!file}")
	fi
	export "$name=$value"
	unset "$file"
}

docker_setup_env()
{
	file_env POSTGRES_PASSWORD
	file_env POSTGRES_USER postgres
	file_env POSTGRES_DB "$POSTGRES_USER"
	file_env POSTGRES_INITDB_ARGS
	: "${POSTGRES_HOST_AUTH_METHOD:=}"
	declare -g DATABASE_ALREADY_EXISTS=
	if [ -s "$PGDATA/PG_VERSION" ]; then DATABASE_ALREADY_EXISTS=true; fi
}

docker_create_db_directories()
{
	local dir
	mkdir -p "$PGDATA"
	chmod 00700 "$PGDATA" || :
	mkdir -p /var/run/postgresql || :
	chmod 03775 /var/run/postgresql || :
	if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then mkdir -p "$POSTGRES_INITDB_WALDIR"; fi
	[ "$(id -u)" = 0 ] || return 0
	for dir in "$PGDATA" /var/run/postgresql ${POSTGRES_INITDB_WALDIR:+"$POSTGRES_INITDB_WALDIR"}; do
		find "$dir" ! -user postgres -exec chown postgres {} +
	done
}

docker_verify_minimum_env()
{
	if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
		stop_with 'database is uninitialized and superuser password is not specified: set POSTGRES_PASSWORD'
	fi
}

# initdb wants to know the name of its user, which an arbitrary --user lacks
docker_init_database_dir()
{
	local -a extra=()
	local args passwd group wrapper
	if ! getent passwd "$(id -u)" >/dev/null; then
		wrapper=$(compgen -G '/usr/lib/*/libnss_wrapper.so' | head -n 1)
		passwd=$(mktemp)
		group=$(mktemp)
		printf 'postgres:x:%s:%s::%s:/bin/false\n' "$(id -u)" "$(id -g)" "$PGDATA" >"$passwd"
		printf 'postgres:x:%s:\n' "$(id -g)" >"$group"
		export LD_PRELOAD=$wrapper NSS_WRAPPER_PASSWD=$passwd NSS_WRAPPER_GROUP=$group
	fi
	if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then extra+=(--waldir "$POSTGRES_INITDB_WALDIR"); fi
	# the variable holds several arguments, quoted as for a shell
	eval "args=($POSTGRES_INITDB_ARGS)"
	initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") "${extra[@]}" "${args[@]}"
	if [ -n "${wrapper:-}" ]; then
		rm -f "$passwd" "$group"
		unset LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
	fi
}

pg_setup_hba_conf()
{
	local method=$POSTGRES_HOST_AUTH_METHOD
	if [ "${1:-}" = postgres ]; then shift; fi
	if [ -z "$method" ]; then method=$(postgres -C password_encryption "$@"); fi
	printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

# with the command's own options; these two come last, so they win
docker_temp_server_start()
{
	local options
	if [ "${1:-}" = postgres ]; then shift; fi
	printf -v options ' %q' "$@" -c listen_addresses= -p "${PGPORT:-5432}"
	env -u NOTIFY_SOCKET PGUSER="${PGUSER:-$POSTGRES_USER}" pg_ctl start --wait --pgdata "$PGDATA" --options "$options"
}

docker_temp_server_stop()
{
	env PGUSER="${PGUSER:-$POSTGRES_USER}" pg_ctl stop --wait --mode fast --pgdata "$PGDATA"
}

# SQL from standard input or by arguments, as the superuser, in POSTGRES_DB
docker_process_sql()
{
	env -u PGHOST -u PGHOSTADDR psql --no-psqlrc --no-password --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" \
		${POSTGRES_DB:+--dbname "$POSTGRES_DB"} "$@"
}

docker_setup_db()
{
	local wanted=$POSTGRES_DB there
	local -a maintenance=(docker_process_sql --dbname postgres --set wanted="$wanted")
	there=$(POSTGRES_DB='' "${maintenance[@]}" --tuples-only <<<"SELECT 'there' FROM pg_database WHERE datname = :'wanted'")
	[ -n "$there" ] || POSTGRES_DB='' "${maintenance[@]}" <<<'CREATE DATABASE :"wanted"'
}

docker_process_init_files()
{
	local f
	# what a script that is sourced may want to call
	psql=(docker_process_sql)
	echo
	for f; do
		case $f in
		*.sh)
			if [ -x "$f" ]; then
				printf '%s: running %s\n' "$0" "$f"
				"$f"
			else
				printf '%s: sourcing %s\n' "$0" "$f"
				# shellcheck disable=SC1090
				. "$f"
			fi
			;;
		*.sql) printf '%s: running %s\n' "$0" "$f"; docker_process_sql -f "$f"; echo ;;
		*.sql.gz) printf '%s: running %s\n' "$0" "$f"; gunzip -c "$f" | docker_process_sql; echo ;;
		*.sql.xz) printf '%s: running %s\n' "$0" "$f"; xzcat "$f" | docker_process_sql; echo ;;
		*.sql.zst) printf '%s: running %s\n' "$0" "$f"; zstd -dc "$f" | docker_process_sql; echo ;;
		*) printf '%s: ignoring %s\n' "$0" "$f" ;;
		esac
		echo
	done
}

# does the command only ask the server for a word about itself?
_pg_want_help()
{
	local arg
	for arg; do
		case $arg in
		-'?' | --help | --describe-config | -V | --version) return 0 ;;
		esac
	done
	return 1
}

_main()
{
	if [ "${1:0:1}" = - ]; then set -- postgres "$@"; fi
	if [ "${1:-}" = postgres ] && ! _pg_want_help "$@"; then
		docker_setup_env
		docker_create_db_directories
		if [ "$(id -u)" = 0 ]; then exec gosu postgres "${BASH_SOURCE[0]}" "$@"; fi
		if [ -z "$DATABASE_ALREADY_EXISTS" ]; then
			docker_verify_minimum_env
			# fails early where the folder cannot be read
			ls /docker-entrypoint-initdb.d/ >/dev/null
			docker_init_database_dir
			pg_setup_hba_conf "$@"
			export PGPASSWORD="${PGPASSWORD:-$POSTGRES_PASSWORD}"
			docker_temp_server_start "$@"
			docker_setup_db
			docker_process_init_files /docker-entrypoint-initdb.d/*
			docker_temp_server_stop
			unset PGPASSWORD
			printf '\nPostgreSQL init process complete; ready for start up.\n\n'
		else
			printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
		fi
	fi
	exec "$@"
}

if ! _is_sourced; then
	_main "$@"
fi
