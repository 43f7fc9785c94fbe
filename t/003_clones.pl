# Copies of a database with its snapshots: CREATE DATABASE ... TEMPLATE by both
# strategies, base backup, dump, and what is left after DROP DATABASE.
#
# A clone by wal_log has new LSNs on every page and, after a crash, zeroed pages
# in visibility maps.  Its state page was written for another database.  So the
# first restore there has to compare everything, and must be exact.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('clones', streaming => 1);
$node->start;
seed($node, 'origin_test', 2000);
take($node, 'origin_test');
my $reference = state($node, 'origin_test');
$node->safe_psql('origin_test', Testenv::work(1));
take($node, 'origin_test', 'second');
my $second = state($node, 'origin_test');
$node->safe_psql('origin_test', q{INSERT INTO big VALUES (-1, 'kept in the original')});
my $original = state($node, 'origin_test');

# The same on every clone; $crash: right after the clone was made.
sub try_clone
{
	my ($clone, $strategy, $crash) = @_;
	my $title = $strategy . ($crash ? ' and a crash' : '');

	$node->safe_psql('postgres', "CREATE DATABASE $clone TEMPLATE origin_test STRATEGY $strategy");
	crash($node) if $crash;
	is($node->safe_psql($clone, 'SELECT name FROM testenv_snapshots() ORDER BY 1'), "default\nsecond", "$title: the snapshots are there");
	is($node->safe_psql($clone, 'SELECT testenv_is_clean()'), 'f', "$title: the clone is not clean");
	like(put_back($node, $clone), qr/^\d+\|\d+$/, "$title: restore");
	is_exact($node, $clone, $second, "$title: the current snapshot is restored exactly");
	put_back($node, $clone, 'default');
	is_exact($node, $clone, $reference, "$title: so is the other one");
	is($node->safe_psql($clone, 'SELECT testenv_is_clean()'), 't', "$title: and clean");
	$node->safe_psql($clone, Testenv::work(2));
	put_back($node, $clone);
	is_exact($node, $clone, $reference, "$title: and exact after work");
	$node->safe_psql($clone, Testenv::work(3));
	is(take($node, $clone, 'default'), $node->safe_psql($clone, q{SELECT tables FROM testenv_snapshots() WHERE name = 'default'}), "$title: a new snapshot there");
	$node->safe_psql($clone, q{SELECT testenv_drop('second')});
	return;
}

# An unlogged table is emptied by a crash, in the original too.
my $crashed = 0;
sub original_is_untouched
{
	my ($title) = @_;
	my $now = state($node, 'origin_test');
	my $then = $original;

	s/^fleeting.*//mg for $crashed ? ($now, $then) : ();
	is($now, $then, "$title: the original is as it was");
	return;
}

for my $strategy ('wal_log', 'file_copy')
{
	try_clone("clone_$strategy\_test", $strategy, 0);
	original_is_untouched($strategy);
}
for my $strategy ('wal_log', 'file_copy')
{
	$crashed = 1;
	try_clone("crashed_$strategy\_test", $strategy, 1);
	original_is_untouched("$strategy and a crash");
}
put_back($node, 'origin_test');
is_exact($node, 'origin_test', $second, 'the original restores its own');

# A clone whose pages nobody has looked at before: trust nothing of its map.
$node->safe_psql('postgres', 'CREATE DATABASE clean_test TEMPLATE origin_test STRATEGY wal_log');
crash($node);
put_back($node, 'clean_test');
is_exact($node, 'clean_test', $second, 'a clone of a clean database after a crash');
$node->safe_psql('clean_test', 'DELETE FROM big WHERE id % 2 = 0');
put_back($node, 'clean_test');
is_exact($node, 'clean_test', $second, 'and after a first change there');

