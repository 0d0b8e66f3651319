# mqd: `make help` lists the targets.
#
# The product needs a C compiler and make, nothing else. It is linked statically where a
# static libc is there, because a super-server starts one process per connection and the
# dynamic linker is half of what that costs: musl-gcc if installed, else static glibc, else
# dynamic. CC, CFLAGS, CPPFLAGS, LDFLAGS, PREFIX and DESTDIR are yours to set.
#
#   make SAN=1 ...       address and undefined behaviour sanitizers, in build/san
#   make COV=1 ...       counting which lines are run, in build/cov; `make coverage` shows it
#   make MEM=1 ...       as valgrind needs it, in build/memcheck; see `make memcheck`
#   make PORTABLE=1 ...  every Linux-only path compiled out, in build/portable

PREFIX ?= /usr/local
SBINDIR ?= $(PREFIX)/sbin
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
DOCDIR ?= $(PREFIX)/share/doc/mqd

ifeq ($(origin CC),default)
CC := $(if $(SAN)$(COV)$(MEM),cc,$(shell command -v musl-gcc || echo cc))
endif
CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes

links = $(shell echo 'int main(void){return 0;}' | $(CC) $(1) -x c - -o /dev/null 2>/dev/null && echo $(1))
ifdef SAN
VARIANT := san
HARDEN := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
LINK := -fsanitize=address,undefined
else ifdef COV
VARIANT := cov
HARDEN := --coverage -fprofile-update=atomic
LINK := --coverage -Wl,--wrap=_exit build/cov/coverage.o
else ifdef MEM
VARIANT := memcheck
HARDEN := -fno-omit-frame-pointer
LINK :=
else
VARIANT := $(if $(PORTABLE),portable,default)
STATIC := $(call links,-static)
HARDEN := -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 $(if $(findstring musl,$(CC)),,-fPIE)
# What only mqctl calls is left out of mqd: each 64 KiB of code more is a page fault more.
HARDEN += -ffunction-sections -fdata-sections
LINK := $(if $(STATIC),-static,-pie) -Wl,-z,relro,-z,now,--gc-sections
endif

MQ_CPPFLAGS := -D_GNU_SOURCE $(if $(PORTABLE),-DMQ_PORTABLE) $(CPPFLAGS)
MQ_CFLAGS := -std=c11 $(WARN) $(HARDEN) $(CFLAGS)

B := build/$(VARIANT)
COMMON := spool.o claim.o queue.o wait.o admin.o check.o config.o fanout.o delay.o journal.o replay.o state.o message.o queue_name.o crc32c.o \
	number.o place.o os.o figures.o
MQD := mqd.o listen.o pool.o serve.o auth.o shacrypt.o daemon.o report.o connection.o proto.o stats.o log.o $(COMMON)
MQCTL := mqctl.o list.o top.o tail.o holder.o json.o progress.o terminal.o utf8.o $(COMMON)
MQCTL += transfer.o drain.o rebalance.o stage.o tar.o client.o ketama.o md5.o

ifeq ($(VARIANT),default)
all: mqd mqctl
mqd mqctl: %: $B/%
	cp $< $@.new && mv -f $@.new $@ # a running one keeps its file
else
all: $B/mqd $B/mqctl
endif

MQCTL += glance.o metrics.o stats.o http.o http_request.o page.o

$B/mqd $B/mqctl: $(if $(COV),$B/coverage.o)
$B/coverage.o: tests/coverage.c | $B
	chmod a+rwx $B # other users' processes count as well
	$(CC) -c -o $@ $<
$B/mqd: $(MQD:%=$B/%)
	$(CC) $(LINK) $(LDFLAGS) -o $@ $(MQD:%=$B/%)
# getaddrinfo in a static program needs the very glibc that it was linked with.
$B/mqctl: $(MQCTL:%=$B/%)
	$(CC) $(if $(findstring musl,$(CC)),$(LINK),$(patsubst -static,-pie,$(LINK))) $(LDFLAGS) -o $@ $(MQCTL:%=$B/%)
# The page of `mqctl http`, as C.
$B/page.c: page.html Makefile | $B
	{ printf '#include "page.h"\nconst char page_html[] = {\n' && \
	    od -An -v -tx1 $< | sed "s/ \([0-9a-f][0-9a-f]\)/'\\\\x\1',/g" && \
	    printf '};\nconst size_t page_len = sizeof page_html;\n'; } > $@.new && mv $@.new $@
$B/page.o: $B/page.c page.h
	$(CC) $(MQ_CPPFLAGS) -I. $(MQ_CFLAGS) -c -o $@ $<
