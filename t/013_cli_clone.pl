# testenv clone: databases for parallel workers, with the snapshots, and with
# what CREATE DATABASE ... TEMPLATE loses.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use TestenvCli;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# testing_mode is on for single databases here: a clone has it only if it was carried over
my $node = new_node('cli_clone', conf => "testenv.testing_mode = off\n");
$node->start;
use_node($node);
seed($node, 'work_test', 50);
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE owner;
CREATE ROLE tester LOGIN;
CREATE ROLE "odd role" LOGIN;
ALTER DATABASE work_test OWNER TO owner;
ALTER DATABASE work_test CONNECTION LIMIT 42;
ALTER DATABASE work_test SET testenv.testing_mode = on;
ALTER DATABASE work_test SET search_path = "$user", public, "odd, ""schema";
ALTER DATABASE work_test SET temp_tablespaces = '';
ALTER DATABASE work_test SET application_name = 'it''s = a \ name, "quoted"';
ALTER DATABASE work_test SET custom.thing = 'x';
ALTER ROLE "odd role" IN DATABASE work_test SET work_mem = '7MB';
ALTER ROLE tester IN DATABASE work_test SET search_path = public;
ALTER ROLE tester SET work_mem = '9MB';
REVOKE ALL ON DATABASE work_test FROM PUBLIC;
GRANT CONNECT ON DATABASE work_test TO tester;
GRANT CREATE, TEMPORARY ON DATABASE work_test TO "odd role" WITH GRANT OPTION;
SQL
$node->safe_psql('work_test', 'GRANT EXECUTE ON FUNCTION testenv_restore, testenv_snapshots TO tester');

# All that belongs to a database without being in it.
sub properties
{
	my ($db) = @_;

	return $node->safe_psql('postgres', <<"SQL");
SELECT 'owner ' || pg_get_userbyid(datdba) || ', limit ' || datconnlimit || ', encoding ' || encoding || ', collation ' || datcollate FROM pg_database WHERE datname = '$db'
UNION ALL SELECT setrole::regrole || ': ' || s FROM pg_db_role_setting, unnest(setconfig) s WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = '$db')
UNION ALL SELECT grantee::regrole || ' by ' || grantor::regrole || ': ' || privilege_type || ' ' || is_grantable FROM pg_database, aclexplode(datacl) WHERE datname = '$db'
ORDER BY 1
SQL
}

sub clones
{
	return $node->safe_psql('postgres', q{SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE shobj_description(oid, 'pg_database') LIKE 'testenv clone of %'});
}

