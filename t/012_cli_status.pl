# testenv status: what makes a database healthy, degraded and unhealthy, and what
# is told of it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use TestenvCli;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('cli_status', streaming => 1);
$node->start;
use_node($node);
small_database('a_test');

# The one database's part of the report.
sub status
{
	my ($db, @more) = @_;
	my $run = cli_json('status', '-d', $db, @more);

	return ($run->{json}{databases}[0], $run);
}

# "health: reason; reason"
sub health
{
	my ($of, $run) = status(@_);

	return "$run->{code} $of->{health}: " . join '; ', @{ $of->{reasons} };
}

# --- no snapshot, then healthy
is(health('a_test'), '1 unhealthy: there is no snapshot: run testenv snapshot', 'no snapshot');
cli('snapshot', '-q', '-d', 'a_test', 'seeded', '--label', 'as it was');
is(health('a_test'), '0 healthy: ', 'with a snapshot: healthy');
my ($of) = status('a_test');
my ($version) = $node->safe_psql('a_test', q{SELECT extversion FROM pg_extension WHERE extname = 'testenv'});
is("$of->{extension_version} $of->{available_version} $of->{server_version}", "$version $version " . $node->safe_psql('a_test', 'SHOW server_version'), 'versions');
is_deeply($of->{guards}, { test_in_name => JSON::PP::true, template => JSON::PP::false, testing_mode => JSON::PP::true,
	in_recovery => JSON::PP::false, execute_not_granted => undef }, 'guards');
is_deeply($of->{settings}, { lock_timeout => '5s', new_tables => 'empty', check_detector => 'off' }, 'settings');
is("$of->{snapshot}{name}, $of->{snapshot}{label}, $of->{snapshot}{tables}, $of->{snapshot}{bytes}",
	'seeded, as it was, 1, ' . $node->safe_psql('a_test', 'SELECT bytes FROM testenv_snapshots()'), 'the snapshot');
