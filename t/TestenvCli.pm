# Runs the program testenv and takes its report apart.
#
# The program is the one that was installed with the server, found on the PATH.
# It gets an environment without anything of the caller's that libpq or the
# program would read.
package TestenvCli;

use strict;
use warnings;
use Exporter 'import';
use IPC::Run;
use JSON::PP ();
use Test::More;

our @EXPORT = qw(use_node cli cli_json start_cli finish_cli databases_of small_database wait_for held_lock);

my $node;

# libpq's defaults point to this server from now on.
sub use_node
{
	($node) = @_;
	delete $ENV{$_} foreach grep { /^(?:PG(?!_)[A-Z]+|TESTENV_DATABASES|NO_COLOR|PG_COLOR)$/ } keys %ENV;
	@ENV{qw(PGHOST PGPORT PGUSER PGPASSFILE)} = ($node->host, $node->port, scalar getpwuid($<), '/nonexistent');
	return;
}

# Start the program; a hash at the end has "env" and "stdin".
sub start_cli
{
	my @args = @_;
	my $option = ref $args[-1] ? pop @args : {};
	my $run = { out => '', err => '', in => $option->{stdin} // '' };
	local %ENV = (%ENV, %{ $option->{env} // {} });
	my @command = (@{ $option->{before} // [] }, $option->{program} // 'testenv', @args);

	$run->{harness} = IPC::Run::start(\@command, '<', \$run->{in}, '>', \$run->{out}, '2>', \$run->{err}, IPC::Run::timeout(180));
	return $run;
}

sub finish_cli
{
	my ($run) = @_;

	$run->{harness}->finish;
	my $status = ($run->{harness}->full_results)[0];
	$run->{code} = $status & 127 ? 'signal ' . ($status & 127) : $status >> 8;
	return $run;
}

sub cli
{
	return finish_cli(start_cli(@_));
}

# With --json: stdout must be one JSON document, and its exit code the real one.
sub cli_json
{
	my @args = @_;
	my $option = ref $args[-1] ? pop @args : {};
	my $run = finish_cli(start_cli($args[0], '--json', @args[1 .. $#args], $option));

	$run->{json} = eval { JSON::PP->new->utf8->decode($run->{out}) };
	if (!defined $run->{json} || ($run->{json}{exit_code} // 'none') ne $run->{code})
	{
		fail("JSON of testenv @args");
		diag("exit code $run->{code}\n$@\n$run->{out}\n$run->{err}");
		$run->{json} //= { databases => [], errors => [] };
	}
	return $run;
}

# "name=result" of each database of a report, in its order
sub databases_of
{
	my ($run) = @_;

	return join ' ', map { "$_->{name}=$_->{result}" } @{ $run->{json}{databases} };
}

# A database with the extension and one table of 100 rows.
sub small_database
{
	my ($db) = @_;

	$node->safe_psql('postgres', qq{CREATE DATABASE "$db"});
	$node->safe_psql($db, 'CREATE EXTENSION testenv; CREATE TABLE t (id int PRIMARY KEY, v text); '
		  . q{INSERT INTO t SELECT i, 'seed' FROM generate_series(1, 100) i});
	return;
}

# Until a query says t.
sub wait_for
{
	my ($db, $sql) = @_;

	for (1 .. 1200)
	{
		return 1 if $node->safe_psql($db, $sql) eq 't';
		select undef, undef, undef, 0.05;
	}
	die "has not become true: $sql";
}

# A session that holds a lock which a restore of the changed table waits for.
sub held_lock
{
	my ($db) = @_;
	my $session = Testenv::Session->new($node, $db);

	$node->safe_psql($db, q{UPDATE t SET v = 'changed'});
	$session->ask('BEGIN');
	$session->ask('SELECT count(*) FROM t');
	return $session;
}

1;
