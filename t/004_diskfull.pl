# A full disk.  A snapshot that does not fit leaves the old one; a restore that
# cannot grow the files back leaves the tables as they were.  Both are one ERROR
# 53100, and both work once there is room again.
#
# The database, with its store, lies in a tablespace on a small file system that
# TESTENV_SMALL_DISK names: mounting one takes root, which a server must not be.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $disk = $ENV{TESTENV_SMALL_DISK};
plan skip_all => 'TESTENV_SMALL_DISK names no small file system (make check as root mounts one)'
  unless defined $disk && -d $disk;

my $db = 'full_test';
my $space = "$disk/space.$$";
my $filler = "$disk/filler.$$";
mkdir $space or die "$space: $!";

# Leave about so many kB free.
sub leave_free
{
	my ($kb) = @_;
	my $chunk = 'x' x 65536;
	my $written = 0;

	open my $file, '>', $filler or die "$filler: $!";
	while (1)
	{
		my $n = syswrite $file, $chunk;
		last unless $n;
		$written += $n;
		die "$disk is not small" if $written > 1024 * 1024 * 1024;
	}
	truncate $file, $written > $kb * 1024 ? $written - $kb * 1024 : 0 or die "$filler: $!";
	close $file;
	return;
}

sub make_room
{
	unlink $filler;
	return;
}

my $node = new_node('full');
$node->start;
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$space'");
create_database($node, $db, 'TABLESPACE small');
$node->safe_psql($db, <<'SQL');
CREATE TABLE a (id int PRIMARY KEY, v text);
INSERT INTO a SELECT i, 'a ' || i FROM generate_series(1, 1000) i;
CREATE TABLE t (id int PRIMARY KEY, pad text);
INSERT INTO t SELECT i, rpad(md5(i::text), 1000, 'x') FROM generate_series(1, 5000) i;
CREATE TABLE z (id int PRIMARY KEY, v text);
INSERT INTO z SELECT i, 'z ' || i FROM generate_series(1, 1000) i;
SQL
take($node, $db);
my $reference = state($node, $db);
my $made = $node->safe_psql($db, 'SELECT created_at, bytes FROM testenv_snapshots()');

# A snapshot does not fit: of the same name, and of another.
$node->safe_psql($db, 'UPDATE a SET id = -id; DELETE FROM z WHERE id % 2 = 0; CHECKPOINT');
my $changed = state($node, $db);
for my $name ('default', 'another')
{
	leave_free(1500);
	my $error = error_of($node, $db, "SELECT testenv_snapshot('$name')");

	like($error, qr/^53100: could not (extend|write)/, "snapshot '$name' on a full disk");
	is($node->safe_psql($db, 'SELECT created_at, bytes FROM testenv_snapshots()'), $made, 'the old snapshot is as it was, and the only one');
	is($node->safe_psql($db, "SELECT count(*) FROM pg_class WHERE relname ~ '^snapshot_'"), '1', 'and nothing else is in the catalogs');
	make_room();
}
is(state($node, $db), $changed, 'the tables are as they were');
put_back($node, $db);
is_exact($node, $db, $reference, 'the old snapshot is restored');

# What a failed snapshot wrote is gone from the disk.
$node->safe_psql('postgres', 'CHECKPOINT');
leave_free(0);
my $used_before = -s $filler;
make_room();
leave_free(1500);
error_of($node, $db, q{SELECT testenv_snapshot('another')});
make_room();
$node->safe_psql('postgres', 'CHECKPOINT');
leave_free(0);
my $used_after = -s $filler;
make_room();
cmp_ok(abs($used_after - $used_before), '<=', 256 * 1024, 'a failed snapshot leaves no file behind');

# A restore has to grow a file, and cannot.
for my $how ('TRUNCATE t', 'DELETE FROM t WHERE id > 100; VACUUM t')
{
	$node->safe_psql($db, "UPDATE a SET v = 'changed'; UPDATE z SET v = 'changed'; $how; CHECKPOINT");
	my $work = state($node, $db);

	leave_free(1000);
	my $error = error_of($node, $db, 'SELECT testenv_restore()');
	like($error, qr/^53100: could not extend/, "$how: restore on a full disk");
	is(state($node, $db), $work, "$how: nothing has been put back");
	is(indexes_agree($node, $db), '', "$how: indexes and tables agree");
	is($node->safe_psql($db, 'SELECT testenv_is_clean()'), 'f', "$how: which is not clean");
	is($node->safe_psql($db, 'SELECT created_at, bytes FROM testenv_snapshots()'), $made, "$how: the snapshot is there");
	like(error_of($node, $db, 'SELECT testenv_restore()'), qr/^53100: /, "$how: and again");
	crash($node) if $how =~ /TRUNCATE/;
	make_room();
	like(put_back($node, $db), qr/^3\|\d+$/, "$how: with room there is, it restores");
	is_exact($node, $db, $reference, "$how: exactly");
}

# And a snapshot works again too.
is(take($node, $db, 'another'), '3', 'a snapshot with room there is');
$node->safe_psql('postgres', "DROP DATABASE $db");
$node->safe_psql('postgres', 'CHECKPOINT; DROP TABLESPACE small');
$node->stop;
rmdir $space;

done_testing();
