# testenv run and testenv wait.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use TestenvCli;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('cli_run');
$node->start;
use_node($node);
small_database($_) foreach qw(a_test b_test);
cli('snapshot', '-q', '-a');
my @both = ('-d', 'a_test', '-d', 'b_test');
my @delete = ('psql', '-Xqd', 'a_test', '-c', 'DELETE FROM t');

sub rows
{
	return join ' ', map { $node->safe_psql($_, 'SELECT count(*) FROM t') } @_ ? @_ : qw(a_test b_test);
}

# --- run: restore, command, restore
$node->safe_psql('b_test', 'DELETE FROM t');
my $run = cli('run', @both, '--', 'sh', '-c', 'psql -XAtd b_test -c "SELECT count(*) FROM t"; psql -Xqd a_test -c "DELETE FROM t"');
is("$run->{code} $run->{out}$run->{err}", "0 100\n", 'a command that succeeds: the databases were restored before, and nothing is added to its output');
is(rows(), '100 100', 'and are restored after');
$run = cli('run', @both, @delete);
is("$run->{code} " . rows(), '0 100 100', 'without --, too, and the command keeps its options');
$run = cli('run', @both, '--', 'sh', '-c', 'psql -Xqd a_test -c "DELETE FROM t WHERE id > 7"; exit 9');
is("$run->{code} " . rows(), '9 7 100', 'a command that fails: its exit code, and what it left stays');
is($run->{err}, "testenv: the command ended with 9: the databases are as it left them\n", 'and that is said');
$run = cli('run', @both, 'sh', '-c', 'psql -Xqd a_test -c "DELETE FROM t"; kill -9 $$');
is("$run->{code} " . rows(), '137 0 100', 'a command that is killed');
is(cli('run', '-q', @both, 'false')->{err}, '', '-q');
is(rows(), '100 100', 'the next run restores first');
is(cli('run', @both, '/nonexistent/command')->{code}, 127, 'a command that is not there');
$run = cli('run', @both, '/etc/passwd');
like("$run->{code} $run->{err}", qr/\A126 testenv: error: could not run "\/etc\/passwd": Permission denied\n/, 'a command that cannot be run');

# --- run: testenv's part fails
$node->safe_psql('a_test', 'DELETE FROM t');
$run = cli('run', '-d', 'a_test', '-d', 'missing_test', '--', 'sh', '-c', 'echo was run');
is("$run->{code} $run->{out}", '125 ', 'a restore that fails: the command is not run');
like($run->{err}, qr/^testenv: database "missing_test": .*\n(?:.*\n)*testenv: the command has not been run\n\z/m, 'and that is said');
is(rows('a_test'), 100, 'the other database was restored all the same');
$run = cli('run', '-d', 'a_test', '--', 'psql', '-Xqd', 'a_test', '-c', q{SELECT testenv_drop('default')}, '-o', '/dev/null');
is($run->{code}, 125, 'a restore that fails after the command');
like($run->{err}, qr/there is no snapshot to restore/, 'says why');
cli('snapshot', '-q', '-d', 'a_test');
my $session = held_lock('a_test');
is(cli('run', '-d', 'a_test', '--terminate', 'true')->{code}, 0, 'run --terminate');
is($session->ask('SELECT 1'), undef, 'ends the session in the way');
$session->quit;

# --- run --json
$run = cli_json('run', @both, 'sh', '-c', 'echo from the command');
is("$run->{code} $run->{err}", "0 from the command\n", 'run --json: the command writes to stderr');
is("$run->{json}{command_status} $run->{json}{command_ran} $run->{json}{restored_after} " . join('|', @{ $run->{json}{command_line} }), '0 1 1 sh|-c|echo from the command', 'the document');
$run = cli_json('run', @both, 'sh', '-c', 'exit 3');
is("$run->{json}{command_status} $run->{json}{command_ran} $run->{json}{restored_after}", '3 1 0', 'of a command that fails');
$run = cli_json('run', '-d', 'missing_test', 'true');
is("$run->{json}{exit_code} $run->{json}{command_ran}", '125 0', 'of a restore that fails');
$run = cli('run', '-d', 'a_test', 'echo', '--json');
is($run->{out}, "--json\n", '--json behind the command is the command\'s');

# --- run and signals: the command's, not testenv's
$run = start_cli('run', '-d', 'a_test', 'sh', '-c', 'trap "echo trapped; exit 0" TERM; echo ready; while :; do sleep 0.05; done');
$run->{harness}->pump until $run->{out} =~ /ready/;
$run->{harness}->signal('TERM');
finish_cli($run);
is("$run->{code} $run->{out}", "0 ready\ntrapped\n", 'SIGTERM goes to the command, which may end well');