sub results
{
	my ($run) = @_;

	return join ' ', map { "$_->{name}=" . ($_->{clone} // $_->{result}) } @{ $run->{json}{databases} };
}

# --- no snapshot
my $run = cli('clone', '-d', 'work_test', '--count', 2);
is($run->{code}, 1, 'without a snapshot there is nothing to clone: exit code');
like($run->{err}, qr/\Atestenv: database "work_test": ERROR:  database "work_test" has no snapshot.*\nHINT:  Seed the database and run "testenv snapshot" first\.\n\z/, 'and what to do');
cli('snapshot', '-q', '-d', 'work_test');
cli('snapshot', '-q', 'other', '-d', 'work_test');
my $reference = state($node, 'work_test');

# --- two clones
$run = cli('clone', '-d', 'work_test', '--count', 2, '-v');
is($run->{code}, 0, 'clone: exit code') or diag($run->{err});
like($run->{out}, qr/\Adatabase +result +strategy +ms\nwork_test_1 +created +wal_log +[\d.]+\nwork_test_2 +created .*\n\z/, 'a line each');
is(properties('work_test_1'), properties('work_test'), 'owner, settings and grants are those of the original');
is(properties('work_test_2'), properties('work_test'), 'of the second, too');
is(state($node, 'work_test_1'), $reference, 'it holds what the original holds');
is($node->safe_psql('work_test_1', q{SELECT string_agg(name, ' ' ORDER BY name) FROM testenv_snapshots()}), 'default other', 'all snapshots are there');
is(join(' ', map { $node->safe_psql($_, q{SELECT sum(restores) FROM testenv_snapshots()}) - $node->safe_psql('work_test', 'SELECT sum(restores) FROM testenv_snapshots()') } qw(work_test_1 work_test_2)),
	'1 1', 'each has been restored once');
is($node->safe_psql('postgres', q{SELECT shobj_description(oid, 'pg_database') IS NULL FROM pg_database WHERE datname = 'work_test'}), 't', 'the original has no mark');

# the first and the second restore of a worker
$node->safe_psql('work_test_1', 'DELETE FROM big WHERE id < 5; INSERT INTO empty VALUES (1)');
$run = cli_json('restore', '-d', 'work_test_1');
is("$run->{code} $run->{json}{databases}[0]{tables}", '0 2', 'a restore in a clone');
is_exact($node, 'work_test_1', $reference, 'exact');
is(state($node, 'work_test_2'), $reference, 'the other clone does not notice');
is(cli('restore', '-q', '-d', 'work_test_2', '-U', 'tester')->{code}, 0, 'with the grants of the original');

# --- a second call keeps what is there
$node->safe_psql('work_test_1', 'DELETE FROM big');
$run = cli_json('clone', '-d', 'work_test', '--count', 3, '--no-restore');
is(results($run), 'work_test_1=kept work_test_2=kept work_test_3=created', 'clones that fit are kept, what is missing is made');
is($node->safe_psql('work_test_1', 'SELECT count(*) FROM big'), 0, 'one that is kept is not touched');
is($node->safe_psql('work_test_3', 'SELECT sum(restores) FROM testenv_snapshots()'), $node->safe_psql('work_test', 'SELECT sum(restores) FROM testenv_snapshots()'), '--no-restore');
is($run->{json}{original}, 'work_test', 'JSON: the original');
# the first has to look at every page, the second only at what the WAL names
my @restores = map { $node->safe_psql('work_test_3', 'DELETE FROM big WHERE id < 5'); cli_json('restore', '-d', 'work_test_3') } 1 .. 2;
is(join(' ', map { "$_->{code} $_->{json}{databases}[0]{detector}" } @restores), '0 look 0 wal', 'its first restore works, and the second is fast');
is_exact($node, 'work_test_3', $reference, 'exact');
is($node->safe_psql('work_test_3', 'SELECT testenv_is_clean()'), 't', 'and clean');

# --- stale clones
cli('snapshot', '-q', '-d', 'work_test');
$run = cli_json('clone', '-d', 'work_test', '--count', 2);
is("$run->{code} " . results($run), '1 work_test_1=failed work_test_2=failed', 'the original has another snapshot: stale');
like($run->{json}{databases}[0]{error}{message}, qr/^database "work_test_1" is a stale clone/, 'the message');
like($run->{json}{databases}[0]{error}{hint}, qr/--drop-stale/, 'and what to do');
is(clones(), 'work_test_1 work_test_2 work_test_3', 'nothing is dropped unasked');
$node->safe_psql('postgres', q{CREATE DATABASE work_test_12; CREATE DATABASE work_test_x; CREATE DATABASE work_test_4});
my $session = Testenv::Session->new($node, 'work_test_1');
$run = cli_json('clone', '-d', 'work_test', '--count', 2, '--drop-stale');
is("$run->{code} " . results($run), '1 work_test_1=failed work_test_2=created', '--drop-stale: one is in use');
like($run->{json}{databases}[0]{error}{message}, qr/^database "work_test_1" is being accessed by other users$/, 'the server\'s message');
like($run->{json}{databases}[0]{error}{detail}, qr/1 other session/, 'with its DETAIL');
is(join(' ', @{ $run->{json}{dropped} }), 'work_test_2 work_test_3', 'those beyond the count are dropped, too');
$run = cli('clone', '-d', 'work_test', '--count', 2, '--drop-stale', '--terminate');
is($run->{code}, 0, '--terminate: it is dropped all the same');
like($run->{err}, qr/^testenv: dropped stale clone "work_test_1"$/m, 'and told');
is($session->ask('SELECT 1'), undef, 'the session is gone');
$session->quit;
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname IN ('work_test_12', 'work_test_x', 'work_test_4')}), 3, 'databases that nobody cloned stay');

# --- a database that is in the way
$run = cli_json('clone', '-d', 'work_test', '--count', 4, '--drop-stale');
is(results($run), 'work_test_1=kept work_test_2=kept work_test_3=created work_test_4=failed', 'a database that is no clone is in the way');
like($run->{json}{databases}[3]{error}{message}, qr/^database "work_test_4" exists and was not made by testenv clone$/, 'it is never dropped');
$node->safe_psql('postgres', 'DROP DATABASE work_test_4');

