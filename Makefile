# mqd: `make help` lists the targets.
#
# The product needs a C compiler and make, nothing else. It is linked statically where a
# static libc is there, because a super-server starts one process per connection and the
# dynamic linker is half of what that costs: musl-gcc if installed, else static glibc, else
# dynamic. CC, CFLAGS, CPPFLAGS, LDFLAGS, PREFIX and DESTDIR are yours to set.
#
#   make SAN=1 ...       address and undefined behaviour sanitizers, in build/san
#   make PORTABLE=1 ...  every Linux-only path compiled out, in build/portable

PREFIX ?= /usr/local
SBINDIR ?= $(PREFIX)/sbin
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
UNITDIR ?= $(PREFIX)/lib/systemd/system

ifeq ($(origin CC),default)
CC := $(if $(SAN),cc,$(shell command -v musl-gcc || echo cc))
endif
CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes

links = $(shell echo 'int main(void){return 0;}' | $(CC) $(1) -x c - -o /dev/null 2>/dev/null && echo $(1))
ifdef SAN
VARIANT := san
HARDEN := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
LINK := -fsanitize=address,undefined
else
VARIANT := $(if $(PORTABLE),portable,default)
STATIC := $(call links,-static)
HARDEN := -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 $(if $(STATIC),,-fPIE)
LINK := $(if $(STATIC),-static,-pie) -Wl,-z,relro,-z,now
endif

MQ_CPPFLAGS := -D_GNU_SOURCE $(if $(PORTABLE),-DMQ_PORTABLE) $(CPPFLAGS)
MQ_CFLAGS := -std=c11 $(WARN) $(HARDEN) $(CFLAGS)

B := build/$(VARIANT)
COMMON := spool.o admin.o state.o message.o queue_name.o crc32c.o number.o os.o
MQD := mqd.o listen.o serve.o proto.o stats.o log.o $(COMMON)
MQCTL := mqctl.o $(COMMON)

ifeq ($(VARIANT),default)
all: mqd mqctl
mqd mqctl: %: $B/%
	cp $< $@
else
all: $B/mqd $B/mqctl
endif

$B/mqd: $(MQD:%=$B/%)
	$(CC) $(LINK) $(LDFLAGS) -o $@ $^
$B/mqctl: $(MQCTL:%=$B/%)
	$(CC) $(LINK) $(LDFLAGS) -o $@ $^
$B/%.o: %.c Makefile | $B
	$(CC) $(MQ_CPPFLAGS) $(MQ_CFLAGS) -MMD -MP -c -o $@ $<
$B:
	mkdir -p $@
-include $(wildcard $B/*.d)

.DEFAULT_GOAL := all
