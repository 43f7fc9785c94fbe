#!/usr/bin/env bash
# make demo: what a restore does, on one screen, in a throwaway cluster.
#
#   examples/demo.sh [PG_CONFIG]
#
# Some 150 MB of pgbench's tables are seeded and a snapshot is taken.  Clients
# write for some seconds, the snapshot is restored, and every table is compared
# with what it was, physical places included.
#
# A comparison needs a moment in which nobody writes, with the clients still
# connected.  So each of their transactions starts by taking an advisory lock
# in share mode; this script closes that gate by taking it alone, and opens it
# again to see the very same sessions write on.
#
# The same reset by other means runs in a database of its own that has neither
# the extension nor its images in it: those would make the copies larger.
set -euo pipefail

# shellcheck source=.ci/lib.sh
. "$(dirname "$0")/../.ci/lib.sh"

scale=10
clients=4
load_seconds=5
small_tests=11
tables=(pgbench_accounts pgbench_branches pgbench_history pgbench_tellers)
gate=42

# ask DATABASE SQL
ask() { psql -XAtq -v ON_ERROR_STOP=1 -F ' ' -d "$1" -c "$2"; }

# timed DATABASE SQL...: milliseconds at the client, in a session that is
# connected already, over all the statements given
timed()
{
	local database=$1 sql args=()
	shift
	for sql in "$@"; do args+=(-c "$sql"); done
	psql -XAtq -v ON_ERROR_STOP=1 -d "$database" -c 'SELECT' -c '\timing on' "${args[@]}" |
		awk '/^Time: / { sum += $2 } END { printf "%.3f\n", sum }'
}

# Rows of a table and a checksum over each row.  With "ctid", over its place in
# the file as well.
fingerprint()
{
	local database=$1 table=$2 place=${3:+t.ctid::text ||}
	ask "$database" "SELECT count(*), coalesce(sum(hashtextextended($place t::text, 0)), 0) FROM $table t"
}

fingerprints()
{
	local table
	for table in "${tables[@]}"; do echo "$table $(fingerprint "$1" "$table" "${2:-}")"; done
}

write_load()
{
	# One order of row locks for all, so that no client runs into a deadlock:
	# the accounts deleted come from the lower half, those changed from the upper.
	cat >"$work/load.sql" <<-SQL
	\\set gone random(1, 50000 * $scale)
	\\set aid random(50000 * $scale + 1, 100000 * $scale)
	\\set bid random(1, $scale)
	\\set tid random(1, 10 * $scale)
	\\set delta random(-5000, 5000)
	SELECT pg_advisory_lock_shared($gate);
	BEGIN;
	DELETE FROM pgbench_accounts WHERE aid = :gone;
	UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
	UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
	UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
	INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, now());
	END;
	SELECT pg_advisory_unlock_shared($gate);
	SQL
}

# load DATABASE SECONDS
load() { pgbench -n -c "$clients" -j 2 -T "$2" -f "$work/load.sql" "$1" >"$work/log/pgbench" 2>&1; }

# One session of this script keeps the gate.
keeper_says()
{
	local answer=
	printf '%s;\n\\echo settled\n' "$1" >&"${keeper[1]}"
	while [ "$answer" != settled ]; do
		read -r -t 120 answer <&"${keeper[0]}" || die "the clients did not come to a rest"
	done
}
close_gate() { keeper_says "SELECT pg_advisory_lock($gate)"; }
open_gate() { keeper_says "SELECT pg_advisory_unlock($gate)"; }

# A client is the same client as long as its process and its start are the same.
client_sessions()
{
	ask demo_test "SELECT pid, backend_start FROM pg_stat_activity WHERE application_name = 'pgbench' ORDER BY 1"
}

seed()
{
	step "pgbench -i, scale $scale"
	ask postgres 'CREATE DATABASE demo_test'
	pgbench -i -q -s "$scale" demo_test >"$work/log/init" 2>&1 || { cat "$work/log/init"; return 1; }
	size=$(ask demo_test "SELECT pg_size_pretty(pg_database_size('demo_test'))")
	step "a template of it, for the comparison"
	ask postgres 'CREATE DATABASE demo_seed_test TEMPLATE demo_test'
}

