#!/usr/bin/env bash
# While the image is built: lets the base's docker-entrypoint.sh read testenv's
# part, and makes sure that both belong together.
#
# One line goes in front of the last three of the official file, so that path,
# name and everything else of it stay as they are: entrypoints of others call it
# or read it in.
set -euo pipefail

die() { printf 'testenv: %s\n' "$*" >&2; exit 1; }

part=/usr/local/lib/testenv/entrypoint.sh
entrypoint=$(command -v docker-entrypoint.sh) || die 'the base image has no docker-entrypoint.sh'
last='if ! _is_sourced; then'

[ "$(grep -cxF "$last" "$entrypoint")" = 1 ] || die "$entrypoint of the base image does not have the line '$last' once"
sed -i "s|^$last\$|. $part\n\n&|" "$entrypoint"
bash -c '. docker-entrypoint.sh && declare -F testenv_finish official_docker_temp_server_stop' >/dev/null ||
	die "$entrypoint of the base image lacks a function that testenv builds on"
