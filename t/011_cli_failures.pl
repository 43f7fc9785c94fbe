# The program testenv: wrong usage, everything that can go wrong at a database,
# passwords, time limits and Ctrl-C.  What fails is named and shown whole, and
# does not keep the other databases from their work.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use TestenvCli;
use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('cli_failures');
$node->start;
use_node($node);
small_database($_) foreach qw(a_test b_test c_test);
is(cli('snapshot', '-a', '-q')->{code}, 0, 'snapshots');
my $run;

# --- wrong usage: exit code 2, what is wrong, where to read more, and JSON
foreach (
	[ 'no command given' ],
	[ 'unknown command "reset"', 'reset' ],
	[ 'unknown or ambiguous option "--foo"', 'restore', '--foo' ],
	[ 'unknown option "-Z"', 'restore', '-Z' ],
	[ 'option "-d" needs a value', 'restore', '-d' ],
	[ 'option "--json=yes" takes no value', 'restore', '--json=yes' ],
	[ 'option --label cannot be used with "restore"', 'restore', '--label', 'x' ],
	[ 'option --terminate cannot be used with "snapshot"', 'snapshot', '--terminate' ],
	[ 'option --all cannot be used with "clone"', 'clone', '--all', '--count', 2 ],
	[ 'option --count cannot be used with "list"', 'list', '--count', 2 ],
	[ 'option --timeout cannot be used with "run"', 'run', '--timeout', 2, 'true' ],
	[ '"drop" needs the name of a snapshot', 'drop', '-d', 'a_test' ],
	[ 'too many arguments: the first that is not expected is "b"', 'restore', 'a', 'b' ],
	[ 'too many arguments: the first that is not expected is "a"', 'status', 'a' ],
	[ '"clone" needs --count', 'clone', '-d', 'a_test' ],
	[ '"clone" works on one database: give -d once', 'clone', '-d', 'a_test', '-d', 'b_test', '--count', 1 ],
	[ '"run" needs a command', 'run', '-d', 'a_test', '--' ],
	[ 'options --quiet and --verbose exclude each other', 'list', '-q', '-v' ],
	[ 'options --no-password and --password exclude each other', 'list', '-w', '-W' ],
	[ 'option --maintenance-db is for --all and "clone"', 'list', '--maintenance-db', 'x' ],
	[ 'invalid value "0" for option --jobs: a number from 1 to 1000 is needed', 'list', '-j', 0 ],
	[ 'invalid value "2x" for option --count: a number from 1 to 1000 is needed', 'clone', '--count', '2x' ],
	[ 'invalid value "-1" for option --timeout: seconds are needed', 'wait', '--timeout', -1 ],
	[ 'invalid value "inf" for option --timeout: seconds are needed', 'wait', '--timeout', 'inf' ],
	[ 'invalid value "hard" for option --strategy: auto, file_copy or wal_log is needed', 'clone', '--strategy', 'hard' ])
{
	my ($message, @args) = @$_;

	$run = cli(@args);
	like("$run->{code} $run->{out}$run->{err}", qr/\A2 testenv: error: \Q$message\E\ntestenv: hint: Try "testenv (?:\w+ )?--help" for more information\.\n\z/, "usage: $message");
}
$run = cli_json('restore', '--label', 'x');
is($run->{code}, 2, 'usage with --json: exit code');
is($run->{json}{errors}[0]{message}, 'option --label cannot be used with "restore"', 'usage with --json: the error');
$run = cli('reset', '--json');
like($run->{out}, qr/^\{.*unknown command.*\}\n\z/, 'an unknown command, before --json is read');
$run = cli('clone', '--count', 1, { env => { TESTENV_DATABASES => 'a_test b_test' } });
like("$run->{code} $run->{err}", qr/\A2 .*TESTENV_DATABASES has 2/, 'clone with several databases in the environment');

