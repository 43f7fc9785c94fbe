# Builds, installs and tests the extension and the program of cli/.
#
#   make, make install, make installcheck    as in every PGXS extension
#   make check                               throwaway server, every suite
#   make demo                                throwaway server, one screen
#   make bench                               throwaway server, resets side by side
#
# PG_CONFIG chooses the server.  check, demo and bench must work on a machine where no
# server is installed yet, so they are settled before PGXS is looked for; they
# build in a copy and leave this folder as it is.

.DEFAULT_GOAL := all

ifneq (,$(filter check demo bench,$(MAKECMDGOALS)))

.PHONY: $(MAKECMDGOALS)

check:
	@bash .ci/check $(PG_CONFIG)

demo:
	@bash examples/demo.sh $(PG_CONFIG)

bench:
	@bash bench/run.sh $(PG_CONFIG)

# what else was asked for in the same call
$(filter-out check demo bench,$(MAKECMDGOALS)):
	@$(MAKE) $@

else

PG_CONFIG ?= pg_config

EXTENSION = testenv
MODULE_big = testenv
DATA = $(sort $(wildcard extension/testenv--*.sql))
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard extension/*.c)))

# -Wno-unused-parameter: the callbacks of an access method have the parameters
# that the server's API gives them.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wdeclaration-after-statement

# The extension refuses to work in a database whose name lacks "test"; the
# server must have testenv.testing_mode = on for installcheck.
REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
ISOLATION = $(patsubst specs/%.spec,%,$(sort $(wildcard specs/*.spec)))

BUILT_WITH = extension/.built-with
EXTRA_CLEAN = $(BUILT_WITH) $(BUILT_WITH).new

# no bitcode: it would need the very clang that built the server
override with_llvm := no

PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq (,$(PGXS))
$(error $(PG_CONFIG) gives no PGXS: install the server's development files or set PG_CONFIG)
endif
include $(PGXS)

CONTRIB_TESTDB = testenv_regression_test
ISOLATION_TESTDB = testenv_isolation_test

# As system headers, so that the warnings above judge this project's code only.
server_include = $(includedir_server) $(includedir_internal)
override CPPFLAGS := $(filter-out $(addprefix -I,$(server_include)),$(CPPFLAGS)) $(addprefix -isystem ,$(server_include))

# Objects of another server or of older headers must not be linked.
$(OBJS): $(wildcard extension/*.h) $(BUILT_WITH)

# The program has a makefile of its own, because PGXS builds a module or a
# program, not both.
all: all-cli
install: install-cli
uninstall: uninstall-cli
clean: clean-cli

.PHONY: all-cli install-cli uninstall-cli clean-cli
all-cli install-cli uninstall-cli clean-cli: %-cli:
	$(MAKE) -C cli PG_CONFIG='$(PG_CONFIG)' $*

install-cli: all-cli

.PHONY: FORCE
$(BUILT_WITH): FORCE
	@$(PG_CONFIG) >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

endif
