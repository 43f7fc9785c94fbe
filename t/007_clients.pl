# Clients stay connected.  pgbench writes with prepared statements while the
# database is restored fifty times under it: no client is thrown out, none meets
# a block or a row that is not there, and what is restored is exact.
#
# Also here: a snapshot while another database has a long transaction, which
# keeps vacuum from freezing.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run;

my $db = 'clients_test';
my $node = new_node('clients', conf => <<'CONF');
log_error_verbosity = verbose
deadlock_timeout = 50ms
CONF
$node->start;
create_database($node, $db);
$node->command_ok([ 'pgbench', '-iq', '-s', '2', '--foreign-keys', $node->connstr($db) ], 'pgbench -i');
$node->safe_psql($db, 'ALTER TABLE pgbench_history ADD id serial PRIMARY KEY');
take($node, $db);
my $reference = state($node, $db);

# A transaction of its own each, because a restore locks several tables, and
# whoever does the same in another order loses a deadlock now and then; the one
# in the middle has two tables, and tries again.
my $script = $PostgreSQL::Test::Utils::tmp_check . '/work.sql';
append_to_file($script, <<'SQL');
\set aid random(1, 200000)
\set tid random(1, 20)
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = :tid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, 1, :aid, 1, CURRENT_TIMESTAMP);
BEGIN;
SELECT count(*) FROM pgbench_history WHERE id > 10;
UPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = 1;
COMMIT;
DELETE FROM pgbench_history WHERE id = (SELECT max(id) FROM pgbench_history);
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
SQL
my ($out, $err) = ('', '');
my $pgbench = IPC::Run::start(
	[ $node->installed_command('pgbench'), '-n', '-c', '4', '-j', '4', '-M', 'prepared', '--max-tries=1000', '-T', '6', '-f', $script, $node->connstr($db) ],
	'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(120));
my $restored = 0;
my $refused = 0;
my $lost = 0;
while ($pgbench->pumpable)
{
	my $error = error_of($node, $db, 'SELECT testenv_restore()');

	if ($error =~ /^no error/) { $restored++; }
	# it waits for locks like everybody, so it can lose like everybody
	elsif ($error =~ /^40P01/) { $lost++; }
	else { $refused++; diag($error); }
	$pgbench->pump_nb;
}
$pgbench->finish;
note("$restored restores, $lost lost to a deadlock\n$out");
ok($restored >= 50, 'at least 50 restores while clients write');
is($refused, 0, 'none failed');
ok(!$pgbench->result, q{pgbench has ended well}) or diag($err);
unlike($err, qr/aborted|ERROR|FATAL/, 'no client was thrown out');
like($out, qr/number of failed transactions: 0 /, 'no transaction was given up');
my ($done) = $out =~ /number of transactions actually processed: (\d+)/;
cmp_ok($done // 0, '>', 100, 'and they have worked');
unlike(slurp_file($node->logfile), qr/(ERROR|FATAL|PANIC):  XX/, 'no internal error in the server log');
put_back($node, $db);
is_exact($node, $db, $reference, 'exact after it all');

# Another database's transaction.
my $elsewhere = Testenv::Session->new($node, 'postgres');
$elsewhere->ask('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()');
$node->safe_psql($db, q{CREATE TABLE later (id int PRIMARY KEY, v text); INSERT INTO later SELECT i, repeat('v', 3000) FROM generate_series(1, 500) i; DELETE FROM later WHERE id % 5 = 0});
is(take($node, $db, 'later'), '5', 'a snapshot while another database has a long transaction');
$reference = state($node, $db);
$node->safe_psql($db, q{DELETE FROM later; UPDATE pgbench_tellers SET tbalance = 5});
put_back($node, $db);
is_exact($node, $db, $reference, 'exact, with that transaction still open');
like($elsewhere->ask('COMMIT'), qr/^$/, 'which has not noticed anything');
$elsewhere->quit;
$node->safe_psql($db, 'DELETE FROM later');
put_back($node, $db);
is_exact($node, $db, $reference, 'and without it');
$node->stop;

done_testing();
