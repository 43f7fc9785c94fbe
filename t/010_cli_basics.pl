# The program testenv: which databases, every option, and what is printed where.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Testenv;
use TestenvCli;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('cli');
$node->start;
use_node($node);
small_database($_) foreach qw(orders_test users_Test stock_test);
$node->safe_psql('postgres', 'CREATE DATABASE test_without_extension; CREATE DATABASE shop');
$node->safe_psql('shop', 'CREATE EXTENSION testenv');
my $user = $ENV{PGUSER};

sub rows
{
	my ($db, $sql) = @_;

	return $node->safe_psql($db, $sql // 'SELECT count(*) FROM t');
}

# --- help and version, which need no server
my ($control) = slurp_file("$FindBin::RealBin/../testenv.control") =~ /^default_version = '(.*)'/m;
my $run = cli('--version');
is($run->{code}, 0, '--version: exit code');
like($run->{out}, qr/^testenv \Q$control\E \(libpq \d+\.\d+\)\n\z/, '--version: the version of testenv.control, and libpq\'s');
is(cli('-V')->{out}, $run->{out}, '-V: the same');
$run = cli('--help');
is($run->{code} . $run->{err}, '0', '--help: exit code 0, nothing on stderr');
like($run->{out}, qr/^Usage:\n.*^Which databases:\n.*^Connection options:\n.*^Other options:\n.*^Exit status:/ms, '--help: grouped');
is(cli('-?')->{out}, $run->{out}, '-?: the same');
my @commands = qw(snapshot restore status list drop clone wait run);
foreach my $command (@commands)
{
	my $help = cli($command, '--help');

	is($help->{code}, 0, "$command --help: exit code");
	like($help->{out}, qr/^testenv $command .*^Usage:\n  testenv $command /ms, "$command --help: tells about it");
}
is((grep { length > 90 } split /\n/, $run->{out}), 0, '--help: fits on a terminal');

# --- snapshot
$run = cli('snapshot', '-d', 'orders_test', '-d', "dbname=users_Test user=$user", '-d', 'postgresql:///stock_test');
is($run->{code} . $run->{err}, '0', 'snapshot of a name, a connection string and a URI');
like($run->{out}, qr/\Adatabase +result +snapshot +tables +sequences +pages +ms +size\norders_test +done +default +1 +0 +\d+ +[\d.]+ +[\d.]+ kB\nusers_Test +done .*\nstock_test +done .*\n\z/,
	'a line each, in the order given');
$run = cli('snapshot', 'second', '--label', "a label\nof two lines", '-d', 'orders_test');
is($run->{code}, 0, 'snapshot with name and label');
is(rows('orders_test', q{SELECT label FROM testenv_snapshots() WHERE name = 'second'}), "a label\nof two lines", 'the label is stored');

# --- list
$run = cli('list', '-d', 'orders_test', '-d', 'stock_test');
is($run->{code}, 0, 'list: exit code');
like($run->{out}, qr/^orders_test +second +yes +\d+ s ago +1 +[\d.]+ kB +0 +- +a label\\x0aof two lines$/m, 'list: a line for a snapshot, control characters shown');
like($run->{out}, qr/^orders_test +default +\d+ s ago/m, 'list: another one of the same database');
like($run->{out}, qr/^stock_test +default +yes/m, 'list: another database');
$run = cli_json('list', '-d', 'orders_test');
is(join(' ', map { "$_->{name}:$_->{tables}:" . ($_->{is_current} ? 1 : 0) } @{ $run->{json}{databases}[0]{snapshots} }),
	'second:1:1 default:1:0', 'list --json: the snapshots');
is($run->{json}{databases}[0]{snapshots}[0]{label}, "a label\nof two lines", 'list --json: the label as it is');
like($run->{json}{databases}[0]{snapshots}[0]{created_at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/, 'list --json: the time in ISO 8601');

# --- restore
sub change
{
	$node->safe_psql($_, q{DELETE FROM t WHERE id > 50}) foreach @_;
	return;
}
change(qw(orders_test users_Test stock_test));
$run = cli('restore', '-d', 'orders_test', 'default');
is($run->{code} . $run->{err}, '0', 'restore of a named snapshot');
like($run->{out}, qr/\Adatabase +result +snapshot +tables +sequences +pages +ms\norders_test +done +default +1 +0 +[1-9]\d* +[\d.]+\n\z/, 'what was put back');
is(rows('orders_test') . rows('users_Test'), '10050', 'this database was restored, the other was not');
$run = cli_json('restore', '-d', 'users_Test', '-d', 'stock_test');
is(databases_of($run), 'users_Test=done stock_test=done', 'restore --json: both');
is($run->{json}{ok}, JSON::PP::true, 'restore --json: ok');
is(join(' ', map { "$_->{snapshot} $_->{tables} $_->{host} $_->{port} $_->{user}" } @{ $run->{json}{databases} }),
	join(' ', ("default 1 $ENV{PGHOST} $ENV{PGPORT} $user") x 2), 'restore --json: what and where');
is(join(' ', map { ref $_->{error} || 'none' } @{ $run->{json}{databases} }), 'none none', 'restore --json: no error');
is(rows('users_Test') . rows('stock_test'), '100100', 'both were restored');

# --- which databases: TESTENV_DATABASES, --all, libpq's default
change('orders_test');
$run = cli('restore', { env => { TESTENV_DATABASES => "orders_test users_Test\nhost=$ENV{PGHOST} dbname=stock_test; postgresql:///orders_test?application_name=x" } });
is($run->{code}, 0, 'TESTENV_DATABASES');
is(join(' ', $run->{out} =~ /^(\S+) +done/mg), "orders_test\@local:$ENV{PGPORT} users_Test stock_test orders_test\@local:$ENV{PGPORT}" =~ s/local/$ENV{PGHOST}/gr,
	'names, connection strings and URIs in it; a database that is there twice has its server named');
is(rows('orders_test'), 100, 'restored');
$run = cli('restore', '-d', 'users_Test', { env => { TESTENV_DATABASES => 'nowhere_test' } });
like($run->{out}, qr/\A.*\nusers_Test .*\n\z/, '-d wins over TESTENV_DATABASES');
$run = cli('restore', '--all', { env => { TESTENV_DATABASES => 'nowhere_test' } });
is(join(' ', $run->{out} =~ /^(\S+) +done/mg), 'orders_test stock_test users_Test', '--all: those with "test" in the name and the extension');
is($run->{code} . $run->{err}, '0', '--all: what lacks the extension is no failure');
$run = cli('restore', '-a', '-d', 'orders_test', '--maintenance-db', 'shop');
is(join(' ', $run->{out} =~ /^(\S+) +done/mg), 'orders_test stock_test users_Test', '-a with -d and --maintenance-db: the same server\'s');
$run = cli('restore', '-a', '--maintenance-db', 'nowhere');
is($run->{code}, 1, '--maintenance-db is connected to');
like($run->{err}, qr/^testenv: database "nowhere": .*database "nowhere" does not exist$/m, 'and named');
$run = cli('list', { env => { PGDATABASE => 'stock_test' } });
like($run->{out}, qr/^stock_test +default/m, 'PGDATABASE is the default');

# --- connection options and files
$run = cli('list', '-h', $ENV{PGHOST}, '-p', $ENV{PGPORT}, '-U', $user, '-d', 'stock_test', { env => { PGHOST => '/nowhere', PGPORT => 1, PGUSER => 'nobody' } });
is($run->{code}, 0, '-h, -p and -U win over the environment');
$run = cli('list', "--host=$ENV{PGHOST}", "--port=$ENV{PGPORT}", "--username=$user", '--dbname=stock_test', { env => { PGHOST => '/nowhere', PGPORT => 1, PGUSER => 'nobody' } });
is($run->{code}, 0, 'and their long forms');
my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/services", "[orders]\nhost=$ENV{PGHOST}\nport=$ENV{PGPORT}\nuser=$user\ndbname=orders_test\n");
$run = cli('list', '-d', 'service=orders', { env => { PGSERVICEFILE => "$dir/services", PGPORT => 1 } });
like($run->{out}, qr/^orders_test +second/m, 'a service file');
is(cli('list', { env => { PGSERVICEFILE => "$dir/services", PGSERVICE => 'orders', PGPORT => '' } })->{code}, 0, 'PGSERVICE');

# --- options before the command, and in between
is(cli('-d', 'stock_test', 'restore', 'default')->{code}, 0, 'options before the command');
is(cli('restore', 'default', '-d', 'stock_test', '-v')->{code}, 0, 'and after the name');
is(cli('restore', '-d', 'stock_test', '--', 'default')->{code}, 0, 'and ended by --');

# --- -q, -v, and stdout and stderr
$run = cli('restore', '-q', '-d', 'stock_test');
is($run->{code} . $run->{out} . $run->{err}, '0', '-q: silence is success');
$run = cli('snapshot', '-q', 'extra', '-d', 'stock_test');
is($run->{out} . $run->{err}, '', '-q: of snapshot, too');
$run = cli('restore', '-v', '-d', 'stock_test', 'default');
like($run->{err}, qr/^testenv: connected to database "stock_test" in [\d.]+ ms\ntestenv: database "stock_test": server \d.*, testenv \Q$control\E in schema public$/m, '-v: what is done, on stderr');
like($run->{out}, qr/\Adatabase/, '-v: the table on stdout');
like(cli('restore', '-v', '-d', 'stock_test', 'unknown')->{err}, qr/ERROR:  42704: snapshot "unknown" does not exist/, '-v: SQLSTATE');
$node->safe_psql('stock_test', 'CREATE TABLE extra (id int); INSERT INTO extra VALUES (1)');
$run = cli('restore', '-d', 'stock_test');
like($run->{err}, qr/^testenv: database "stock_test": NOTICE:  emptied 1 table.*\nDETAIL:  /m, 'a NOTICE, whole, with the database');
$node->safe_psql('stock_test', 'INSERT INTO extra VALUES (1)');
$run = cli_json('restore', '-d', 'stock_test', '-q');
is($run->{err}, '', '-q: without it');
like($run->{json}{databases}[0]{notices}[0], qr/^NOTICE:  emptied 1 table/, 'in JSON it is');
unlike($run->{out} . cli('list', '-a')->{out}, qr/\e/, 'no colours where there is no terminal');
$run = cli('list', '-a', { before => [ 'sh', '-c', 'exec "$0" "$@" >/dev/full' ] });
is($run->{code}, 1, 'output that cannot be written is a failure');
like($run->{err}, qr/^testenv: error: could not write to standard output: No space left/m, 'and says so');

# --- drop
$run = cli('drop', 'second', '-d', 'orders_test');
is($run->{code} . $run->{err}, '0', 'drop');
like($run->{out}, qr/^orders_test +dropped +second$/m, 'says what');
is(rows('orders_test', 'SELECT string_agg(name, \',\') FROM testenv_snapshots()'), 'default', 'it is gone');
is(databases_of(cli_json('drop', 'extra', '-d', 'orders_test', '-d', 'stock_test')), 'orders_test=failed stock_test=done', 'drop --json: one has none of that name');

# --- --terminate
my $session = held_lock('orders_test');
$run = cli('restore', '--terminate', '-d', 'orders_test');
is($run->{code}, 0, 'restore --terminate');
is($session->ask('SELECT 1'), undef, 'the session in the way is gone');
$session->quit;

# --- -j: one after the other is as good
change(qw(orders_test users_Test stock_test));
is(join(' ', cli('restore', '-j', 1, '-a')->{out} =~ /^(\S+) +done/mg), 'orders_test stock_test users_Test', '-j 1');
is(rows('orders_test') . rows('users_Test') . rows('stock_test'), '100100100', 'all restored');

# --- an extension in another schema, and a hostile search_path
$node->safe_psql('postgres', 'CREATE DATABASE schema_test');
$node->safe_psql('schema_test', <<'SQL');
CREATE SCHEMA "odd "" schema";
CREATE EXTENSION testenv SCHEMA "odd "" schema";
CREATE TABLE t (id int);
CREATE FUNCTION public.testenv_restore(text, bool) RETURNS text LANGUAGE sql AS $$ SELECT 'wrong one' $$;
CREATE FUNCTION public.no(name, name) RETURNS bool LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = name, FUNCTION = public.no);
ALTER DATABASE schema_test SET search_path = public, pg_catalog;
SQL
is(cli('snapshot', '-d', 'schema_test')->{code}, 0, 'the extension in another schema: snapshot');
like(cli('restore', '-d', 'schema_test')->{out}, qr/^schema_test +done +default +0 /m, 'restore calls the extension\'s own');
is(cli('status', '-d', 'schema_test')->{code}, 0, 'status, too');

# --- text that is not ASCII, or no text
my $strange = "test_\xc3\xa9\"'\\";
$node->safe_psql('postgres', 'CREATE DATABASE ' . ('"' . $strange =~ s/"/""/gr . '"'));
$run = cli_json('restore', '-d', "dbname='" . ($strange =~ s/(['\\])/\\$1/gr) . q{'});
is($run->{json}{databases}[0]{database}, "test_\xe9\"'\\", 'JSON: a name with quotes, a backslash and a letter beyond ASCII');
like($run->{json}{databases}[0]{error}{message}, qr/not installed in database "test_\xe9"'\\"/, 'and the message');
$run = cli_json('restore', '-d', "\xff\xfetest");
is($run->{json}{databases}[0]{name}, "\x{fffd}\x{fffd}test", 'JSON: bytes that are no UTF-8');

$node->stop;
done_testing();
