# What a restore logs of a page: what recovery needs to make it equal to the
# image, whatever the server has set on our page without WAL.  After work that
# leaves hint bits, command ids, padding and dead marks, a standby that replays
# the restore, and a server that crashed after it, have the pages of the snapshot
# byte for byte, but for LSN, checksum and hole.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $db = 'delta_test';
my $primary = new_node('primary', streaming => 1);
$primary->start;
create_database($primary, $db);

# rows of the fourth command, which t_cid remembers; a row of 49 bytes in the
# place of one of 72, of which the last seven bytes are left as its padding
$primary->safe_psql($db, q{
	CREATE TABLE t (id int PRIMARY KEY, k int, v text) WITH (autovacuum_enabled = off);
	CREATE INDEX t_k ON t USING hash (k);
	CREATE INDEX t_v ON t (v);
	BEGIN;
	CREATE TABLE other (id int);
	INSERT INTO other VALUES (1);
	INSERT INTO other VALUES (2);
	INSERT INTO t SELECT g, g % 40, repeat('x', 50 + g % 17) || g FROM generate_series(1, 500) g;
	COMMIT;
	CREATE TABLE padded (id int, v text) WITH (autovacuum_enabled = off);
	INSERT INTO padded SELECT g, repeat('p', 100) FROM generate_series(1, 40) g;
	INSERT INTO padded VALUES (0, repeat('z', 43));
	DELETE FROM padded WHERE id = 0;
	VACUUM padded;
	INSERT INTO padded VALUES (0, repeat('a', 20));});
take($primary, $db);
$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;

my @relations = qw(t t_pkey t_k t_v padded);
my %path = map { $_ => $primary->safe_psql($db, "SELECT pg_relation_filepath('$_')") } @relations;

# What the pages on the disk say: page by page, without LSN, checksum and hole.
sub pages
{
	my $node = shift;
	my %pages;

	for my $relation (@relations)
	{
		my $bytes = slurp_file($node->data_dir . '/' . $path{$relation});

		for my $block (0 .. length($bytes) / 8192 - 1)
		{
			my $page = substr($bytes, $block * 8192, 8192);
			my ($lower, $upper) = unpack('x12 vv', $page);

			# a page that was never used
			($lower, $upper) = (24, 8192) if $upper == 0;
			$pages{"$relation, block $block"} = unpack('H*', substr($page, 10, $lower - 10)) . ' ' . unpack('H*', substr($page, $upper));
		}
	}
	return \%pages;
}

sub same_pages
{
	my ($node, $reference, $title) = @_;
	my $pages = pages($node);
	my %all = (%$pages, %$reference);
	my @wrong = grep { ($pages->{$_} // '') ne ($reference->{$_} // '') } sort keys %all;

	ok(!@wrong, $title) or diag("differing: @wrong");
	return;
}

$primary->safe_psql('postgres', 'CHECKPOINT');
my $reference = pages($primary);
cmp_ok(scalar(keys %$reference), '>', 10, 'there are pages to compare');

# by index only, so that entries of dead rows are marked
my $kill = q{SET enable_seqscan = off; SET enable_bitmapscan = off;
	SELECT count(*) FROM (SELECT id FROM t WHERE id > 0 ORDER BY id) x;
	SELECT sum((SELECT count(*) FROM t WHERE k = g)) FROM generate_series(0, 39) g;
	SELECT count(*) FROM (SELECT v FROM t WHERE v > '' ORDER BY v) x;
	RESET enable_seqscan; RESET enable_bitmapscan};
my $read = 'SELECT count(*) FROM t';
my @works = (
	[ 'a rolled-back deletion, whose hint bits are those of the image', "BEGIN; DELETE FROM t WHERE id % 30 = 1; ROLLBACK; $read" ],
	[ 'a deletion by the fourth command, whose number is that of the image',
		"BEGIN; SELECT 1; INSERT INTO other VALUES (3); INSERT INTO other VALUES (4); INSERT INTO other VALUES (5); DELETE FROM t WHERE id % 30 = 1; ROLLBACK; $read" ],
	[ 'rows that are locked', "BEGIN; SELECT count(*) FROM (SELECT FROM t WHERE id % 20 = 1 FOR UPDATE) x; COMMIT; $read" ],
	[ 'rows with several lockers', 'BEGIN; SELECT count(*) FROM (SELECT FROM t WHERE id % 40 = 1 FOR KEY SHARE) x; SAVEPOINT a; UPDATE t SET v = v WHERE id % 80 = 1; COMMIT' ],
	[ 'dead marks in indexes', "DELETE FROM t WHERE id % 9 = 4; $kill; $kill" ],
	[ 'updates in place and pruning', join(';', map { "UPDATE t SET k = k WHERE id % 25 = 3; $read" } 1 .. 5) ],
	# after the checkpoint the lock logs an image of the page, without its hole
	[ 'padding that is the image\'s here and zero in recovery',
		q{DELETE FROM padded WHERE id = 0; VACUUM padded; CHECKPOINT; SELECT id FROM padded WHERE id = 1 FOR UPDATE; INSERT INTO padded VALUES (0, repeat('a', 20))} ],
	[ 'rows in the place of others',
		"DELETE FROM t WHERE id % 2 = 0; VACUUM t; CHECKPOINT; INSERT INTO t SELECT g, g % 40, repeat('y', 50 + g % 17) || g FROM generate_series(2, 500, 2) g" ],
	[ 'pages that are split', q{INSERT INTO t SELECT g, g % 40, repeat('n', g % 23) || g FROM generate_series(501, 900) g} ],
	[ 'a page that is emptied', 'DELETE FROM t WHERE id <= 200; VACUUM t' ],
	[ 'rows frozen anew', 'UPDATE t SET v = v WHERE id % 7 = 0; VACUUM (FREEZE) t' ]);

# The first time the server logs an image of each page, because it is the first
# change since the checkpoint; the second time the deltas are all there is.
for my $work (@works)
{
	my ($title, $sql) = @$work;
	my $from;

	$primary->safe_psql('postgres', 'CHECKPOINT');
	for (1 .. 2)
	{
		$primary->safe_psql($db, $sql);
		$from = $primary->lsn('insert');
		like(put_back($primary, $db), qr/^\d+\|\d+$/, "restore after $title");
	}
	my $to = $primary->lsn('insert');
	$primary->safe_psql('postgres', 'CHECKPOINT');
	my ($dump, $err);
	IPC::Run::run([ $primary->installed_command('pg_waldump'), '-p', $primary->data_dir . '/pg_wal', '-s', $from, '-e', $to, '-r', 'Generic' ],
		'>', \$dump, '2>', \$err) or diag($err);
	cmp_ok(scalar(split /\n/, $dump), '>', 0, 'which logs deltas');

	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	$standby->safe_psql('postgres', 'CHECKPOINT');
	same_pages($primary, $reference, "the pages are those of the snapshot after $title");
	same_pages($standby, $reference, "and so they are on the standby");

	$primary->safe_psql($db, $sql);
	put_back($primary, $db);
	crash($primary);
	same_pages($primary, $reference, 'and after a crash');
}

$standby->stop;
$primary->stop;
done_testing();
