# Crashes: kill -9 during work and in the middle of a restore, cancels and
# rollbacks.  Whatever happened, the next testenv_restore() gives exactly the
# reference.  (After a crash in a restore the tables may be torn until then; that
# is documented.)
#
# A restore has no hooks to be stopped at.  So it is made long, its duration is
# measured, and it is killed after random parts of that.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $db = 'crash_test';
random_seed();

my $node = new_node('crash');
$node->start;
seed($node, $db, 8000);
take($node, $db);
my $reference = state($node, $db);
put_back($node, $db);
is_exact($node, $db, $reference, 'a restore of an unchanged database changes nothing');

# how long a restore takes, in microseconds
$node->safe_psql($db, Testenv::work(1));
my $took = 1000 * $node->safe_psql($db, 'SELECT elapsed_ms FROM testenv_restore()');
note("a restore takes $took us");
is_exact($node, $db, $reference, 'a restore after work is exact');

# A restart keeps snapshots, and what the database is equal to.
$node->restart;
is($node->safe_psql($db, 'SELECT testenv_is_clean()'), 't', 'clean after a restart');
is(put_back($node, $db), '0|0', 'nothing to put back after a restart');

# Crash during work, and with nothing done since a restore.
for my $n (2 .. 3)
{
	my $session = Testenv::Session->new($node, $db);

	$session->send(Testenv::work($n) . Testenv::work($n + 1));
	usleep(int(rand(600_000)));
	crash($node);
	$session->quit;
	like(put_back($node, $db), qr/^\d+\|\d+$/, "restore after a crash during work $n");
	is_exact($node, $db, $reference, "exact after a crash during work $n");
	crash($node);
	put_back($node, $db);
	is_exact($node, $db, $reference, "exact after a crash right after the restore $n");
}

# Unlogged tables are emptied by recovery; the restore brings them back.
crash($node);
is($node->safe_psql($db, 'SELECT count(*) FROM fleeting'), '0', 'a crash has emptied an unlogged table');
is($node->safe_psql($db, 'SELECT testenv_is_clean()'), 'f', 'which is a change');
put_back($node, $db);
is($node->safe_psql($db, 'SELECT count(*) FROM fleeting'), '300', 'the restore has filled it again');
is_exact($node, $db, $reference, 'exact after a crash that emptied an unlogged table');

# Killed in a restore: the backend by SIGKILL, or the whole server.
my $cut = 0;
my $torn = 0;
for my $n (1 .. 10)
{
	$node->safe_psql($db, Testenv::work($n));
	$node->safe_psql($db, 'CHECKPOINT') if $n % 2;
	my $session = Testenv::Session->new($node, $db);
	my $delay = int(rand(1.1) * $took);

	# every third time the server writes out what it has meanwhile
	my $checkpoint = $n % 3 == 0 ? Testenv::Session->new($node, 'postgres') : undef;
	$session->send('SELECT testenv_restore()');
	$checkpoint->send('CHECKPOINT') if $checkpoint;
	usleep($delay);
	if ($n % 2)
	{
		kill 'KILL', $session->{pid};
		$cut++ unless defined $session->receive;
		await_start($node);
	}
	else
	{
		$node->stop('immediate');
		$cut++ unless defined $session->receive;
		$node->start;
	}
	$session->quit;
	$checkpoint->quit if $checkpoint;
	my $state = eval { Testenv::state($node, $db) } // 'torn';
	$torn++ if $state ne $reference;
	like(put_back($node, $db), qr/^\d+\|\d+$/, "restore after kill $n, $delay us into a restore");
	is_exact($node, $db, $reference, "exact after kill $n");
}
note("$cut of 10 kills came before the restore was through; $torn left something to put back");
ok($cut > 0, 'at least one restore was killed in the middle');