# --- failures of one database, all of them in one call
$node->safe_psql('postgres', <<'SQL');
CREATE DATABASE plain_test;
CREATE DATABASE guarded_test;
CREATE DATABASE shop;
CREATE DATABASE template_test;
CREATE ROLE nobody_much LOGIN;
SQL
foreach (qw(guarded_test shop template_test))
{
	$node->safe_psql($_, 'CREATE EXTENSION testenv');
}
$node->safe_psql('postgres', 'ALTER DATABASE guarded_test SET testenv.testing_mode = off; ALTER DATABASE template_test IS_TEMPLATE true');
$node->safe_psql($_, q{UPDATE t SET v = 'changed'}) foreach qw(a_test b_test);
$run = cli_json('restore', '-d', 'a_test', '-d', 'missing_test', '-d', 'plain_test', '-d', 'host=/nowhere dbname=down_test',
	'-d', 'guarded_test', '-d', 'shop', '-d', 'template_test', '-d', 'user=nobody_much dbname=c_test', '-d', 'broken string=', '-d', 'b_test');
is($run->{code}, 1, 'some fail: exit code 1');
is(databases_of($run), 'a_test=done missing_test=failed plain_test=failed down_test=failed guarded_test=failed '
	  . 'shop=failed template_test=failed c_test=failed (malformed connection string)=failed b_test=done', 'the others go on');
is($node->safe_psql($_, q{SELECT count(*) FROM t WHERE v = 'seed'}), 100, "$_ is restored") foreach qw(a_test b_test);
my %error = map { $_->{name} => $_->{error} } @{ $run->{json}{databases} };
foreach (
	[ 'missing_test', undef, qr/FATAL:  database "missing_test" does not exist/ ],
	[ 'plain_test', '42704', qr/^extension "testenv" is not installed in database "plain_test"$/ ],
	[ 'down_test', undef, qr/^connection to server on socket "\/nowhere\/.*" failed: No such file or directory\n\tIs the server running/ ],
	[ 'guarded_test', '55000', qr/^cannot restore a snapshot while testenv.testing_mode is off$/ ],
	[ 'shop', '55000', qr/^cannot restore a snapshot in database "shop": it is not a test database$/ ],
	[ 'template_test', '55000', qr/: it is a template database$/ ],
	[ 'c_test', '42501', qr/^permission denied for function testenv_restore$/ ],
	[ '(malformed connection string)', undef, qr/^missing "=" after "broken"/ ])
{
	my ($name, $sqlstate, $message) = @$_;

	is($error{$name}{sqlstate}, $sqlstate, "$name: SQLSTATE");
	like($error{$name}{message}, $message, "$name: message");
}
$run = cli('restore', '-d', 'a_test', '-d', 'guarded_test', 'default');
like($run->{err}, qr/\Atestenv: database "guarded_test": ERROR:  cannot restore .*\nDETAIL:  testenv overwrites data.*\nHINT:  As a superuser, run ALTER DATABASE "guarded_test" SET testenv.testing_mode = on, and reconnect\.\n\z/,
	'a refused guard: the whole message, and the database');
like($run->{out}, qr/^a_test +done .*\nguarded_test +failed +- +- +- +- +-$/m, 'and a line in the table');
$run = cli('restore', '-d', 'a_test', 'unknown');
like($run->{err}, qr/\Atestenv: database "a_test": ERROR:  snapshot "unknown" does not exist\nDETAIL:  .*"default".*\nHINT:  .*\n\z/, 'an unknown snapshot: the whole message');
$run = cli('snapshot', '-d', 'plain_test');
like($run->{err}, qr/\Atestenv: database "plain_test": ERROR:  extension "testenv" is not installed.*\nHINT:  As a superuser, run CREATE EXTENSION testenv in this database\.\n\z/,
	'no extension: what to do');
is(cli('snapshot', '-d', 'a_test', 'x' x 55)->{code}, 1, 'a snapshot name that is too long fails');

$node->safe_psql('postgres', 'ALTER DATABASE template_test IS_TEMPLATE false; DROP DATABASE template_test; DROP DATABASE guarded_test');

