# The manual page and the completions know every command and every option.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use TestenvCli;
use PostgreSQL::Test::Utils;
use Test::More;

my $share = "$FindBin::RealBin/../cli";
my @commands = qw(snapshot restore status list drop clone wait run);
my %help = map { $_ => cli($_, '--help')->{out} } @commands;
my $overview = cli('--help')->{out};

# long and short options of the program and of its commands
my %common = map { $_ => 1 } $overview =~ /^ +(?:-\S, )?(--[a-z-]+)/mg;
delete $common{$_} foreach qw(--label --terminate --timeout --count);
my %of = map {
	my $command = $_;
	my ($part) = $help{$command} =~ /^Options of this command:\n(.*?)\n\n/ms;
	$command => [ ($part // '') =~ /^ +(--[a-z-]+)/mg ];
} @commands;
my %all = map { $_ => 1 } keys %common, map { @$_ } values %of;
my @short = $overview =~ /^ +(-\S), --/mg;
is(scalar(keys %all), 22, 'options of the help');
is(join(' ', @{ $of{clone} }), '--count --prefix --drop-stale --strategy --no-restore --terminate', 'those of clone');

my $man = slurp_file("$share/testenv.1");
(my $plain = $man) =~ s/\\-/-/g;
like($plain, qr/^\.TP\n\.B[IR]? .*(?<![a-z-])\Q$_\E(?![a-z-])/m, "manual page: $_") foreach sort(keys %all), sort @short;
like($plain, qr/^\.SS testenv $_\b/m, "manual page: $_") foreach @commands;
like($plain, qr/^\.SH "?$_"?$/m, "manual page: section $_") foreach 'EXIT STATUS', 'ENVIRONMENT', 'EXAMPLES';
like($plain, qr/^\.B $_$/m, "manual page: exit status $_") foreach qw(0 1 2 3 4 125 126 127 130);
unlike($man, qr/(?<!\\)(?<![\w\\])--?[a-z]/, 'manual page: options have hyphens that can be copied');

# where they were installed to
my $config = $ENV{PG_CONFIG} // 'pg_config';
chomp(my $bindir = `$config --bindir`);
chomp(my $mandir = `$config --mandir`);
ok(-x "$bindir/testenv", 'the program is installed beside the server\'s');
is(-s "$mandir/man1/testenv.1", -s "$share/testenv.1", 'the manual page is installed');

my $zsh = slurp_file("$share/completion/_testenv");
like($zsh, qr/\Q$_\E[\[=}]/, "zsh: $_") foreach sort keys %all;
like($zsh, qr/'$_:/, "zsh: $_") foreach @commands;

# bash completes what it is asked
sub complete_words
{
	my (@words) = @_;
	my $script = <<'BASH';
source "$0"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMPREPLY=()
_testenv
printf '%s\n' "${COMPREPLY[@]}"
BASH
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'bash', '--norc', '-uc', $script, "$share/completion/testenv.bash", @words ], '>', \$out, '2>', \$err);
	fail("bash completion: $err") if $err ne '';
	return join ' ', sort split ' ', $out;
}
is(complete_words('testenv', ''), join(' ', sort @commands), 'bash: the commands');
is(complete_words('testenv', 're'), 'restore', 'bash: a command that has been begun');
is(complete_words('testenv', '-q', 's'), 'snapshot status', 'bash: after an option');
is(complete_words('testenv', '-d', 'list', 's'), 'snapshot status', 'bash: the value of an option is no command');
foreach my $command (@commands)
{
	is(complete_words('testenv', $command, '--'), join(' ', sort @{ $of{$command} }, grep { $command ne 'clone' || $_ ne '--all' } keys %common), "bash: options of $command");
}
is(complete_words('testenv', 'clone', '--strategy', ''), 'auto file_copy wal_log', 'bash: values of --strategy');
is(complete_words('testenv', 'clone', '--strategy', '=', 'f'), 'file_copy', 'bash: as it does');

done_testing();