# --- wait
$run = cli_json('wait', @both);
is("$run->{code} " . join(' ', map { "$_->{name}=$_->{ready}" } @{ $run->{json}{databases} }), '0 a_test=1 b_test=1', 'wait: all are ready');
$run = cli('wait', @both);
like($run->{out}, qr/\Adatabase +result +ms\na_test +ready +[\d.]+\nb_test +ready +[\d.]+\n\z/, 'as a table');
is(cli('wait', '-q', '--all')->{code}, 0, 'wait --all');
is(cli('wait', '-q', '-d', 'a_test', 'default')->{code}, 0, 'a named snapshot that is there');
$run = cli_json('wait', '-d', 'a_test', '--timeout', 0.3, 'unknown');
is($run->{code}, 4, 'a named snapshot that is not: time is up');
is($run->{json}{databases}[0]{error}{message}, 'database "a_test" has no snapshot "unknown"', 'and why');
$run = cli_json('wait', '-d', 'host=/nowhere dbname=x_test', '-d', 'a_test', '--timeout', '0.3');
is("$run->{code} " . databases_of($run), '4 x_test=failed a_test=done', 'one server is not there');
like($run->{json}{databases}[0]{error}{message}, qr/^connection to server on socket "\/nowhere/, 'why it was not ready');
is((() = $run->{err} =~ /nowhere/g), 1, 'told once, not with every try');
$run = cli('wait', '-v', '-d', 'a_test', '-d', 'missing_test', '--timeout', 1);
is((() = $run->{err} =~ /"missing_test" does not exist/g), 2, '-v: told when it is seen, and in the end');

# what comes into being one after the other
$run = start_cli('wait', '-v', '-d', 'late_test', '--timeout', 0);
sub step
{
	my ($title, $pattern, $db, @sql) = @_;

	$run->{harness}->pump until $run->{err} =~ $pattern || !$run->{harness}->pumpable;
	like($run->{err}, $pattern, $title);
	$node->safe_psql($db, $_) foreach @sql;
	return;
}
step('no database yet', qr/database "late_test" does not exist/, 'postgres', 'CREATE DATABASE late_test');
step('no extension yet', qr/extension "testenv" is not installed in database "late_test"/, 'late_test', 'CREATE EXTENSION testenv');
step('no snapshot yet', qr/database "late_test" has no snapshot/, 'late_test', 'CREATE TABLE t (id int)', 'SELECT testenv_snapshot()');
finish_cli($run);
is($run->{code}, 0, 'wait --timeout 0: until all of it is there');

# --all: a server that is not up yet, and then has no test database yet
$node->safe_psql('postgres', "DROP DATABASE $_") foreach qw(a_test b_test late_test);
$node->stop;
$run = start_cli('wait', '-v', '--all', '--timeout', 120);
$run->{harness}->pump until $run->{err} =~ /No such file or directory|Connection refused/ || !$run->{harness}->pumpable;
$node->start;
$run->{harness}->pump until $run->{err} =~ /no database whose name contains "test"/ || !$run->{harness}->pumpable;
$node->safe_psql('postgres', 'CREATE DATABASE new_test');
$run->{harness}->pump until $run->{err} =~ /"new_test" does not have the extension/ || !$run->{harness}->pumpable;
$node->safe_psql('new_test', 'CREATE EXTENSION testenv');
$node->safe_psql('new_test', 'SELECT testenv_snapshot()');
finish_cli($run);
like("$run->{code} $run->{out}", qr/\A0 database.*\nnew_test +ready/, 'wait --all: server, database, extension and snapshot come one after the other');

# a question that the server does not answer in time, and Ctrl-C
$session = Testenv::Session->new($node, 'new_test');
$session->ask('BEGIN');
$session->ask('LOCK TABLE pg_extension');
$run = cli_json('wait', '-d', 'new_test', '--timeout', 0.5);
is("$run->{code} $run->{json}{databases}[0]{error}{message}", '4 the server has not answered in time', 'a query that hangs');
$run = start_cli('wait', '-v', '-d', 'new_test', '-d', 'missing_test');
$run->{harness}->pump until $run->{err} =~ /"missing_test" does not exist/;
wait_for('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'new_test' AND application_name = 'testenv' AND wait_event_type = 'Lock'});
$run->{harness}->signal('INT');
finish_cli($run);
like("$run->{code} $run->{err}", qr/\A130 .*interrupted; cancelled: new_test; not started: missing_test$/ms, 'Ctrl-C');
$session->quit;

$node->stop;
done_testing();