# --- --all where there is nothing to do, and where a server is down
$run = cli('restore', '--all', '-d', 'host=/nowhere', '-d', 'shop', '-q');
is($run->{code}, 1, '--all: one of two servers is down');
like($run->{err}, qr/^testenv: database "postgres": connection to server on socket "\/nowhere/m, 'it is named');
$node->safe_psql('a_test', q{UPDATE t SET v = 'changed'});
$run = cli_json('restore', '--all', '-d', 'host=/nowhere', '-d', 'shop');
is(join(' ', map { $_->{result} eq 'done' ? $_->{name} : () } @{ $run->{json}{databases} }), 'a_test b_test c_test', 'the other one\'s databases are restored');

my $empty = new_node('cli_empty');
$empty->start;
$run = cli_json('restore', '-a', { env => { PGHOST => $empty->host, PGPORT => $empty->port } });
is($run->{code}, 1, '--all finds no test database: exit code');
like($run->{json}{databases}[0]{error}{message}, qr/no database whose name contains "test"/, 'and message');
$empty->safe_psql('postgres', 'CREATE DATABASE other_test');
$run = cli_json('restore', '-a', { env => { PGHOST => $empty->host, PGPORT => $empty->port } });
is($run->{code}, 1, '--all finds no extension: exit code');
like($run->{json}{errors}[0]{message}, qr/no database whose name contains "test" has the extension/, 'and message');
# two databases of one name
$empty->safe_psql('postgres', 'CREATE DATABASE a_test');
$run = cli_json('restore', '-d', 'a_test', '-d', 'host=' . $empty->host . ' port=' . $empty->port . ' dbname=a_test');
is(databases_of($run), "a_test\@$ENV{PGHOST}:$ENV{PGPORT}=done a_test\@" . $empty->host . ':' . $empty->port . '=failed', 'two databases of one name are told apart');
$empty->stop;

# --- versions
$node->safe_psql('a_test', q{UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'testenv'});
$node->safe_psql('b_test', q{UPDATE pg_extension SET extversion = '99.0' WHERE extname = 'testenv'});
$run = cli('restore', '-d', 'a_test', '-d', 'b_test');
is($run->{code}, 0, 'another version of the extension: it is tried');
like($run->{err}, qr/^testenv: database "a_test": WARNING:  extension "testenv" has version 0\.0\.9, this program has version \S+\nHINT:  As a superuser, run ALTER EXTENSION testenv UPDATE/m, 'an older one: update it');
like($run->{err}, qr/^testenv: database "b_test": WARNING:  extension "testenv" has version 99\.0.*\nHINT:  Use the program that was installed with this version/m, 'a newer one: use its program');
$run = cli_json('restore', '-q', '-d', 'a_test');
like($run->{json}{databases}[0]{warnings}[0], qr/has version 0\.0\.9/, 'in JSON, too');
$node->safe_psql($_, q{UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'testenv') WHERE extname = 'testenv'}) foreach qw(a_test b_test);
is(cli('restore', '-a', '-q')->{err}, '', 'the same version: nothing to say');

# --- later versions of the functions return more columns
$node->safe_psql('postgres', 'CREATE DATABASE later_test TEMPLATE a_test');
$node->safe_psql('later_test', <<'SQL');
ALTER EXTENSION testenv DROP FUNCTION testenv_restore(text, boolean);
ALTER FUNCTION testenv_restore(text, boolean) RENAME TO real_restore;
CREATE FUNCTION testenv_restore(text, boolean, OUT detector text, OUT tables int, OUT name text, OUT sequences int,
	OUT pages bigint, OUT elapsed_ms float8, OUT wal_bytes bigint) LANGUAGE sql AS
	$$ SELECT 'wal', r.tables, r.name, r.sequences, r.pages, r.elapsed_ms, 77 FROM real_restore($1, $2) r $$;
SQL

$run = cli('restore', '-d', 'later_test');
like($run->{out}, qr/^database .*\nlater_test +done +default +0 +0 +0 +[\d.]+$/m, 'more columns in another order: those of the table are found');
$run = cli_json('restore', '-d', 'later_test');
is($run->{json}{databases}[0]{detector} . $run->{json}{databases}[0]{wal_bytes}, 'wal77', 'the new ones are in JSON');
$node->safe_psql('postgres', 'DROP DATABASE later_test');

