# The free space maps after a crash.  The server does not log them, so a crash
# can lose or set back the map of a table that nothing is done to any more; the
# next restore mends it, although nothing of the table is to be put back.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $db = 'freespace_test';
my $node = new_node('freespace');
$node->start;
$node->safe_psql('postgres', "CREATE DATABASE $db");
# two tables with room on their pages, of which one is left alone; a large map
# has two leaf pages; and one that was never vacuumed, so that only the snapshot
# makes its map
$node->safe_psql($db, q{
	CREATE EXTENSION testenv;
	CREATE TABLE quiet (id int, v text) WITH (autovacuum_enabled = off);
	CREATE TABLE large (id int, v text) WITH (autovacuum_enabled = off, fillfactor = 10);
	CREATE TABLE busy (id int, v text) WITH (autovacuum_enabled = off);
	INSERT INTO quiet SELECT g, repeat('q', g % 500) FROM generate_series(1, 1000) g;
	INSERT INTO busy SELECT g, repeat('b', g % 500) FROM generate_series(1, 1000) g;
	INSERT INTO large SELECT g, repeat('l', 750) FROM generate_series(1, 4200) g;
	DELETE FROM quiet WHERE id % 3 = 0;
	DELETE FROM busy WHERE id % 3 = 0;
	DELETE FROM large WHERE id % 100 = 0;
	CHECKPOINT;});
$node->safe_psql($db, q{
	BEGIN;
	CREATE TABLE copied (id int, v text) WITH (autovacuum_enabled = off);
	COPY copied FROM PROGRAM 'seq -f "%.0f	copied" 1 700' WITH (FREEZE);
	COMMIT;
	SELECT testenv_snapshot();});

my @tables = qw(quiet large busy copied);

sub map_file
{
	my $table = shift;

	return $node->data_dir . '/' . $node->safe_psql($db, "SELECT pg_relation_filepath('$table')") . '_fsm';
}

# The maps on the disk: what each page holds behind its header.
sub maps
{
	my $text = '';

	$node->safe_psql('postgres', 'CHECKPOINT');
	for my $table (@tables)
	{
		my $bytes = slurp_file(map_file($table));

		$text .= "$table $_: " . unpack('H*', substr($bytes, $_ * 8192 + 24, 8168)) . "\n" for 0 .. length($bytes) / 8192 - 1;
	}
	return $text;
}

# Crash, and leave a file as a crash can leave it.
sub crash_and
{
	my ($table, $damage) = @_;
	my $file = map_file($table);

	$node->stop('immediate');
	$damage->($file);
	$node->start;
}

# WAL brings back what the snapshot itself wrote, not what VACUUM wrote for it
crash_and('quiet', sub { });
like(maps(), qr/^copied 2: 0*[1-9a-f]/m, 'the map that the snapshot made survives a crash');
is(put_back($node, $db), '0|0', 'nothing to put back after the crash');
my $reference = maps();
$node->safe_psql($db, 'VACUUM (DISABLE_PAGE_SKIPPING) ' . join(', ', @tables));
ok(maps() eq $reference, 'the maps are those that VACUUM makes');
put_back($node, $db);

for my $table ('quiet', 'large')
{
	crash_and($table, sub { unlink(shift) or die; });
	is(put_back($node, $db), '0|0', "nothing to put back after the map of $table was lost");
	ok(maps() eq $reference, "but its map is");

	crash_and($table, sub { my $file = shift; truncate($file, 8192) or die; });
	is(put_back($node, $db), '0|0', "nothing to put back after the map of $table was cut");
	ok(maps() eq $reference, "but its map is");
}

# An old map: the page lay on the disk as it was while the table was another.
$node->safe_psql($db, "DELETE FROM busy WHERE id % 2 = 0; VACUUM busy; CHECKPOINT;");
my $old = slurp_file(map_file('busy'));
put_back($node, $db);
ok(maps() eq $reference, 'the map of a table that was changed is put back');
put_back($node, $db);
crash_and('busy', sub { my $file = shift; open(my $f, '>:raw', $file) or die; print $f $old; close $f; });
ok(maps() ne $reference, 'a crash has set a map back');
is(put_back($node, $db), '0|0', 'nothing else to put back');
ok(maps() eq $reference, 'the map is mended');

# A crash that the postmaster outlives.
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $victim = Testenv::Session->new($node, 'postgres');
truncate(map_file('quiet'), 8192) or die;
kill 'KILL', $victim->{pid} or die;
await_start($node);
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the postmaster has outlived the crash of a backend');
ok(maps() ne $reference, 'which has cut a map');
is(put_back($node, $db), '0|0', 'nothing else to put back');
ok(maps() eq $reference, 'the map is mended');

# And only once: then it is no crash any more.
$node->safe_psql($db, "UPDATE busy SET v = 'x' WHERE id = 1");
is(put_back($node, $db), '1|1', 'a change is put back');
ok(maps() eq $reference, 'with its map');

$node->stop;
done_testing();
