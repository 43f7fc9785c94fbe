# Many restores, and many tables.
#
# A thousand restores leave files, catalogs and the backend's memory as large as
# the first few did, and do not make autovacuum chase tables that are fine.
# Snapshot and restore of thousands of tables fit into the lock table at its
# default size; where it is too small, a clear error says so.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $db = 'many_test';
my $node = new_node('many', conf => <<'CONF');
autovacuum = on
autovacuum_naptime = 1s
log_error_verbosity = verbose
CONF
$node->start;
seed($node, $db, 200);
# the seed's own rows, not the restores', may be worth a visit: have it paid now
$node->safe_psql($db, 'VACUUM ANALYZE');
take($node, $db);
my $reference = state($node, $db);

# One round after the other, as a test suite sends them: each statement for
# itself, so that the session reports its statistics when it does.
sub rounds
{
	my ($from, $to) = @_;
	my $sql = '';

	for my $i ($from .. $to)
	{
		my $id = $i % 190 + 1;

		$sql .= <<"SQL";
UPDATE big SET pad = repeat('z', 1000) WHERE id IN ($id, 7);
INSERT INTO item (h, tags, p, r, doc) SELECT i, ARRAY[i], point(i, i), int4range(i, i + 1), repeat('d', 3000) FROM generate_series(1, 12) i;
DELETE FROM item WHERE id = $id;
INSERT INTO part VALUES (1000 + $i, $id % 20, 'new');
INSERT INTO empty VALUES ($i);
INSERT INTO fleeting (v) VALUES ('new');
DO 'BEGIN PERFORM nextval(''plain''), nextval(''cached''), lo_put(700001, 0, ''changed''); END';
DO 'BEGIN PERFORM testenv_restore(); END';
SQL
	}
	return $sql;
}

my $session = Testenv::Session->new($node, $db);

# Everything that must not grow, one line each.
my $largest;
sub measure
{
	$session->ask('CHECKPOINT');
	my %measure = (
		files => size_on_disk($node, $db),
		tables => $session->ask(q{SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind IN ('r', 'm') AND oid >= 16384 AND relpersistence <> 't'}),
		catalogs => $session->ask(q{SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND oid < 16384}),
		rows => $session->ask('SELECT (SELECT count(*) FROM pg_class) + (SELECT count(*) FROM pg_depend) + (SELECT count(*) FROM pg_shdepend) + (SELECT count(*) FROM pg_attribute)'),
		memory => $session->ask('SELECT sum(total_bytes) FROM pg_backend_memory_contexts'));

	$largest = $session->ask('SELECT name, level, count(*), sum(total_bytes) FROM pg_backend_memory_contexts GROUP BY 1, 2 ORDER BY 4 DESC LIMIT 12');
	note(join ', ', map { "$_ $measure{$_}" } sort keys %measure);
	return \%measure;
}

sub statistics
{
	$session->ask('SELECT pg_stat_force_next_flush()');
	$session->ask('SELECT pg_stat_clear_snapshot()');
	return $session->ask(<<'SQL');
SELECT relname, n_live_tup, n_dead_tup, n_mod_since_analyze, n_ins_since_vacuum
FROM pg_stat_user_tables WHERE schemaname = 'public' AND relname <> 'untouched' ORDER BY relname
SQL
}

sub visits
{
	return $session->ask(q{SELECT sum(autovacuum_count), sum(autoanalyze_count) FROM pg_stat_user_tables WHERE schemaname = 'public'});
}

is($session->ask(rounds(1, 100)), '', 'the first restores');
# what is measured with is cached too
measure() for 1 .. 2;
visits();
statistics();
my $first = measure();
my $largest_at_first = $largest;
my $visits = visits();
is($session->ask(rounds(101, 1500)), '', 'and many more');
my $last = measure();
cmp_ok($last->{files}, '<=', $first->{files} + 512 * 1024, 'the files of the database have not grown');
is($last->{tables}, $first->{tables}, 'nor the tables');
cmp_ok($last->{catalogs}, '<=', $first->{catalogs} + 256 * 1024, 'nor the catalogs');
is($last->{rows}, $first->{rows}, 'nor their rows');
cmp_ok($last->{memory}, '<=', $first->{memory} + 128 * 1024, 'nor the memory of the backend')
  or diag("at first:\n$largest_at_first\nin the end:\n$largest");