# --- passwords
$node->safe_psql('postgres', q{CREATE ROLE secretive LOGIN SUPERUSER PASSWORD 'open sesame'});
my $hba = $node->data_dir . '/pg_hba.conf';
my $rules = slurp_file($hba);
unlink $hba;
append_to_file($hba, "local all secretive scram-sha-256\n$rules");
$node->reload;
my %no_terminal = (before => [ 'setsid', '--wait' ]);
my @secretive = ('restore', '-U', 'secretive', '-d', 'a_test', '-d', 'b_test');
$run = cli(@secretive, '-w');
is($run->{code}, 1, '-w: no password, no connection');
is(() = $run->{err} =~ /no password supplied/g, 2, 'and no question');
$run = cli(@secretive, { %no_terminal, stdin => "open sesame\n" });
is($run->{code}, 0, 'a password is asked for when the server wants one');
is(() = $run->{err} =~ /Password for/g, 1, 'once for all databases of a server');
$run = cli(@secretive, '-W', { %no_terminal, stdin => "open sesame\n" });
is($run->{code}, 0, '-W asks first');
$run = cli(@secretive, '-W', { %no_terminal, stdin => "wrong\n" });
is($run->{code}, 1, 'a wrong password fails');
like($run->{err}, qr/password authentication failed for user "secretive"/, 'and says so');
unlike($run->{out} . $run->{err}, qr/wrong/, 'without repeating it');
$run = cli(@secretive, { %no_terminal, stdin => '' });
like("$run->{code}$run->{err}", qr/\A1.*no password supplied/s, 'no answer is no password');
$run = cli('wait', '-U', 'secretive', '-d', 'a_test', '--timeout', 1, { %no_terminal, stdin => '' });
is("$run->{code} " . (() = $run->{err} =~ /Password for/g), '4 1', 'and wait does not ask again and again');
is(cli(@secretive, '-w', { env => { PGPASSWORD => 'open sesame' } })->{code}, 0, 'PGPASSWORD');
is(cli('restore', '-w', '-d', "postgresql://secretive:open%20sesame\@/a_test?host=$ENV{PGHOST}")->{code}, 0, 'a password in a URI');
my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/pgpass", "*:*:*:secretive:open sesame\n");
chmod 0600, "$dir/pgpass";
is(cli(@secretive, '-w', { env => { PGPASSFILE => "$dir/pgpass" } })->{code}, 0, 'a password file');