# Cancels: before the first page they end the restore, later they wait for its end.
# Nobody sees half of it.
my $cancelled = 0;
for my $n (1 .. 4)
{
	$node->safe_psql($db, Testenv::work($n));
	my $work = state($node, $db);
	my $session = Testenv::Session->new($node, $db);
	my $delay = int(rand(0.9) * $took);
	my $answer;

	if ($n % 2)
	{
		$session->send('SELECT testenv_restore()');
		usleep($delay);
		$node->safe_psql('postgres', "SELECT pg_cancel_backend($session->{pid})");
		$answer = $session->receive;
	}
	else
	{
		my $ms = 1 + int($delay / 1000);
		$answer = $session->ask("SET statement_timeout = ${ms}; SELECT testenv_restore()");
	}
	$cancelled++ if $answer =~ /canceling statement/;
	like($answer, qr/^\(default,\d+,\d+,\d+,[\d.]+,\w+,\d+\)|canceling statement due to/, "restore $n is done or cancelled");
	my $state = state($node, $db);
	ok($state eq $work || $state eq $reference, "all of restore $n has happened, or nothing") or diag("found:\n$state");
	is(indexes_agree($node, $db), '', "and indexes agree with their tables after cancel $n");
	$session->quit;
	put_back($node, $db);
	is_exact($node, $db, $reference, "exact after cancel $n");
}
note("$cancelled of 4 restores were cancelled");

# ROLLBACK does not undo a restore, and leaves nothing behind.
for my $n (1 .. 2)
{
	$node->safe_psql($db, Testenv::work($n));
	$node->safe_psql($db, 'BEGIN; SELECT testenv_restore(); ROLLBACK');
	is_exact($node, $db, $reference, "exact after a restore that was rolled back $n");
	$node->safe_psql($db, 'BEGIN; SELECT testenv_restore(); SELECT testenv_is_clean(); ROLLBACK');
	crash($node) if $n == 2;
	put_back($node, $db);
	is_exact($node, $db, $reference, "exact after a second one $n");
}

# Several snapshots.  Each killed restore of one leaves pages of it behind that
# are changes for every other.
$node->safe_psql($db, Testenv::work(7) . 'ANALYZE');
take($node, $db, 'other');
my %references = (default => $reference, other => state($node, $db));
isnt($references{other}, $reference, 'the other snapshot is another one');
my @names = ('default', 'other');
for my $n (1 .. 6)
{
	my $victim = $names[ $n % 2 ];
	my $next = $names[ int(rand(2)) ];
	my $session;

	$node->safe_psql($db, Testenv::work($n)) if $n % 4 == 0;
	$session = Testenv::Session->new($node, $db);
	$session->send("SELECT testenv_restore('$victim')");
	usleep(int(rand(1.0) * $took));
	kill 'KILL', $session->{pid};
	$session->receive;
	await_start($node);
	$session->quit;
	put_back($node, $db, $next);
	is_exact($node, $db, $references{$next}, "kill in a restore of $victim, then $next ($n)");
	my ($again) = grep { $_ ne $next } @names;
	put_back($node, $db, $again);
	is_exact($node, $db, $references{$again}, "and then $again ($n)");
}
put_back($node, $db, 'default');
is_exact($node, $db, $reference, 'back to the first snapshot');
$node->stop;

# Pages that a restore appends go to disk past shared buffers.  They must not get
# there before the WAL that they speak of: after a crash that WAL never was, a
# page that claims to be newer than anything, and recovery leaves out later
# changes of it.  The background writer of WAL is put to sleep to have the crash
# come first.
$node->append_conf('postgresql.conf', "wal_writer_delay = 10s\n");
$node->start;
create_database($node, 'ahead_test');
$node->safe_psql('ahead_test', q{CREATE TABLE t AS SELECT i AS id, repeat('x', 500) AS v FROM generate_series(1, 1000) i});
take($node, 'ahead_test');
$reference = state($node, 'ahead_test');
$node->safe_psql('ahead_test', 'CHECKPOINT; TRUNCATE t');
my $open = Testenv::Session->new($node, 'ahead_test');
like($open->ask('BEGIN; SELECT testenv_restore()'), qr/^\(default,1,0,/, 'pages are appended');
crash($node);
$open->quit;
put_back($node, 'ahead_test');
is_exact($node, 'ahead_test', $reference, 'exact after a crash that lost the WAL of a restore');
is($node->safe_psql('ahead_test', q{UPDATE t SET v = 'kept' WHERE id <= 100; SELECT count(*) FROM t WHERE v = 'kept'}),
	'100', 'rows of appended pages are changed');
crash($node);
is($node->safe_psql('ahead_test', q{SELECT count(*), count(*) FILTER (WHERE v = 'kept') FROM t}),
	'1000|100', 'and what was committed is there after another crash');
put_back($node, 'ahead_test');
is_exact($node, 'ahead_test', $reference, 'exact after appending and two crashes');
$node->stop;

done_testing();
