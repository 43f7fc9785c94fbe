# Servers tuned for tests: wal_level = minimal, full_page_writes off, fsync off.
#
# With wal_level = minimal a table that was made, or emptied, in the running
# transaction is not logged at all: its pages have no LSN that tells of a change.
# A snapshot in the transaction that seeded meets that, and so does a restore of
# a table that was loaded so.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @settings = ([ 'off', '2MB' ], [ 'on', '0' ]);
for my $setting (@settings)
{
	my ($hints, $threshold) = @$setting;
	my $db = 'minimal_test';
	my $title = "wal_log_hints $hints, wal_skip_threshold $threshold";
	my $node = new_node("minimal_${hints}_$threshold", checksums => 0, conf => <<"CONF");
wal_level = minimal
max_wal_senders = 0
full_page_writes = off
wal_log_hints = $hints
wal_skip_threshold = $threshold
synchronous_commit = off
CONF
	$node->start;
	create_database($node, $db);
	is($node->safe_psql($db, 'SHOW wal_level') . $node->safe_psql($db, 'SHOW data_checksums'), 'minimaloff', "$title: as wanted");

	# seeded and taken in one transaction
	my $seed = q{
		CREATE TABLE t (id int PRIMARY KEY, v text);
		INSERT INTO t SELECT i, 'seed ' || i FROM generate_series(1, 3000) i;
		CREATE INDEX t_v ON t USING hash (v);
		CREATE TABLE u (id int PRIMARY KEY, v text);
		INSERT INTO u SELECT i, repeat('u', 500) FROM generate_series(1, 1000) i;
		CREATE SEQUENCE s;
		SELECT nextval('s');};
	$node->safe_psql($db, "BEGIN; $seed SELECT testenv_snapshot(); COMMIT");
	my $reference = state($node, $db);
	is($node->safe_psql($db, 'SELECT testenv_is_clean()'), 't', "$title: clean after the snapshot");

	# In each round another mixture, then a crash before, after, or both.
	my @works = (
		q{DELETE FROM t WHERE id % 3 = 0; UPDATE u SET v = 'changed'; SELECT nextval('s')},
		q{BEGIN; TRUNCATE t, u; INSERT INTO t SELECT i, 'other ' || i FROM generate_series(1, 3000) i; INSERT INTO u VALUES (1, 'other'); COMMIT},
		q{BEGIN; TRUNCATE t; INSERT INTO t SELECT i, 'seed ' || i FROM generate_series(1, 3000) i; COMMIT; SELECT count(*) FROM t},
		q{VACUUM FULL t; CLUSTER u USING u_pkey; REINDEX TABLE t},
		q{BEGIN; TRUNCATE t; ROLLBACK; BEGIN; TRUNCATE u; INSERT INTO u VALUES (5, 'x'); SAVEPOINT a; TRUNCATE u; ROLLBACK TO a; COMMIT});
	for my $n (0 .. $#works)
	{
		$node->safe_psql($db, $works[$n]);
		crash($node) if $n % 2 == 0;
		like(put_back($node, $db), qr/^\d+\|\d+$/, "$title: restore after work $n");
		is_exact($node, $db, $reference, "$title: exact after work $n");
		crash($node) if $n % 3 != 1;
		put_back($node, $db);
		is_exact($node, $db, $reference, "$title: and stays so $n");
	}

	# Loaded anew and taken again, in one transaction; changed in the same one.
	$node->safe_psql($db, q{BEGIN; TRUNCATE u; INSERT INTO u SELECT i, 'again' FROM generate_series(1, 500) i; SELECT testenv_snapshot(); COMMIT});
	$reference = state($node, $db);
	$node->safe_psql($db, q{UPDATE u SET v = 'changed' WHERE id < 100});
	put_back($node, $db);
	is_exact($node, $db, $reference, "$title: exact after a table was loaded anew");
	# the index has new pages that no LSN tells of, and a larger file
	$node->safe_psql($db, q{
		BEGIN;
		CREATE TABLE w (id int PRIMARY KEY, v text);
		INSERT INTO w SELECT i, 'w ' || i FROM generate_series(1, 500) i;
		SELECT testenv_snapshot('w');
		UPDATE w SET id = id + 1000 WHERE id <= 250;
		INSERT INTO w SELECT i, 'more' FROM generate_series(2000, 3000) i;
		COMMIT});
	like(put_back($node, $db, 'w'), qr/^\d+\|\d+$/, "$title: restore of what changed in the transaction of the snapshot");
	is($node->safe_psql($db, 'SELECT count(*), sum(id) FROM w'), '500|125250', "$title: it is undone");
	is(indexes_agree($node, $db), '', "$title: in the index too");
	crash($node);
	like(put_back($node, $db, 'w'), qr/^\d+\|\d+$/, "$title: restore after a crash");
	is($node->safe_psql($db, 'SELECT count(*), sum(id) FROM w'), '500|125250', "$title: right after a crash");
	is(indexes_agree($node, $db), '', "$title: and the index");
	$node->stop;
}

done_testing();