# --- the original in use
$session = Testenv::Session->new($node, 'work_test');
$run = cli_json('clone', '-d', 'work_test', '--count', 4);
is(results($run), 'work_test_1=kept work_test_2=kept work_test_3=kept work_test_4=failed', 'somebody is connected to the original');
like($run->{json}{databases}[3]{error}{message}, qr/^source database "work_test" is being accessed by other users$/, 'the server\'s message');
$run = cli_json('clone', '-d', 'work_test', '--count', 4, '--terminate');
is(results($run), 'work_test_1=kept work_test_2=kept work_test_3=kept work_test_4=created', '--terminate');
$session->quit;

# --- names
$run = cli_json('clone', '-d', 'work_test', '--count', 1, '--prefix', 'Odd "Test" name');
is(results($run), 'Odd "Test" name_1=created', '--prefix');
$run = cli('clone', '-d', 'work_test', '--count', 1, '--prefix', 'worker');
like("$run->{code} $run->{err}", qr/\A1 testenv: error: names of clones must contain "test", "worker" does not\n/, 'a prefix without "test"');
$run = cli('clone', '-d', 'work_test', '--count', 10, '--prefix', 'test' . 'x' x 57);
like("$run->{code} $run->{err}", qr/\A1 testenv: error: name of clone "testx+_10" is too long: it has 64 bytes, 63 fit\n/, 'a name that the server would cut');
is(cli('clone', '-q', '-d', 'work_test', '--count', 1, '--prefix', 'test' . 'x' x 57)->{code}, 0, 'one that just fits');
$run = cli('clone', '-d', 'postgres', '--count', 1);
like("$run->{code} $run->{err}", qr/\A1 .*extension "testenv" is not installed/, 'an original without the extension');
$run = cli('clone', '-d', 'missing_test', '--count', 1, '--json');
like("$run->{code} $run->{out}", qr/\A1 \{.*"ok":false.*database \\"missing_test\\" does not exist/, 'an original that is not there');
like(cli('clone', '-d', 'work_test', '--count', 1, '--maintenance-db', 'nowhere')->{err}, qr/^testenv: database "nowhere": /, '--maintenance-db');
is(cli('clone', '-q', '--count', 1, { env => { TESTENV_DATABASES => 'work_test' } })->{code}, 0, 'the original from TESTENV_DATABASES');

# --- strategies
my $modern = $node->pg_version >= 18;
$run = cli_json('clone', '-d', 'work_test', '--count', 1, '--prefix', 'wal_test', '--strategy', 'wal_log');
is($run->{json}{databases}[0]{strategy}, 'wal_log', '--strategy wal_log');
$run = cli_json('clone', '-d', 'work_test', '--count', 1, '--prefix', 'copy_test', '--strategy', 'file_copy');
like($run->{json}{databases}[0]{strategy}, $modern ? qr/^file_copy(?:, clone)?$/ : qr/^file_copy$/, '--strategy file_copy');
is(state($node, 'copy_test_1'), $reference, 'the copy is whole');
is(properties('copy_test_1'), properties('work_test'), 'with its properties');
$node->safe_psql('postgres', 'CREATE DATABASE large_test');
$node->safe_psql('large_test', q{CREATE EXTENSION testenv; CREATE TABLE l AS SELECT i, repeat('x', 950) FROM generate_series(1, 20000) i});
$node->safe_psql('postgres', 'ALTER DATABASE large_test SET testenv.testing_mode = on');
cli('snapshot', '-q', '-d', 'large_test');
$run = cli_json('clone', '-d', 'large_test', '--count', 1);
like($run->{json}{databases}[0]{strategy}, $modern ? qr/^file_copy(?:, clone)?$/ : qr/^file_copy$/, 'a large database is copied by files, where fsync is off');
is($run->{json}{databases}[0]{result}, 'done', 'and restored');
$node->safe_psql('postgres', "DROP DATABASE $_") foreach qw(large_test large_test_1 copy_test_1 wal_test_1);

# --- who may not
$node->safe_psql('postgres', 'CREATE ROLE maker LOGIN CREATEDB; GRANT owner TO maker');
$node->safe_psql('postgres', 'GRANT CONNECT ON DATABASE work_test TO maker');
$node->safe_psql('work_test', 'GRANT EXECUTE ON FUNCTION testenv_restore, testenv_snapshots TO maker');
$run = cli_json('clone', '-d', 'work_test', '--count', 1, '--prefix', 'refused_test', '-U', 'maker');
is("$run->{code} " . results($run), '1 refused_test_1=failed', 'a user who may not set the settings');
like($run->{json}{databases}[0]{error}{message}, qr/permission denied/, 'the server\'s message');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname = 'refused_test_1'}), 0, 'no half clone is left');