# A dump holds nothing of the snapshots.
my $dump = $PostgreSQL::Test::Utils::tmp_check . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('origin_test') ], 'pg_dump');
my $text = slurp_file($dump);
like($text, qr/CREATE EXTENSION IF NOT EXISTS testenv/, 'the dump has the extension');
unlike($text, qr/snapshot_|testenv_image|testenv_store\.state|COPY testenv_store/, 'the dump has nothing of the snapshots');
$node->safe_psql('postgres', 'CREATE DATABASE dumped_test');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', File::Spec->devnull, '-f', $dump, $node->connstr('dumped_test') ], 'the dump is restored');
is($node->safe_psql('dumped_test', 'SELECT count(*) FROM testenv_snapshots()'), '0', 'there are no snapshots there');
like(error_of($node, 'dumped_test', 'SELECT testenv_restore()'), qr/^42704: there is no snapshot/, 'and nothing to restore');
take($node, 'dumped_test');
my $dumped = state($node, 'dumped_test');
$node->safe_psql('dumped_test', Testenv::work(4));
put_back($node, 'dumped_test');
is_exact($node, 'dumped_test', $dumped, 'a snapshot of the restored dump');

# Statements that go over a whole database leave the store alone.
$node->command_ok([ 'vacuumdb', '--full', '--analyze', '-d', $node->connstr('origin_test') ], 'VACUUM FULL of everything');
put_back($node, 'origin_test');
is_exact($node, 'origin_test', $second, 'exact after VACUUM FULL of everything');

# A base backup of a running server.
$node->safe_psql('origin_test', Testenv::work(5));
$node->backup('base');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'base');
$copy->start;
put_back($copy, 'origin_test', 'default');
is_exact($copy, 'origin_test', $reference, 'a base backup restores the one snapshot');
put_back($copy, 'origin_test', 'second');
is_exact($copy, 'origin_test', $second, 'and the other');
$copy->stop;

# Nothing stays behind.
for my $clone ('clone_wal_log_test', 'clone_file_copy_test')
{
	my $dir = $node->data_dir . '/base/' . $node->safe_psql('postgres', "SELECT oid FROM pg_database WHERE datname = '$clone'");

	ok(-d $dir, "$clone has a directory");
	$node->safe_psql('postgres', "DROP DATABASE $clone");
	$node->safe_psql('postgres', 'CHECKPOINT');
	ok(!-e $dir, "DROP DATABASE has removed the files of $clone");
}
my $size = size_on_disk($node, 'origin_test');
my $store = $node->safe_psql('origin_test', 'SELECT sum(bytes) FROM testenv_snapshots()');
$node->safe_psql('origin_test', q{SELECT testenv_drop('default'), testenv_drop('second')});
$node->safe_psql('postgres', 'CHECKPOINT');
cmp_ok(size_on_disk($node, 'origin_test'), '<=', $size - $store, 'testenv_drop gives the disk space back');

# Checksums of everything, after a clean stop.
$node->stop;
command_ok([ 'pg_checksums', '--check', '-D', $node->data_dir ], 'checksums of the server are right');
command_ok([ 'pg_checksums', '--check', '-D', $copy->data_dir ], 'and those of the copy');

# pg_upgrade within a major version moves the files; the store goes along.
SKIP:
{
	my $new = new_node('upgraded');
	my @upgrade = (
		'pg_upgrade', '--no-sync', '-d', $node->data_dir, '-D', $new->data_dir,
		'-b', $node->config_data('--bindir'), '-B', $new->config_data('--bindir'),
		'-s', $new->host, '-p', $node->port, '-P', $new->port);
	my ($out, $err);

	skip 'no pg_upgrade beside this server', 2 unless -x $node->config_data('--bindir') . '/pg_upgrade';
	chdir $PostgreSQL::Test::Utils::tmp_check or die $!;
	ok(IPC::Run::run(\@upgrade, '>', \$out, '2>', \$err), 'pg_upgrade') or diag("$out$err");
	$new->start;
	is($new->safe_psql('crashed_wal_log_test', 'SELECT name FROM testenv_snapshots()'), 'default', 'the snapshot has come along');
	my $moved = put_back($new, 'crashed_wal_log_test');
	like($moved, qr/^\d+\|\d+$/, 'and can be restored');
	my $state = state($new, 'crashed_wal_log_test');
	$new->safe_psql('crashed_wal_log_test', 'DELETE FROM big; TRUNCATE item');
	put_back($new, 'crashed_wal_log_test');
	is_exact($new, 'crashed_wal_log_test', $state, 'exactly, in the new cluster');
	$new->stop;
}

done_testing();