# Sets before, loaded, restored, tables_restored, pages_restored, restore_ms,
# connected, stayed and wrote_on.
restore_run()
{
	local sessions answer
	step "testenv_snapshot()"
	ask demo_test 'CREATE EXTENSION testenv'
	ask demo_test 'SELECT FROM testenv_snapshot()'
	before=$(fingerprints demo_test ctid)
	coproc keeper { exec psql -XAtq -d demo_test; }

	step "$clients clients write for $load_seconds seconds"
	pgbench -n -c "$clients" -j 2 -T 3600 -f "$work/load.sql" demo_test >"$work/log/clients" 2>&1 &
	sleep "$load_seconds"
	close_gate
	sessions=$(client_sessions)
	connected=$(grep -c . <<<"$sessions" || true)
	loaded=$(fingerprints demo_test ctid)

	step "testenv_restore(), the clients connected"
	answer=$(psql -XAtq -v ON_ERROR_STOP=1 -F ' ' -d demo_test -c SELECT -c '\timing on' \
		-c 'SELECT tables, pages FROM testenv_restore()')
	read -r tables_restored pages_restored <<<"$(grep -E '^[0-9]' <<<"$answer")"
	restore_ms=$(sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' <<<"$answer")

	step "comparing every table"
	restored=$(fingerprints demo_test ctid)

	step "the same clients write on"
	open_gate
	sleep 1
	close_gate
	wrote_on=$(ask demo_test 'SELECT count(*) FROM pgbench_history')
	stayed=no
	if [ -n "$sessions" ] && [ "$sessions" = "$(client_sessions)" ]; then stayed=yes; fi
}

# Sets small_ms and small_pages: the median of some restores after a test that
# changes a few rows, in one session, as a test suite would call it.
small_run()
{
	local answer round script=$work/small.sql
	step "$small_tests small tests, each followed by a restore"
	echo 'SELECT FROM testenv_restore();' >"$script"
	for ((round = 0; round < small_tests; round++)); do
		cat >>"$script" <<-SQL
		BEGIN;
		UPDATE pgbench_accounts SET abalance = 1 WHERE aid IN (1, 500, 400000 + $round);
		INSERT INTO pgbench_history SELECT 1, 1, i, 1, now() FROM generate_series(1, 10) i;
		COMMIT;
		\\timing on
		SELECT pages FROM testenv_restore();
		\\timing off
		SQL
	done
	answer=$(psql -XAtq -v ON_ERROR_STOP=1 -d demo_test -f "$script")
	small_ms=$(sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' <<<"$answer" | sort -n | sed -n "$((small_tests / 2 + 1))p")
	small_pages=$(grep -E '^[0-9]+$' <<<"$answer" | sort -n | sed -n "$((small_tests / 2 + 1))p")
	small_restored=$(fingerprints demo_test ctid)
}

# Sets copy_ms, template_ms and template_way.  Whether these give the seed back
# is compared too, by contents: their rows lie wherever they come to lie.
other_ways()
{
	local seeded table script way ms
	step "the same load and TRUNCATE + COPY"
	ask postgres 'CREATE DATABASE demo_copy_test TEMPLATE demo_seed_test'
	seeded=$(fingerprints demo_copy_test)
	script='BEGIN;'
	for table in "${tables[@]}"; do
		ask demo_copy_test "COPY $table TO '$work/copy/$table'"
		script+=" TRUNCATE $table; COPY $table FROM '$work/copy/$table';"
	done
	load demo_copy_test "$load_seconds"
	copy_ms=$(timed demo_copy_test "$script COMMIT")
	[ "$(fingerprints demo_copy_test)" = "$seeded" ] || die "TRUNCATE + COPY did not give the seed back"

	template_ms=
	for way in wal_log file_copy; do
		step "the same load and a template database ($way)"
		ask postgres 'DROP DATABASE demo_copy_test WITH (FORCE)'
		ask postgres "CREATE DATABASE demo_copy_test TEMPLATE demo_seed_test"
		load demo_copy_test "$load_seconds"
		ms=$(timed postgres 'DROP DATABASE demo_copy_test WITH (FORCE)' \
			"CREATE DATABASE demo_copy_test TEMPLATE demo_seed_test STRATEGY $way")
		if [ -z "$template_ms" ] || [ "$(awk "BEGIN { print ($ms < $template_ms) }")" = 1 ]; then
			template_ms=$ms
			template_way=$way
		fi
		[ "$(fingerprints demo_copy_test)" = "$seeded" ] || die "the template did not give the seed back"
	done
}

# 1234567 is easier to read as 1,234,567
commas() { sed -E ':a; s/([0-9])([0-9]{3})(,|$)/\1,\2\3/; ta' <<<"$1"; }

# bar LABEL MILLISECONDS: 8 characters for each power of ten from 0.1 ms on
bar()
{
	awk -v label="$1" -v ms="$2" 'BEGIN {
		n = int(8 * log(ms / 0.1) / log(10) + 0.5)
		n = n < 1 ? 1 : n > 42 ? 42 : n
		for (i = 0; i < n; i++) bar = bar "#"
		printf "  %-24s %9s  %s\n", label, sprintf(ms < 10 ? "%.2f" : "%.0f", ms), bar
	}'
}

# Sets differing, the number of tables that are not what they were.
show_tables()
{
	local table was wild is verdict
	differing=0
	printf '  %-20s %11s %15s %14s\n' rows before 'after the load' restored
	for table in "${tables[@]}"; do
		was=$(grep "^$table " <<<"$before")
		wild=$(grep "^$table " <<<"$loaded")
		is=$(grep "^$table " <<<"$restored")
		verdict='identical'
		if [ "$was" != "$is" ]; then
			verdict=DIFFERS
			differing=$((differing + 1))
		fi
		printf '  %-20s %11s %15s %14s  %s\n' "$table" "$(commas "$(cut -d' ' -f2 <<<"$was")")" \
			"$(commas "$(cut -d' ' -f2 <<<"$wild")")" "$(commas "$(cut -d' ' -f2 <<<"$is")")" "$verdict"
	done
}

show()
{
	printf '\n  testenv on %s\n' "${server_version%% (*}"
	printf '  pgbench at scale %d, %s; %d clients wrote for %d seconds\n\n' "$scale" "$size" "$clients" "$load_seconds"
	show_tables
	printf '\n  %s pages of %d tables put back.  Identical: every row in its old place.\n' \
		"$(commas "$pages_restored")" "$tables_restored"
	if [ "$stayed" = yes ]; then
		printf '  The %d clients stayed connected and wrote %s rows more afterwards.\n\n' "$connected" "$(commas "$wrote_on")"
	else
		printf '  NOT every client stayed connected.\n\n'
	fi
	printf '  one reset, milliseconds (logarithmic bars: 8 characters are a factor of 10)\n'
	bar 'restore, small test' "$small_ms"
	bar 'restore, this load' "$restore_ms"
	bar 'template database' "$template_ms"
	bar 'TRUNCATE + COPY' "$copy_ms"
	printf '\n  small test: some 15 rows, %d pages put back, median of %d.\n' "$small_pages" "$small_tests"
	printf '  template database: by %s, the faster way here; throws every session out.\n' "$template_way"
	printf '  fsync is off for all of them.\n'
	if [ "$(ask postgres 'SHOW debug_assertions')" = on ]; then
		printf '  This server checks its own assertions: no time here is that of a release.\n'
	fi
	printf '\n'
}

# Everything that was claimed on the screen and did not hold.
verify()
{
	local bad=0
	[ "$differing" = 0 ] || { bad=1; echo "demo: $differing tables differ from what they were" >&2; }
	[ "$loaded" != "$before" ] || { bad=1; echo "demo: the load changed nothing" >&2; }
	[ "$small_restored" = "$before" ] || { bad=1; echo "demo: tables differ after the small tests" >&2; }
	if [ "$stayed" != yes ] || [ "$connected" != "$clients" ] || [ "$wrote_on" = 0 ]; then
		bad=1
		echo "demo: not every client wrote on after the restore" >&2
		cat "$work/log/clients" >&2
	fi
	return "$bad"
}

find_server "${1:-}"
begin_throwaway
build_extension
start_cluster
as_server mkdir "$work/copy"
write_load
seed
restore_run
small_run
other_ways
show
verify