# --- calls at the same time are serialised
my @calls = map { start_cli('clone', '--json', '-d', 'work_test', '--count', 3, '--prefix', 'together_test') } 1 .. 4;
finish_cli($_) foreach @calls;
is(join(' ', map { $_->{code} } @calls), '0 0 0 0', 'four calls at once');
$_->{json} = JSON::PP->new->utf8->decode($_->{out}) foreach @calls;
my $all = join ' ', map { results($_) } @calls;
is((() = $all =~ /=created/g) . ' ' . (() = $all =~ /=kept/g), '3 9', 'each clone is made once, and kept by the others');
# one waits for its turn, and can be interrupted
$session = Testenv::Session->new($node, 'postgres');
$session->ask('SELECT pg_advisory_lock(1952805748, 1701737984)');
$run = start_cli('clone', '-d', 'work_test', '--count', 3, '--prefix', 'waiting_test');
wait_for('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'testenv' AND wait_event_type = 'Lock'});
$run->{harness}->signal('INT');
finish_cli($run);
is($run->{code}, 130, 'Ctrl-C while waiting for the turn');
like($run->{err}, qr/interrupted/, 'and says so');
$session->quit;

# --- Ctrl-C in the middle: what is made is whole, what is not is not there
$session = Testenv::Session->new($node, 'postgres');
$session->ask('BEGIN');
# the second clone's comment has to wait
$run = start_cli('clone', '--json', '-d', 'work_test', '--count', 3, '--prefix', 'broken_test');
$session->ask('LOCK TABLE pg_shdescription IN SHARE MODE');
wait_for('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'testenv' AND wait_event_type = 'Lock' AND query LIKE 'COMMENT%'});
$run->{harness}->signal('INT');
wait_for('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'testenv' AND query LIKE 'COMMENT%' AND state = 'active'});
$session->ask('COMMIT');
finish_cli($run);
is($run->{code}, 130, 'Ctrl-C while a clone is made');
$run->{json} = JSON::PP->new->utf8->decode($run->{out});
my @made = map { $_->{clone} eq 'created' ? $_->{name} : () } @{ $run->{json}{databases} };
is($node->safe_psql('postgres', q{SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname LIKE 'broken_test%'}), join(' ', @made), 'only whole clones are there');
cmp_ok(scalar(@made), '<', 3, 'and not all of them');
is(cli('clone', '-q', '-d', 'work_test', '--count', 3, '--prefix', 'broken_test')->{code}, 0, 'the next call makes the rest');

# --- a clone that a crash left unfinished is stale
$node->safe_psql('postgres', q{CREATE DATABASE half_test_1; COMMENT ON DATABASE half_test_1 IS 'testenv clone of "work_test", unfinished'});
is(cli('clone', '-q', '-d', 'work_test', '--count', 1, '--prefix', 'half_test')->{code}, 1, 'an unfinished clone is not taken for one');
is(cli('clone', '-q', '-d', 'work_test', '--count', 1, '--prefix', 'half_test', '--drop-stale')->{code}, 0, 'but may be made anew');

# --- four workers at once, each on its clone: changes and restores
is(cli('clone', '-q', '-d', 'work_test', '--count', 4, '--prefix', 'parallel_test')->{code}, 0, 'clones for four workers');
my @workers = map {
	my $worker = $_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/work.sql';

	append_to_file($file, Testenv::work($worker));
	IPC::Run::start([ 'bash', '-c', 'for i in 1 2 3 4 5 6; do psql -Xqo /dev/null -v ON_ERROR_STOP=1 -d "$0" -f "$1" && testenv restore -q -d "$0" || exit 1; done', "parallel_test_$worker", $file ],
		IPC::Run::timeout(300));
} 1 .. 4;
is(join(' ', map { $_->finish ? 'good' : 'bad' } @workers), 'good good good good', 'four workers change and restore at the same time');
is_exact($node, "parallel_test_$_", $reference, "worker $_: exact") foreach 1 .. 4;
is_exact($node, 'work_test', $reference, 'the original has not changed');

$node->stop;
done_testing();
