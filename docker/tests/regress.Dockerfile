# The image, and beside it what its own regression tests need: PGXS, make and
# the tests.
ARG IMAGE=testenv:16
FROM ${IMAGE}
RUN apt-get update \
	&& apt-get install -y --no-install-recommends make "postgresql-server-dev-${PG_MAJOR}" \
	&& rm -rf /var/lib/apt/lists/*
WORKDIR /regress
COPY Makefile testenv.control ./
COPY extension extension
COPY sql sql
COPY expected expected