# on a terminal: the password is not shown, the table is coloured, the progress line comes and goes
sub on_terminal
{
	my ($answer, $env, @args) = @_;
	local %ENV = (%ENV, TERM => 'xterm', %$env);
	my ($in, $out) = ('', '');
	my $harness = IPC::Run::start([ 'testenv', @args ], '<pty<', \$in, '>pty>', \$out, '2>&1', IPC::Run::timeout(180));

	if (defined $answer)
	{
		$harness->pump until $out =~ /Password for .*: /;
		$in = "$answer\n";
	}
	eval { $harness->finish };
	return $out;
}
my $seen = on_terminal('open sesame', {}, @secretive);
like($seen, qr/\e\[32mdone\e\[0m/, 'a terminal: asked, answered, and the table has colours');
unlike($seen, qr/sesame/, 'the password is not shown');
unlike(on_terminal(undef, { NO_COLOR => 1 }, 'list', '-d', 'a_test'), qr/\e\[\d+m/, 'NO_COLOR');
unlike(on_terminal(undef, { PG_COLOR => 'never' }, 'list', '-d', 'a_test'), qr/\e\[\d+m/, 'PG_COLOR=never');
unlike(on_terminal(undef, { TERM => 'dumb' }, 'list', '-d', 'a_test'), qr/\e/, 'a dumb terminal');
$seen = on_terminal(undef, {}, 'wait', '-d', 'a_test', '-d', 'missing_test', '--timeout', 2);
like($seen, qr/\rwaiting: 1 of 2 databases, \d s, connecting to missing_test/, 'a progress line for what takes longer than a second');
like($seen, qr/\r\e\[K(?=testenv: database "missing_test")/, 'and it is gone before anything else appears');
unlike(on_terminal(undef, {}, 'wait', '-q', '-d', 'missing_test', '--timeout', 2), qr/waiting/, 'no progress line with -q');
unlike(on_terminal(undef, {}, 'restore', '-d', 'a_test'), qr/restoring/, 'nor for what is quick');

# --- time limits
my $deaf = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', Proto => 'tcp') or die "listen: $@";
my $deaf_db = 'host=127.0.0.1 port=' . $deaf->sockport . ' dbname=deaf_test connect_timeout=2';
$run = cli_json('restore', '-d', $deaf_db, '-d', 'a_test');
is(databases_of($run), 'deaf_test=failed a_test=done', 'a server that does not answer');
is($run->{json}{databases}[0]{error}{message}, 'connection timed out', 'connect_timeout');
is(cli('restore', '-q', '-d', 'a_test', { env => { PGCONNECT_TIMEOUT => 30 } })->{code}, 0, 'a timeout that does not pass');

# --- Ctrl-C: one is blocked, one is done, one waits for its turn
my $session = held_lock('a_test');
my $blocked = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'a_test' AND application_name = 'testenv' AND wait_event_type = 'Lock'};
my $idle = q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname IN ('b_test', 'c_test') AND application_name = 'testenv'};
$node->safe_psql($_, q{UPDATE t SET v = 'changed'}) foreach qw(b_test c_test);
my %patient = (env => { PGOPTIONS => '-c testenv.lock_timeout=0' });
$run = start_cli('restore', '-d', 'a_test', '-d', 'b_test', { %patient });
wait_for('a_test', $blocked);
wait_for('b_test', q{SELECT count(*) = 100 FROM t WHERE v = 'seed'});
pass('another database is restored while one is blocked');
$run->{harness}->signal('INT');
finish_cli($run);
is($run->{code}, 130, 'Ctrl-C: exit code');
like($run->{err}, qr/^testenv: error: interrupted; done: b_test; cancelled: a_test$/m, 'what was done and what was not');
like($run->{out}, qr/^a_test +cancelled .*\nb_test +done /m, 'and the table');
is($node->safe_psql('a_test', $blocked), 'f', 'the query was cancelled on the server');

foreach my $signal (qw(INT TERM))
{
	$run = start_cli('restore', '--json', '-j', 1, '-d', 'a_test', '-d', 'c_test', { %patient });
	wait_for('a_test', $blocked);
	$run->{harness}->signal($signal);
	finish_cli($run);
	$run->{json} = JSON::PP->new->utf8->decode($run->{out});
	is("$run->{code} " . databases_of($run), '130 a_test=cancelled c_test=not started', "$signal with --json and -j 1: nothing more is begun");
	is($run->{json}{databases}[0]{error}{sqlstate}, '57014', 'the server\'s answer');
}
is($node->safe_psql('c_test', q{SELECT count(*) FROM t WHERE v = 'changed'}), 100, 'the one not started is untouched');

# a server process that does not react; the second Ctrl-C ends the program
$run = start_cli('restore', '--json', '-d', 'a_test', { %patient });
wait_for('a_test', $blocked);
my $pid = $node->safe_psql('a_test', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'testenv' AND wait_event_type = 'Lock'});
kill STOP => $pid;
$run->{harness}->signal('INT');
for (1 .. 20)
{
	$run->{harness}->pump_nb;
	select undef, undef, undef, 0.05;
}
ok($run->{harness}->pumpable, 'after the first Ctrl-C it waits for the server');
$run->{harness}->signal('INT');
finish_cli($run);
kill CONT => $pid;
is($run->{code}, 130, 'the second Ctrl-C quits');
$run->{json} = eval { JSON::PP->new->utf8->decode($run->{out}) };
is($run->{json}{exit_code}, 130, 'with a JSON document all the same');

# the deaf server again: a connection in the making is given up
$run = start_cli('restore', '-d', $deaf_db =~ s/connect_timeout=2//r);
for (1 .. 10)
{
	$run->{harness}->pump_nb;
	select undef, undef, undef, 0.05;
}
$run->{harness}->signal('INT');
finish_cli($run);
like("$run->{code} $run->{err}", qr/\A130 .*interrupted; not started: deaf_test/, 'Ctrl-C while connecting');
$session->quit;

# --- a server that goes away in the middle
$session = held_lock('a_test');
$run = start_cli('restore', '-d', 'a_test', { %patient });
wait_for('a_test', $blocked);
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'testenv'});
finish_cli($run);
is($run->{code}, 1, 'a connection that is lost: exit code');
like($run->{err}, qr/^testenv: database "a_test": FATAL:  terminating connection due to administrator command/m, 'and the server\'s last words');
$session->quit;
is(cli('restore', '-a', '-q')->{code}, 0, 'and everything works again');

$node->stop;
done_testing();
