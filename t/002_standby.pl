# A streaming standby follows snapshots and restores: data, ctids, sequences and
# indexes are the primary's after each of them.  A session on the standby keeps
# copies of metapages over restores that shrink indexes.  After promotion the
# new primary, which is on another timeline, restores by itself.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $db = 'standby_test';
my $primary = new_node('primary', streaming => 1);
$primary->start;
seed($primary, $db, 2000);
$primary->backup('copy');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->append_conf('postgresql.conf', "max_standby_streaming_delay = 60s\n");
$standby->start;

# the state without unlogged tables, which only one of the two can read
sub logged_state
{
	my ($node) = @_;
	return join "\n", grep { !/^fleeting/ } split /\n/, Testenv::state($node, $db);
}

sub follows
{
	my ($title) = @_;
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	is(logged_state($standby), logged_state($primary), "$title: the standby equals the primary");
	return;
}

take($primary, $db);
my $reference = state($primary, $db);
follows('snapshot');
is($standby->safe_psql($db, 'SELECT name, is_current FROM testenv_snapshots()'), 'default|t', 'the standby lists the snapshot');
my $unlogged = $primary->safe_psql($db, "SELECT count(*) FROM pg_class WHERE relpersistence = 'u'");
cmp_ok($unlogged, '>', 0, 'there is an unlogged table, which is compared on the primary only');

for my $call ('testenv_snapshot()', 'testenv_restore()', q{testenv_drop('default')})
{
	like(error_of($standby, $db, "SELECT $call"), qr/^25006: cannot \w+ a snapshot during recovery/, "$call is refused on a standby");
}

# Everything that this session reads, it reads through an index.
my $reader = Testenv::Session->new($standby, $db);
my @questions = (
	'SELECT count(*), sum(id) FROM item WHERE id BETWEEN 1 AND 3000',
	'SELECT count(*) FROM item WHERE h = 77',
	'SELECT count(*) FROM item WHERE h = 6400',
	'SELECT count(*) FROM item WHERE tags @> ARRAY[6400]',
	q{SELECT count(*) FROM item WHERE p <@ box(point(0, 0), point(100, 100))},
	q{SELECT count(*) FROM item WHERE r && int4range(5, 9)},
	'SELECT count(*), sum(id) FROM big WHERE id BETWEEN 1 AND 500');
$reader->ask('SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan');
$reader->ask("PREPARE q$_ AS $questions[$_]") for 0 .. $#questions;
sub answers
{
	return join "\n", map { $reader->ask("EXECUTE q$_") } 0 .. $#questions;
}
my $expected = answers();
unlike($expected, qr/ERROR/, 'index scans on the standby work');

for my $n (1 .. 6)
{
	$primary->safe_psql($db, Testenv::work($n));
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	isnt(answers(), $expected, "the reader on the standby sees work $n");
	is($standby->safe_psql($db, 'SELECT testenv_is_clean()'), 'f', "not clean on the standby after work $n");

	# also where the restore's transaction is rolled back, or its commit unknown
	my $restore = 'SET testenv.check_detector = on; SELECT testenv_restore()';
	$restore = "BEGIN; $restore; ROLLBACK" if $n % 3 == 2;
	$primary->safe_psql($db, $restore);
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	is(answers(), $expected, "the reader on the standby sees restore $n");
	is(logged_state($standby), join("\n", grep { !/^fleeting/ } split /\n/, $reference), "the standby is exact after restore $n");
}
is_exact($primary, $db, $reference, 'and so is the primary');
$standby->restart;
is(logged_state($standby), logged_state($primary), 'the standby is exact after a restart');

# Promotion in the middle of a test.
$primary->safe_psql($db, Testenv::work(3));
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$reader->quit;
$primary->stop('immediate');
$standby->promote;
is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 'f', 'promoted');
is($standby->safe_psql($db, 'SELECT testenv_is_clean()'), 'f', 'not clean after promotion');
like(put_back($standby, $db), qr/^\d+\|\d+$/, 'the promoted server restores');
is_exact($standby, $db, $reference, 'exact after promotion');
$standby->safe_psql($db, Testenv::work(4));
put_back($standby, $db);
is_exact($standby, $db, $reference, 'exact after work on the new timeline');
crash($standby);
put_back($standby, $db);
is_exact($standby, $db, $reference, 'exact after a crash on the new timeline');
take($standby, $db);
$standby->stop;

done_testing();
