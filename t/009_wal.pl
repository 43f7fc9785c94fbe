# When the detector that reads the WAL may not be trusted, and gives way to the
# one that looks: the WAL is gone, the server was started since, a timeline
# began, other databases wrote too much.  And what it says at DEBUG1.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $db = 'wal_test';
my $node = new_node('wal', streaming => 1, conf => "min_wal_size = 32MB\nmax_wal_size = 1GB\nwal_keep_size = 0\ntestenv.check_detector = on");
$node->start;
seed($node, $db, 300);
$node->safe_psql('postgres', 'CREATE DATABASE neighbour');
$node->safe_psql('neighbour', 'CREATE TABLE noise (v text)');
take($node, $db);
my $clean = state($node, $db);

# Restore, and say by which detector.
sub restored_by
{
	my ($detector, $what, $settings) = @_;

	is($node->safe_psql($db, ($settings // '') . 'SELECT detector FROM testenv_restore()'), $detector, "$what: $detector");
	is_exact($node, $db, $clean, $what);
	return;
}

my $wal = 'SET testenv.detector = wal;';

$node->safe_psql($db, Testenv::work(1));
restored_by('wal', 'the WAL is there', $wal);

# steps, in microseconds
my ($out, $err);
$node->safe_psql($db, Testenv::work(2));
$node->psql($db, 'SELECT testenv_restore()', stdout => \$out, stderr => \$err, extra_params => [ '-c', 'SET client_min_messages = debug1', '-c', "$wal", '-c', 'SELECT testenv_restore()' ]);
like($err, qr/DEBUG:  microseconds of the restore: open \d+, find \d+, lock \d+, collect \d+, prepare \d+, pages \d+, cut \d+, sequences \d+, rest \d+, state \d+/,
	'DEBUG1 says where the time went');
restored_by('wal', 'after that', $wal);

# a segment that a checkpoint has removed or recycled
$node->safe_psql($db, Testenv::work(3));
for my $n (1 .. 4)
{
	$node->safe_psql('neighbour', q{INSERT INTO noise SELECT repeat(md5(g::text), 200) FROM generate_series(1, 2000) g; TRUNCATE noise});
	$node->safe_psql('postgres', 'SELECT pg_switch_wal(); CHECKPOINT');
}
my $first = $node->safe_psql('postgres', 'SELECT min(name) FROM pg_ls_waldir() WHERE name ~ \'^[0-9A-F]{24}$\'');
isnt($first, '000000010000000000000001', "old segments are gone, $first is the first");
restored_by('look', 'the WAL is gone', $wal);
$node->safe_psql($db, Testenv::work(4));
restored_by('wal', 'from then on it is there again', $wal);

# what others wrote is passed over, as long as that is worth it
$node->safe_psql($db, Testenv::work(1));
$node->safe_psql('neighbour', q{INSERT INTO noise SELECT md5(g::text) FROM generate_series(1, 200) g});
restored_by('wal', 'a neighbour wrote a little', $wal);
$node->safe_psql($db, Testenv::work(2));
$node->safe_psql('neighbour', q{INSERT INTO noise SELECT md5(g::text) FROM generate_series(1, 400000) g});
restored_by('look', 'a neighbour wrote a lot', 'SET testenv.detector = auto;');
$node->safe_psql($db, Testenv::work(3));
$node->safe_psql('neighbour', q{INSERT INTO noise SELECT md5(g::text) FROM generate_series(1, 100000) g});
restored_by('wal', 'unless it is told to', $wal);

# a segment that ends early
$node->safe_psql($db, Testenv::work(4));
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->safe_psql($db, Testenv::work(1));
restored_by('wal', 'over the end of a segment', $wal);

# pages and other things may be lost, or left behind, that no WAL names
$node->safe_psql($db, Testenv::work(2));
$node->restart;
restored_by('look', 'the server was started since', $wal);
$node->safe_psql($db, Testenv::work(3));
restored_by('wal', 'once', $wal);
$node->safe_psql($db, Testenv::work(4));
$node->stop('immediate');
$node->start;
restored_by('look', 'the server crashed since', $wal);
$node->safe_psql($db, Testenv::work(1));
restored_by('wal', 'once too', $wal);

# another timeline
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('promoted');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->safe_psql($db, Testenv::work(2));
$node->wait_for_catchup($standby);
$standby->promote;
$node->stop;
$node = $standby;
restored_by('look', 'on a new timeline', $wal);
$node->safe_psql($db, Testenv::work(3));
restored_by('wal', 'and then', $wal);

# changes of a prepared transaction, and of one that is rolled back
$node->safe_psql($db, 'BEGIN;' . Testenv::work(4) . "; PREPARE TRANSACTION 'p'");
$node->safe_psql($db, "COMMIT PREPARED 'p'");
restored_by('wal', 'a prepared transaction', $wal);
$node->safe_psql($db, 'BEGIN;' . Testenv::work(1) . '; ROLLBACK');
restored_by('wal', 'one that was rolled back', $wal);

done_testing();
