#!/usr/bin/env bash
# The tests of the image: builds it, runs each function case_* of cases/*.sh in
# the order of the files, and closes with one line 'N passed, N failed'.
#
#   TESTENV_BASE=... TESTENV_DEBIAN=... docker/tests/run.sh [CASE ...]
#
# .ci/docker calls it with a daemon, a base image and the compose plugin at hand.
# A case is a subshell of its own: the first command that fails ends it, and its
# output is shown.  Times are printed, never judged: they depend on the machine.
set -euo pipefail

# folders and files of this script are read by servers of other accounts
umask 022
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$tests/../.." && pwd)

# shellcheck source=docker/tests/lib.sh
. "$tests/lib.sh"
for file in "$tests"/cases/*.sh; do
	# shellcheck disable=SC1090
	. "$file"
done

work=$(mktemp -d /tmp/testenv-image.XXXXXX)
chmod 755 "$work"
passed=0
failed=0

finish()
{
	local status=$?
	trap '' HUP INT TERM
	trap - EXIT
	set +e
	remove_all
	rm -rf "$work"
	if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
	printf '%d passed, %d failed\n' "$passed" "$failed"
	[ "$failed" = 0 ] && [ "$passed" != 0 ]
	exit
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# one case; what it calls "figure" is shown beside its name
run_case()
{
	local name=$1 from to status
	from=$(date +%s%N)
	: >"$work/figures"
	set +e
	(
		set -eE
		trap 'printf "%s: line %d: failed: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "$BASH_COMMAND"' ERR
		"case_$name"
	) >"$work/output" 2>&1 </dev/null
	status=$?
	set -e
	to=$(date +%s%N)
	if [ "$status" = 0 ]; then
		passed=$((passed + 1))
		printf 'ok - %-24s %6.1f s  %s\n' "$name" "$(((to - from) / 100000000))e-1" "$(paste -sd ';' "$work/figures" | sed 's/;/; /g')"
	else
		failed=$((failed + 1))
		printf 'not ok - %s\n' "$name"
		tail -n 60 "$work/output" | sed 's/^/# /'
	fi
	remove_containers
}

cases=("$@")
[ ${#cases[@]} -gt 0 ] || mapfile -t cases < <(cat "$tests"/cases/*.sh | sed -n 's/^case_\([a-z_]*\)()$/\1/p')
build_images
for name in "${cases[@]}"; do run_case "$name"; done
