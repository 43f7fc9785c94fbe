#!/usr/bin/env bash
# make bench: testenv's restore beside every other way to reset a test database,
# in one throwaway cluster, and the bars that the restore is held to.
#
#   bench/run.sh [PG_CONFIG]
#
#   BENCH         quick: small databases, two minutes; the results go to
#                 results/quick, which git ignores
#                 bars: only the bars
#                 full: everything, with a database of 5 GB beside the smaller ones
#                 (not set): everything, up to 1 GB, at most 25 minutes
#   TMPDIR        where the throwaway cluster lies: 15 GB for the bars, 30 GB for full
#   TESTENV_KEEP  1: leave the throwaway folder for a look at it
#
# The cluster comes from .ci/lib.sh, as for make check; without a PG_CONFIG it is
# PostgreSQL 16 where .ci/servers has it for this machine.  Python's packages go into
# the throwaway folder; only the download caches of pip and Go, where those
# programs always keep them, outlive the run.
set -euo pipefail

# the personal caches, before HOME becomes the throwaway folder's
pip_cache=${PIP_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pip}
go_program=$(command -v go || true)
go_env=()
if [ -n "$go_program" ]; then
	go_env=("GOMODCACHE=$("$go_program" env GOMODCACHE)" "GOCACHE=$("$go_program" env GOCACHE)"
		"GOPROXY=$("$go_program" env GOPROXY)" "GOSUMDB=$("$go_program" env GOSUMDB)" GOTOOLCHAIN=local)
fi

# shellcheck source=.ci/lib.sh
. "$(dirname "$0")/../.ci/lib.sh"

mode=${BENCH:-default}
case $mode in
quick | bars | full | default) ;;
*) die "BENCH is quick, bars, full or not set; it is \"$mode\"" ;;
esac
results=$checkout/bench/results
[ "$mode" != quick ] || results=$results/quick

# Debian's interpreter comes first: the server's account can reach it, which a
# personal one below somebody's home often fails.
find_python()
{
	local python
	for python in /usr/bin/python3 "$(command -v python3 || true)"; do
		[ -n "$python" ] && as_server "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue
		echo "$python"
		return
	done
	return 1
}

install_python()
{
	local python
	step "Python's packages, into the throwaway folder"
	python=$(find_python) || { apt_install python3 python3-venv; python=$(find_python) || die "no python3 (3.10 or newer) with venv"; }
	"$python" -m venv "$work/venv"
	pip=("$work/venv/bin/pip" --quiet --disable-pip-version-check --no-input --cache-dir "$pip_cache")
	"${pip[@]}" install -r "$checkout/bench/requirements.txt"
	mkdir "$work/peers"
}

# A peer that does not install is listed as such, with pip's own last words.
install_python_peers()
{
	local peer name
	step "peers written in Python, from their registry"
	for peer in "$checkout"/bench/peers/*.requirements.txt; do
		name=$(basename "$peer" .requirements.txt)
		"${pip[@]}" install -r "$peer" >"$work/peers/$name.log" 2>&1 ||
			tail -n 1 "$work/peers/$name.log" >"$work/peers/$name.missing"
	done
}

# testcontainers-go comes from the Go module proxy and is compiled here.
install_testcontainers()
{
	local log=$work/peers/testcontainers.log missing=$work/peers/testcontainers.missing
	if [ "$mode" = quick ]; then
		echo 'not built for BENCH=quick: compiling it takes too long' >"$missing"
	elif [ -z "$go_program" ]; then
		echo 'there is no Go on this machine' >"$missing"
	else
		step "testcontainers-go, from its registry"
		cp -r "$checkout/bench/peers/testcontainers" "$work/peers/src"
		if ! (cd "$work/peers/src" && env "${go_env[@]}" timeout 400 "$go_program" build -p 2 -o "$work/peers/testcontainers" .) >"$log" 2>&1; then
			echo "it did not build: $(tail -n 1 "$log" | grep . || echo 'out of time')" >"$missing"
		fi
	fi
}

# PostgreSQL 16 unless told otherwise; where that server cannot be had, the one
# that make check would take.
choose_server()
{
	local config=$1
	if [ -z "$config" ]; then config=$(bash "$checkout/.ci/servers" 16) || config=; fi
	find_server "$config"
}

choose_server "${1:-}"
begin_throwaway
build_extension
start_cluster
install_python
if [ "$mode" != bars ]; then
	install_python_peers
	install_testcontainers
fi
as_server mkdir "$work/copy" "$work/out"
# the server's account need not be able to read the checkout
mkdir "$work/bench"
cp -r "$checkout"/bench/*.py "$checkout/bench/peers" "$work/bench/"
revision=$(git -C "$checkout" describe --always --dirty 2>/dev/null || echo unknown)

# in the background, because bash serves a signal only between foreground commands
timeout -k 20 14400 "${account[@]}" env PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH="$PATH" MPLCONFIGDIR="$work/home" \
	"$work/venv/bin/python" "$work/bench/bench.py" --mode "$mode" --copy "$work/copy" --out "$work/out" \
	--peers "$work/peers" --revision "$revision" </dev/null &
child=$!
status=0
wait "$child" || status=$?
child=

# each file is written when its part is through, so what is there is whole
if [ -n "$(ls "$work/out")" ]; then
	mkdir -p "$results"
	cp "$work"/out/* "$results/"
	step "written to ${results#"$checkout"/}: $(cd "$work/out" && echo *)"
fi
[ "$status" = 0 ] || die "the run ended early, with status $status"