# Once a second, what a session has not told before a restore comes after it, so
# a visit is possible now and then; a chase would be one of each table each second.
my ($before, $after) = map { my ($vacuums, $analyzes) = split /\|/, $_; $vacuums + $analyzes } $visits, visits();
cmp_ok($after - $before, '<=', 5, 'autovacuum has not chased tables meanwhile');
# A session tells of its work about once a second; what it had not told before a
# restore comes after it.  So the last rounds, one for each partition, tell first.
$session->ask((rounds(1, 1) . rounds(12, 12)) =~ s/DO 'BEGIN PERFORM testenv_restore\(\); END'/SELECT pg_stat_force_next_flush();\nSELECT 1;\n$&/gr);
is(statistics(), <<'ROWS' =~ s/\n\z//r, 'the statistics are those of the snapshot');
big|200|0|0|0
empty|0|0|0|0
fleeting|300|0|0|0
item|1000|0|0|0
part|0|0|0|0
part_1|250|0|0|0
part_2|250|0|0|0
summary|20|0|0|0
ROWS
is_exact($node, $db, $reference, 'exact after 1502 restores');
$session->quit;

# Thousands of tables at the default max_locks_per_transaction.
my $tables = 5000;
my $wide = 'wide_test';
create_database($node, $wide);
$node->safe_psql($wide, <<"SQL");
DO \$\$
BEGIN
	FOR i IN 1 .. $tables LOOP
		EXECUTE format('CREATE TABLE w%s (id int)', i);
		EXECUTE format('INSERT INTO w%s SELECT generate_series(1, 3)', i);
		IF i % 500 = 0 THEN
			COMMIT;
		END IF;
	END LOOP;
END \$\$;
SQL
is($node->safe_psql($wide, 'SHOW max_locks_per_transaction'), '64', 'the lock table has its default size');
is(take($node, $wide), $tables, "snapshot of $tables tables");
$node->safe_psql($wide, 'INSERT INTO w7 VALUES (4); DELETE FROM w4000');
is($node->safe_psql($wide, 'SELECT tables FROM testenv_restore()'), '2', 'restore of two of them');
is($node->safe_psql($wide, 'SELECT testenv_is_clean()'), 't', 'clean');
is($node->safe_psql($wide, 'SELECT (SELECT count(*) FROM w7), (SELECT count(*) FROM w4000)'), '3|3', 'and right');

# A lock table that is too small.
$node->append_conf('postgresql.conf', "max_locks_per_transaction = 10\nmax_connections = 20\n");
$node->restart;
my $made = $node->safe_psql($wide, 'SELECT created_at FROM testenv_snapshots()');
like(error_of($node, $wide, 'SELECT testenv_snapshot()'), qr/^53200: cannot take a snapshot: the lock table is full/, 'a snapshot needs too many locks');
is($node->safe_psql($wide, 'SELECT created_at FROM testenv_snapshots()'), $made, 'the old one is still there');
$node->safe_psql($wide, <<"SQL");
DO \$\$
BEGIN
	FOR i IN 1 .. $tables LOOP
		EXECUTE format('INSERT INTO w%s VALUES (4)', i);
		IF i % 100 = 0 THEN
			COMMIT;
		END IF;
	END LOOP;
END \$\$;
SQL
like(error_of($node, $wide, 'SELECT testenv_restore()'), qr/^53200: cannot restore a snapshot: the lock table is full/, 'a restore of all tables needs too many locks');
is($node->safe_psql($wide, 'SELECT (SELECT count(*) FROM w1), (SELECT count(*) FROM w4000)'), '4|4', 'nothing has been put back');
$node->append_conf('postgresql.conf', "max_locks_per_transaction = 512\n");
$node->restart;
is($node->safe_psql($wide, 'SELECT tables FROM testenv_restore()'), $tables, 'with more room all of them are restored');
is($node->safe_psql($wide, 'SELECT testenv_is_clean()'), 't', 'clean');
is($node->safe_psql($wide, 'SELECT (SELECT count(*) FROM w1), (SELECT count(*) FROM w4000)'), '3|3', 'and right');
$node->stop;

done_testing();