$B/%.o: %.c Makefile | $B
	$(CC) $(MQ_CPPFLAGS) $(MQ_CFLAGS) -MMD -MP -c -o $@ $<
$B:
	mkdir -p $@
$B/test-crc32c: tests/crc32c.c crc32c.c crc32c.h Makefile | $B
	$(CC) $(MQ_CPPFLAGS) $(MQ_CFLAGS) $(LINK) $(LDFLAGS) -o $@ $<
$B/test-config: tests/config.c config.c config.h number.c number.h queue_name.c queue_name.h Makefile | $B
	$(CC) $(MQ_CPPFLAGS) $(MQ_CFLAGS) $(LINK) $(LDFLAGS) -o $@ $(filter %.c,$^)
# For bench/ and the tests, on Linux alone. What is measured as a floor is linked as mqd is.
FLOORS := build/floor-server build/floor-syscalls
build/load: $(filter-out bench/floor-%,$(wildcard bench/*.c bench/*.h)) number.c number.h | $B
	$(CC) -D_GNU_SOURCE -std=c11 $(WARN) -O2 -g -o $@ $(filter %.c,$^)
$(FLOORS): build/%: bench/%.c number.c number.h | $B
	$(CC) $(MQ_CPPFLAGS) $(MQ_CFLAGS) $(LINK) $(LDFLAGS) -o $@ $(filter %.c,$^)
-include $(wildcard $B/*.d)

# The queue on loopback, for a first try; ends with ^C.
run: all
	@mkdir -p -m 700 spool
	@echo "mqd listens on 127.0.0.1:22201, its spool is ./spool. In another terminal:"
	@echo
	@echo "    telnet 127.0.0.1 22201       (or nc -C, which sends CRLF)"
	@echo "    set q4 0 0 5"
	@echo "    hello"
	@echo "    get q4"
	@echo
	@echo "and ./mqctl -H spool ls, or ls and cat on ./spool/q4. Stop it with ^C."
	@exec ./mqd -v -H spool -l 127.0.0.1 -p 22201 -u "$$(id -u)"

# What the tests need, all of them, and the summary line. TESTS=file... runs only these,
# JOBS=n files at a time, LAUNCH=connection with a process per connection, SYNC=full|push|none with that -o sync.
test: all
	MQD=$(CURDIR)/$B/mqd MQCTL=$(CURDIR)/$B/mqctl tests/run $(TESTS)

# The page in a browser, and the metrics with Prometheus: what these need is large.
test-see: all
	tests/install-deps see
	MQD=$(CURDIR)/$B/mqd MQCTL=$(CURDIR)/$B/mqctl tests/run tests/page.bats tests/prometheus.bats

# Sources only: format, warnings as errors, and two static analysers.
SOURCES := $(wildcard *.c *.h bench/*.c bench/*.h tests/*.c fuzz/*.c)
check:
	tests/install-deps lint
	clang-format --dry-run --Werror $(SOURCES)
	$(MAKE) --no-print-directory lint-build
	clang-tidy --quiet $(wildcard *.c bench/*.c) -- -std=c11 $(MQ_CPPFLAGS)
	cppcheck --quiet --std=c11 --enable=warning,performance,portability \
	    --inline-suppr --error-exitcode=1 -D_GNU_SOURCE -DATOMIC_LLONG_LOCK_FREE=2 $(wildcard *.c)
	mandoc -Tlint -W warning man/*.[0-9]

# Both compilers, both ways, no warning.
lint-build:
	for cc in gcc clang; do for opt in "" -DMQ_PORTABLE; do for f in *.c bench/*.c; do \
	    $$cc $(MQ_CPPFLAGS) $$opt -std=c11 $(WARN) -Werror -O2 -c -o /dev/null $$f || exit 1; \
	done; done; done

# ONLY=regex for some of the scenarios, BENCH=long for all of them and longer.
bench: all build/load $(FLOORS)
	tests/install-deps bench
	bench/run
	bench/memory
	bench/wait

# Hours; PARTS="powercut model" for some. What they print goes to tests/SOAK.md.
soak: all build/load
	$(MAKE) --no-print-directory PORTABLE=1
	tests/long $(PARTS)

# Every reader of foreign bytes, each for FUZZ_SECONDS, with clang's libFuzzer and sanitizers. What a
# fuzzer includes as a whole is not linked a second time.
FUZZERS := proto header text state config journal holder auth import
FUZZ_SECONDS ?= 60
FUZZ_SOURCES := $(COMMON:.o=.c) proto.c
FUZZ_CC = clang -D_GNU_SOURCE -std=c11 -g -O1 $(WARN)
fuzz_c = $< $(filter-out $(if $(findstring journal,$@),journal.c),$(FUZZ_SOURCES))
fuzz_c += $(if $(findstring import,$@),tar.c stage.c md5.c progress.c terminal.c)
FUZZ_HEADERS := $(wildcard *.h)
FUZZERS += http
build/fuzz-%: fuzz/%.c $(FUZZ_SOURCES) holder.c $(FUZZ_HEADERS) | $B
	$(FUZZ_CC) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $@ $(fuzz_c)
build/reach-%: fuzz/%.c $(FUZZ_SOURCES) holder.c $(FUZZ_HEADERS) | $B
	$(FUZZ_CC) -fsanitize=fuzzer -fprofile-instr-generate -fcoverage-mapping -o $@ $(fuzz_c)
build/fuzz-auth build/reach-auth: auth.c shacrypt.h
build/fuzz-import build/reach-import: transfer.c tar.c stage.c md5.c progress.c terminal.c
fuzz: $(FUZZERS:%=build/fuzz-%) $(FUZZERS:%=build/reach-%)
	@fuzz/run $(FUZZ_SECONDS) $(FUZZERS)

# The corpora, of what they and build/corpus hold: what reaches the most, the smallest first.
corpus: $(FUZZERS:%=build/fuzz-%)
	for f in $(FUZZERS); do \
	    max=2200; [ $$f != import ] || max=6000; \
	    rm -rf build/merged && mkdir -p build/merged build/corpus/$$f && \
	    build/fuzz-$$f -merge=1 -use_counters=0 -max_len=$$max build/merged fuzz/corpus/$$f build/corpus/$$f && \
	    rm -rf fuzz/corpus/$$f && mv build/merged fuzz/corpus/$$f || exit 1; \
	done

# All of mqd on its standard input, see fuzz/mqd.c: one instance without flushes, one with the log.
AFL_SECONDS ?= 600
AFL_WRAPPED := open openat mkdirat mkfifoat unlinkat linkat renameat syscall poll clock_gettime time
build/afl-mqd: fuzz/mqd.c $(filter-out mqd.c,$(MQD:.o=.c)) mqd.c $(FUZZ_HEADERS) | $B
	AFL_QUIET=1 AFL_USE_ASAN=1 AFL_USE_UBSAN=1 afl-clang-fast -D_GNU_SOURCE -std=c11 -g -O1 $(WARN) -Wno-gnu-statement-expression \
	    $(AFL_WRAPPED:%=-Wl,--wrap=%) -o $@ $< $(filter-out mqd.c,$(MQD:.o=.c))
afl: build/afl-mqd
	@tests/install-deps soak >&2
	@fuzz/afl $(AFL_SECONDS)

# Of a suite that ran with COV=1. Who was killed has not counted.
coverage:
	@tests/uncovered build/cov tests/COVERAGE.md mqd.c proto.c spool.c claim.c mqctl.c
	@tests/uncovered build/cov /dev/null $(filter-out mqd.c proto.c spool.c claim.c,$(MQD:.o=.c)) holder.c 2>/dev/null || :

# The suite with each mqd and mqctl under valgrind, and what that has found in all of them.
memcheck:
	@tests/install-deps soak >&2
	@$(MAKE) --no-print-directory MEM=1 >&2
	@tests/memcheck build/memcheck $(TESTS)

# What is in etc/ but units, completion and what systemd makes is an example, to be copied elsewhere.
UNITS := $(notdir $(wildcard etc/*.socket etc/*.service))
EXAMPLES := $(filter-out $(UNITS) mqd.sysusers mqd.tmpfiles completion,$(notdir $(wildcard etc/*)))
# Each file of etc/, with the paths that it will find.
placed = sed -e 's,/usr/local/sbin,$(SBINDIR),g' -e 's,/usr/local/bin,$(BINDIR),g' \
    -e 's,/usr/local/lib/systemd/system,$(UNITDIR),g' -e 's,/usr/local/lib/sysusers.d,$(SYSUSERSDIR),g' \
    -e 's,/usr/local/lib/tmpfiles.d,$(TMPFILESDIR),g' etc/$(1) > $(DESTDIR)$(2) && chmod 644 $(DESTDIR)$(2)
install: all
	install -d $(addprefix $(DESTDIR),$(SBINDIR) $(BINDIR) $(UNITDIR) $(SYSUSERSDIR) $(TMPFILESDIR) \
	    $(MANDIR)/man1 $(MANDIR)/man5 $(MANDIR)/man8 $(BASHDIR) $(ZSHDIR) $(DOCDIR)/examples)
	install -m 755 $B/mqd $(DESTDIR)$(SBINDIR)/mqd
	install -m 755 $B/mqctl $(DESTDIR)$(BINDIR)/mqctl
	for section in 1 5 8; do install -m 644 man/*.$$section $(DESTDIR)$(MANDIR)/man$$section/ || exit 1; done
	for f in $(UNITS); do $(call placed,$$f,$(UNITDIR)/$$f) || exit 1; done
	$(call placed,mqd.sysusers,$(SYSUSERSDIR)/mqd.conf)
	$(call placed,mqd.tmpfiles,$(TMPFILESDIR)/mqd.conf)
	for f in $(EXAMPLES); do $(call placed,$$f,$(DOCDIR)/examples/$$f) || exit 1; done
	for f in mqd mqctl; do \
	    install -m 644 etc/completion/$$f.bash $(DESTDIR)$(BASHDIR)/$$f && \
	    install -m 644 etc/completion/$$f.zsh $(DESTDIR)$(ZSHDIR)/_$$f || exit 1; done
	install -m 644 README.md $(DESTDIR)$(DOCDIR)/

# The spool stays: it holds messages. So does the user.
uninstall:
	rm -f $(DESTDIR)$(SBINDIR)/mqd $(DESTDIR)$(BINDIR)/mqctl
	rm -f $(foreach m,$(notdir $(wildcard man/*)),$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $m))/$m)
	rm -f $(UNITS:%=$(DESTDIR)$(UNITDIR)/%)
	rm -f $(DESTDIR)$(SYSUSERSDIR)/mqd.conf $(DESTDIR)$(TMPFILESDIR)/mqd.conf
	rm -f $(foreach f,mqd mqctl,$(DESTDIR)$(BASHDIR)/$f $(DESTDIR)$(ZSHDIR)/_$f)
	rm -rf $(DESTDIR)$(DOCDIR)

# A Debian package, in build/, of the sources as they lie here, in a directory of their own because
# dpkg-buildpackage writes beside it. None of this make's variables reach that build.
deb:
	rm -rf build/deb && mkdir -p build/deb/mqd
	tar -cf - --exclude-vcs --exclude=./build --exclude=./spool --exclude=./mqd --exclude=./mqctl . | \
	    tar -xf - -C build/deb/mqd
	cd build/deb/mqd && env -u MAKEFLAGS -u MFLAGS -u MAKEOVERRIDES -u MAKELEVEL -u PREFIX -u DESTDIR \
	    dpkg-buildpackage -us -uc -b
	rm -f build/mqd_*.deb && mv build/deb/mqd_*.deb build/

# The sources of the last commit: the same bytes whoever makes it, and whenever.
VERSION = $(shell sed -n 's/^.define MQD_VERSION "\(.*\)"/\1/p' serve.h)
tarball:
	mkdir -p build
	git -c tar.umask=0022 -c core.autocrlf=false archive --prefix=mqd-$(VERSION)/ HEAD >build/tarball.tar
	gzip -9n <build/tarball.tar >build/mqd-$(VERSION).tar.gz && rm build/tarball.tar

clean:
	rm -rf build mqd mqctl

help:
	@echo "make            build mqd and mqctl"
	@echo "make run        serve on 127.0.0.1:22201 with the spool in ./spool"
	@echo "make test       all tests; installs what they need (Debian, root)"
	@echo "make test-see   those in a browser and with Prometheus; installs both"
	@echo "make check      format, warnings, clang-tidy, cppcheck, manual pages"
	@echo "make bench      measurements beside other servers, minutes; BENCH=long ONLY=regex"
	@echo "make soak       power cuts, faults, fuzzing, random sequences: hours; PARTS=\"powercut model\""
	@echo "make fuzz       libFuzzer on every reader of foreign bytes; FUZZ_SECONDS=60 each"
	@echo "make afl        AFL++ on all of mqd; AFL_SECONDS=600"
	@echo "make memcheck   the tests under valgrind: hours"
	@echo "make install    to PREFIX (/usr/local) below DESTDIR; make uninstall removes it"
	@echo "make deb        a Debian package, build/mqd_*.deb; make tarball: build/mqd-*.tar.gz"
	@echo "make clean      remove what was built"
	@echo "SAN=1           with sanitizers      PORTABLE=1   without Linux-only calls"

.DEFAULT_GOAL := all
.PHONY: all run test test-see check lint-build bench soak fuzz corpus afl coverage memcheck install uninstall deb tarball clean help