cmp_ok($of->{snapshot}{age_seconds}, '>=', 0, 'its age');
is($of->{snapshot}{restores} . ($of->{snapshot}{last_restored_at} // 'never'), '0never', 'no restore yet');
ok($of->{clean}, 'clean');
$node->safe_psql('a_test', 'DELETE FROM t');
($of) = status('a_test');
is($of->{health} . ($of->{clean} ? ' clean' : ' changed'), 'healthy changed', 'a change: changed, and healthy');
my $run = cli('status', '-d', 'a_test');
like($run->{out}, qr/^database +health +server +testenv +guards +snapshot +age +size +data +restores +last +slowest +label\na_test +healthy +\S+.* +\Q$version\E +met +seeded +\d+ s +[\d.]+ kB +changed +0 +- +- +as it was\n\z/, 'the table');
cli('restore', '-q', '-d', 'a_test');
($of) = status('a_test');
is("$of->{snapshot}{restores} " . ($of->{clean} ? 'clean' : 'changed'), '1 clean', 'a restore: counted, clean');
like($of->{snapshot}{last_restored_at}, qr/^\d{4}-\d\d-\d\dT/, 'and when');

# --- how long they took
cmp_ok($of->{last_restore_ms}, '>', 0, 'the last restore took some time');
cmp_ok($of->{slowest_restore_ms}, '>=', $of->{last_restore_ms}, 'no more than the slowest');
like(cli('status', '-d', 'a_test')->{out}, qr/ [\d.]+ ms +as it was$/m, 'in the table, too');

# --- sessions and prepared transactions in the way
my $session = held_lock('a_test');
like(health('a_test'), qr/\A3 degraded: session $session->{pid} \(user "\S+", application "\S+", idle in transaction\) has held a lock on public\.t for \d+ s: SELECT count\(\*\) FROM t/,
	'a session idle in a transaction');
($of) = status('a_test');
is("$of->{blocking_sessions}[0]{pid} $of->{blocking_sessions}[0]{state} $of->{blocking_sessions}[0]{relations}", "$session->{pid} idle in transaction public.t", 'in detail');
like(cli('status', '-d', 'a_test')->{out}, qr/^a_test +degraded.*\na_test: session $session->{pid} /m, 'a line below the table');
$session->ask('COMMIT');
is(health('a_test'), '0 healthy: ', 'it has committed: healthy');
$session->ask('BEGIN');
$session->ask('SELECT 1');
is(health('a_test'), '0 healthy: ', 'idle in a transaction that has used no table: in nobody\'s way');
$session->ask('COMMIT');
$session->ask('CREATE TEMP TABLE mine (id int)');
$session->ask('BEGIN');
$session->ask('SELECT count(*) FROM mine');
is(health('a_test'), '0 healthy: ', 'nor is one that uses a temporary table');
$session->ask('COMMIT');
$session->send('SELECT count(*), pg_sleep(300) FROM t');
wait_for('a_test', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
is(health('a_test'), '0 healthy: ', 'a query that has just begun: not in the way yet');
is((status('a_test'))[0]{blocking_sessions}[0]{state}, 'active', 'but it is told');
$node->safe_psql('postgres', q{ALTER DATABASE a_test SET testenv.lock_timeout = '1ms'});
like(health('a_test'), qr/\A3 degraded: session $session->{pid} .*, active\)/, 'one that runs longer than a restore waits is');
$node->safe_psql('postgres', 'ALTER DATABASE a_test RESET testenv.lock_timeout');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($session->{pid})");
$session->quit;
$node->safe_psql('a_test', q{BEGIN; UPDATE t SET v = 'x' WHERE id = 1; PREPARE TRANSACTION 'forgotten one'});
like(health('a_test'), qr/\A3 degraded: prepared transaction "forgotten one" has held a lock on public\.t for \d+ s\z/, 'a prepared transaction');
$node->safe_psql('a_test', q{ROLLBACK PREPARED 'forgotten one'});

# --- versions
$node->safe_psql('a_test', q{UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'testenv'});
is(health('a_test'), "3 degraded: the extension has version 0.0.9, this program $version; the extension has version 0.0.9, the server's files have $version: run ALTER EXTENSION testenv UPDATE",
	'an extension of another version');
$node->safe_psql('a_test', qq{UPDATE pg_extension SET extversion = '$version' WHERE extname = 'testenv'});

# --- guards
$node->safe_psql('postgres', 'ALTER DATABASE a_test SET testenv.testing_mode = off');
is(health('a_test'), '1 unhealthy: testenv.testing_mode is off: as a superuser, run ALTER DATABASE "a_test" SET testenv.testing_mode = on', 'testing mode off');
like(cli('status', '-d', 'a_test')->{out}, qr/^a_test +unhealthy +.* refuse +seeded /m, 'the table says that the guards refuse');
$node->safe_psql('postgres', 'ALTER DATABASE a_test RESET testenv.testing_mode; ALTER DATABASE a_test IS_TEMPLATE true');
is(health('a_test'), '1 unhealthy: it is a template database', 'a template');
$node->safe_psql('postgres', 'ALTER DATABASE a_test IS_TEMPLATE false; ALTER DATABASE a_test SET default_transaction_read_only = on');
is(health('a_test'), '1 unhealthy: default_transaction_read_only is on', 'read-only');
$node->safe_psql('postgres', 'ALTER DATABASE a_test RESET default_transaction_read_only; ALTER DATABASE a_test RENAME TO shop');
is(health('shop'), '1 unhealthy: its name does not contain "test"', 'not a test database');
$node->safe_psql('postgres', 'ALTER DATABASE shop RENAME TO a_test; CREATE ROLE tester LOGIN');
is(health('a_test', '-U', 'tester'), '1 unhealthy: user "tester" may not execute testenv_drop, testenv_is_clean, testenv_restore, testenv_snapshot, testenv_snapshots', 'no EXECUTE at all');
$node->safe_psql('a_test', 'GRANT EXECUTE ON FUNCTION testenv_snapshots, testenv_is_clean TO tester');
($of) = status('a_test', '-U', 'tester');
is("$of->{guards}{execute_not_granted}, $of->{snapshot}{name}", 'testenv_drop, testenv_restore, testenv_snapshot, seeded', 'EXECUTE on some: those are used');
$node->safe_psql('a_test', 'GRANT EXECUTE ON FUNCTION testenv_snapshot, testenv_restore, testenv_drop TO tester');
is(health('a_test', '-U', 'tester'), '0 healthy: ', 'EXECUTE on all: healthy, without any other right');

# --- unreachable, without the extension, several at once
$node->safe_psql('postgres', 'CREATE DATABASE plain_test');
$run = cli_json('status', '-d', 'missing_test', '-d', 'plain_test', '-d', 'a_test');
is(join(' ', map { "$_->{name}=$_->{health}" } @{ $run->{json}{databases} }), 'missing_test=unhealthy plain_test=unhealthy a_test=healthy', 'several: each for itself');
is($run->{code}, 1, 'the worst one counts');
like($run->{json}{databases}[0]{reasons}[0], qr/database "missing_test" does not exist/, 'why the first is unhealthy');
is($run->{json}{databases}[1]{reasons}[0], 'extension "testenv" is not installed in database "plain_test"', 'and the second');
like($run->{err}, qr/^testenv: database "plain_test": ERROR:.*\nHINT:/m, 'and the whole message on stderr');
$node->safe_psql('postgres', 'CREATE DATABASE second_test TEMPLATE a_test');
is(join(' ', map { $_->{name} } @{ cli_json('status', '--all')->{json}{databases} }), 'a_test second_test', 'status --all');

$node->safe_psql('postgres', 'DROP DATABASE second_test');

# --- a crash
$node->safe_psql('a_test', q{UPDATE t SET v = 'changed'});
is(health('a_test'), '0 healthy: ', 'before the crash');
$node->restart;
is(health('a_test'), '0 healthy: ', 'after an orderly restart');
crash($node);
is(health('a_test'), '3 degraded: the server crashed after the last restore, tables may be torn: restore before anything reads them', 'after a crash');
cli('restore', '-q', '-d', 'a_test');
is(health('a_test'), '0 healthy: ', 'and a restore');
$node->safe_psql('a_test', q{UPDATE t SET v = 'changed'});
is(health('a_test'), '0 healthy: ', 'a later change is just a change');

# --- a standby
$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('cli_standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;
($of, $run) = status('a_test', '-h', $standby->host, '-p', $standby->port);
is("$run->{code} $of->{reasons}[0]", '1 the server is in recovery: a standby cannot be restored', 'a standby is unhealthy');
is($of->{snapshot}{name} . ($of->{guards}{in_recovery} ? ' in recovery' : ''), 'seeded in recovery', 'with its facts');
$standby->stop;

$node->stop;
done_testing();
