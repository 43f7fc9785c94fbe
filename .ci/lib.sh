# A throwaway installation and a throwaway cluster: what make check and make
# demo have in common.  To be sourced.
#
# The server's own directories are only read.  Its programs, modules and shared
# files are copied below a temporary folder with their paths kept, because
# PostgreSQL finds its files relative to its executable: the copy is a whole
# installation of its own, and the extension is installed into that.
#
# A caller calls, in this order: find_server, begin_throwaway, build_extension,
# start_cluster.  Everything is gone when the caller exits, however it exits,
# unless TESTENV_KEEP=1.  The exit trap is this file's; a caller's function
# "closing" is called as the last thing, with the exit status.

umask 022
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=
child=
follower=
small_disk=

# shellcheck source=.ci/apt.sh
. "$checkout/.ci/apt.sh"

step() { printf '== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# make's own variables would reach the inner make, a client's the test clients
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
unset PGHOST PGHOSTADDR PGPORT PGDATABASE PGUSER PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE \
	PGOPTIONS PGAPPNAME PGSSLMODE PGTZ PGCLIENTENCODING PGDATESTYLE PGCONNECT_TIMEOUT PGTARGETSESSIONATTRS PSQLRC

# PostgreSQL refuses to run as root.
account=()
if [ "$(id -u)" = 0 ]; then account=(runuser -u postgres --); fi
as_server() { "${account[@]}" "$@"; }

# Can the server of this pg_config be run, and an extension built for it?
complete_server()
{
	local bin pgxs
	bin=$("$1" --bindir 2>/dev/null) && pgxs=$("$1" --pgxs 2>/dev/null) || return 1
	[ -x "$bin/postgres" ] && [ -x "$bin/initdb" ] && [ -x "$bin/psql" ] && [ -e "$pgxs" ] &&
		[ -e "$("$1" --includedir-server)/postgres.h" ]
}

# Sets server_config, the server's pg_config: the one given, else the one on the
# PATH if a whole server belongs to it, else that of Debian's own server.
find_server()
{
	if [ -n "${1:-}" ]; then
		server_config=$(command -v "$1") || die "there is no pg_config at $1"
		complete_server "$server_config" ||
			die "$1 does not belong to a whole server: postgres, initdb, psql, PGXS and the server's headers are needed"
	elif server_config=$(command -v pg_config) && complete_server "$server_config"; then
		:
	else
		step "no server on the PATH: Debian's own"
		server_config=$(bash "$checkout/.ci/servers" debian) || die "Debian's own server could not be installed"
	fi
	command -v gcc >/dev/null && command -v make >/dev/null || apt_install gcc libc6-dev make
	if [ "$(id -u)" = 0 ] && ! id postgres >/dev/null 2>&1; then
		useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin postgres
	fi
	server_version=$("$server_config" --version)
}

begin_throwaway()
{
	local parent=${TMPDIR:-/tmp}
	# the path of a socket must fit into 107 bytes, and the server's account must reach it
	[ ${#parent} -le 40 ] && as_server test -x "$parent" || parent=/tmp
	work=$(mktemp -d "$parent/testenv.XXXXXX")
	if [ "$(id -u)" = 0 ]; then chown postgres "$work"; fi
	# not every account has a home, and a personal .psqlrc must not be read
	export HOME=$work/home PSQL_HISTORY=/dev/null
	as_server mkdir "$work/home" "$work/socket" "$work/log"
	as_server chmod 700 "$work/socket"
	cd "$work"
}

# Every process whose executable lies in the throwaway installation is ours.
own_processes()
{
	local exe
	for exe in /proc/[0-9]*/exe; do
		case $(readlink "$exe" 2>/dev/null) in
		"$work"/*)
			exe=${exe#/proc/}
			echo "${exe%/exe}"
			;;
		esac
	done
}

end_throwaway()
{
	local status=$? pid signal
	trap '' HUP INT TERM
	trap - EXIT ERR
	set +e
	cd /
	# timeout leads the group of what it runs, and passes the signal on
	[ -z "$child" ] || kill -TERM "$child" 2>/dev/null
	[ -z "$follower" ] || kill "$follower" 2>/dev/null
	if [ -n "$work" ]; then
		for signal in TERM QUIT KILL KILL; do
			for pid in $(own_processes); do kill -"$signal" "$pid" 2>/dev/null; done
			for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
				[ -n "$(own_processes)" ] || break 2
				sleep 0.1
			done
		done
		[ -z "$small_disk" ] || umount "$small_disk" || umount -l "$small_disk"
		if [ "${TESTENV_KEEP:-}" = 1 ]; then
			printf 'kept: %s\n' "$work" >&2
		else
			rm -rf "$work"
		fi
	fi
	if declare -F closing >/dev/null; then closing "$status"; fi
	exit "$status"
}
trap end_throwaway EXIT
# a script that ends because of a failed command says which
set -E
trap 'printf "%s: line %d: failed: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "$BASH_COMMAND" >&2' ERR
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command with its output in a file and, meanwhile, on the screen: in the
# background, because bash serves a signal only between foreground commands, and
# through a file, because a pipe would wait for every server left behind.
follow()
{
	local log=$1 limit=$2 status=0
	shift 2
	: >"$log"
	timeout -k 20 "$limit" "$@" >>"$log" 2>&1 </dev/null &
	child=$!
	tail -n +1 -s 0.2 -f --pid="$child" "$log" &
	follower=$!
	wait "$child" || status=$?
	child=
	wait "$follower" || true
	follower=
	[ "$status" != 124 ] || printf 'still running after %d seconds\n' "$limit" | tee -a "$log"
	return "$status"
}

# Libraries that the copies miss, because they were found relative to the
# original: copied too, to the same place relative to the copy.
copy_libraries()
{
	local file lib from missing
	find "$root$bindir" "$root$pkglibdir" -type f \( -perm -u+x -o -name '*.so' \) ! -path '*/bitcode/*' -print |
	while read -r file; do
		# what a library needs in turn is missed only once the library is there
		for _ in 1 2 3 4; do
			missing=$({ ldd "$file" 2>/dev/null || true; } | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p')
			[ -n "$missing" ] || break
			for lib in $missing; do
				from=$({ ldd "${file#"$root"}" 2>/dev/null || true; } | sed -n "s/^[[:space:]]*$lib => \(\/.*\) (0x.*/\1/p" | head -n 1)
				[ -n "$from" ] || continue
				from=$(realpath -s "$from")
				mkdir -p "$root$(dirname "$from")"
				[ -e "$root$from" ] || cp -L "$from" "$root$from"
			done
		done
	done
}

# Sets root, bindir, pkglibdir, pg_config and test_lib, all of the copy.
copy_server()
{
	local dir
	root=$work/root
	bindir=$("$server_config" --bindir)
	pkglibdir=$("$server_config" --pkglibdir)
	for dir in "$bindir" "$pkglibdir" "$("$server_config" --sharedir)"; do
		# one may lie in the other
		[ ! -e "$root$dir" ] || continue
		mkdir -p "$root$(dirname "$dir")"
		cp -a --reflink=auto "$dir" "$root$dir"
	done
	copy_libraries
	bindir=$root$bindir
	pkglibdir=$root$pkglibdir
	pg_config=$bindir/pg_config
	test_lib=$(dirname "$("$pg_config" --pgxs)")/../test
	test_lib=$(realpath -m "$test_lib")
	export PATH=$bindir:$PATH
	[ "$("$pg_config" --bindir)" = "$bindir" ] || die "$server_version cannot be relocated: its copy looks for its files elsewhere"
}

# Builds in a copy of the checkout, so that this one stays clean and objects of
# another server are never met.  Arguments are make's.
build_extension()
{
	local jobs part
	step "building for $server_version"
	copy_server
	mkdir "$work/src"
	cd "$checkout"
	for part in Makefile testenv.control extension cli sql expected specs t; do
		[ ! -e "$part" ] || tar -c --exclude='*.o' --exclude='*.so' --exclude='*.bc' --exclude=.built-with --exclude=cli/testenv \
			--exclude=__pycache__ --exclude=tmp_check "$part" | tar -x --no-same-owner -C "$work/src"
	done
	cd "$work"
	jobs=$(nproc 2>/dev/null || echo 1)
	[ "$jobs" -le 2 ] || jobs=2
	if ! { make -s -j"$jobs" -C "$work/src" PG_CONFIG="$server_config" "$@" &&
		make -s -C "$work/src" PG_CONFIG="$server_config" "$@" DESTDIR="$root" install; } >"$work/build.log" 2>&1; then
		cat "$work/build.log"
		return 1
	fi
	if [ "$(id -u)" = 0 ]; then chown -R postgres "$work/src" "$root"; fi
}

# A cluster that only this run can reach: no network address, a socket in a
# folder of its own.  Lines for postgresql.conf may be given.  Without jit, which
# Debian's server has and others lack: it compiles the checks' large queries for
# seconds where they run for milliseconds.
start_cluster()
{
	local line
	step "starting a cluster"
	as_server "$bindir/initdb" -D "$work/data" -U postgres -A trust --no-locale -E UTF8 --data-checksums -N \
		>"$work/log/initdb" 2>&1 || { cat "$work/log/initdb"; return 1; }
	{
		cat <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$work/socket'
		fsync = off
		wal_level = replica
		max_prepared_transactions = 10
		testenv.testing_mode = on
		jit = off
		CONF
		for line in "$@"; do printf '%s\n' "$line"; done
	} | as_server tee -a "$work/data/postgresql.conf" >/dev/null
	server_log=$work/log/server
	as_server "$bindir/pg_ctl" -D "$work/data" -l "$server_log" -w -t 120 start >"$work/log/pg_ctl" 2>&1 ||
		{ cat "$work/log/pg_ctl"; tail -n 40 "$server_log"; return 1; }
	export PGHOST=$work/socket PGPORT=5432 PGUSER=postgres
}
