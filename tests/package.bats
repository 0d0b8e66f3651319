#!/usr/bin/env bats
# What is shipped: the Debian package, from building to purging it; what `make install` puts where;
# the tarball; completion in the shells. (The units are tried in tests/systemd.bats.)

load helper

# made TARGET [VARIABLE=VALUE...]: of this tree, in a make of its own.
made() {
	make -s -C "$TOP" "$@" >"$BATS_FILE_TMPDIR/make.log" 2>&1 || {
		tail -n 20 "$BATS_FILE_TMPDIR/make.log"
		return 1
	}
}

# The files and links below a directory, with their modes.
listed() {
	(cd "$1" && find . ! -type d -printf '%m %P\n' | LC_ALL=C sort -k 2)
}

setup_file() {
	made deb
}

@test "the Debian package: lintian has neither an error nor a warning to tell; from install to purge" {
	local deb version
	version=$("$MQD" -V | cut -d ' ' -f 2)
	deb=$(echo "$TOP/build/mqd_${version}_"*.deb)
	# What only some want is no condition: there is a unit for stunnel, and a stanza for xinetd.
	diff /dev/null <(dpkg-deb -f "$deb" Pre-Depends Depends Recommends | grep -e stunnel -e xinetd)
	diff /dev/null <(lintian --allow-root --fail-on error,warning "$deb" 2>&1 || echo "status $?")

	[[ $EUID -eq 0 ]] || skip "installing it needs root"
	mkdir "$BATS_TEST_TMPDIR/can"
	local why
	why=$("$BATS_TEST_DIRNAME/systemd-root" can "$BATS_TEST_TMPDIR/can" 2>&1) || skip "no private systemd here: $why"
	why=$("$BATS_TEST_DIRNAME/package-root" base 2>&1) || skip "no Debian to install it in: $why"
	"$BATS_TEST_DIRNAME/package-root" try "$deb" 2>"$BATS_TEST_TMPDIR/errors" >"$BATS_TEST_TMPDIR/steps" || {
		cat "$BATS_TEST_TMPDIR/steps" "$BATS_TEST_TMPDIR/errors"
		return 1
	}
	grep '^#' "$BATS_TEST_TMPDIR/steps" | sed 's/env .*apt-get.*Pty=0 /apt-get /' >&3
}

@test "make install puts the files of the package, and make uninstall takes all of them" {
	local at=$BATS_TEST_TMPDIR/at
	made install DESTDIR="$at" PREFIX=/usr UNITDIR=/lib/systemd/system ZSHDIR=/usr/share/zsh/vendor-completions
	dpkg-deb -x "$TOP"/build/mqd_*.deb "$BATS_TEST_TMPDIR/package"
	# What Debian adds, and how it keeps what is long.
	diff <(listed "$at") <(listed "$BATS_TEST_TMPDIR/package" | sed 's/\.gz$//' |
		grep -v -e 'doc/mqd/\(changelog\|copyright\)$' -e 'lintian/overrides/mqd$')
	[[ -z $(grep -rIl /usr/local "$at/lib" "$at/usr/lib" "$at/usr/share/doc/mqd/examples") ]]

	made uninstall DESTDIR="$at" PREFIX=/usr UNITDIR=/lib/systemd/system ZSHDIR=/usr/share/zsh/vendor-completions
	diff /dev/null <(listed "$at")
}

@test "make tarball: the same bytes from another clone, at another time, by another user's habits" {
	git -C "$TOP" rev-parse --quiet --verify HEAD >/dev/null || skip "no repository here"
	local clone
	for clone in 1 2; do
		git clone --quiet "$TOP" "$BATS_TEST_TMPDIR/$clone"
	done
	(cd "$BATS_TEST_TMPDIR/1" && umask 022 && make -s tarball)
	find "$BATS_TEST_TMPDIR/2" -exec touch -h -d 2001-01-01 {} +
	git -C "$BATS_TEST_TMPDIR/2" config tar.umask 0077
	(cd "$BATS_TEST_TMPDIR/2" && umask 077 && TZ=Asia/Tokyo GZIP=-1 make -s tarball)
	sha256sum "$BATS_TEST_TMPDIR"/[12]/build/mqd-*.tar.gz
	cmp "$BATS_TEST_TMPDIR"/[12]/build/mqd-*.tar.gz
	[[ $(stat -c %Y "$BATS_TEST_TMPDIR/2/Makefile") -lt $(stat -c %Y "$BATS_TEST_TMPDIR/1/Makefile") ]]

	# It is whole: it builds.
	tar -xzf "$BATS_TEST_TMPDIR"/1/build/mqd-*.tar.gz -C "$BATS_TEST_TMPDIR"
	make -s -C "$BATS_TEST_TMPDIR"/mqd-* -n all >/dev/null
	diff <(cd "$BATS_TEST_TMPDIR"/mqd-* && find . -type f | LC_ALL=C sort) \
		<(cd "$BATS_TEST_TMPDIR/1" && git ls-files | sed 's,^,./,' | LC_ALL=C sort)
}

# completions SHELL: commands, queues, messages, words that a command knows, options.
completions() {
	export FUNCTIONS=$BATS_TEST_TMPDIR/functions
	mkdir "$FUNCTIONS" "$BATS_TEST_TMPDIR/bin"
	cp "$TOP/etc/completion/mqctl.zsh" "$FUNCTIONS/_mqctl"
	cp "$TOP/etc/completion/mqd.zsh" "$FUNCTIONS/_mqd"
	ln -s "$MQD" "$BATS_TEST_TMPDIR/bin/mqd"
	ln -s "$MQCTL" "$BATS_TEST_TMPDIR/bin/mqctl"
	PATH=$BATS_TEST_TMPDIR/bin:$PATH
	mkdir "$SPOOL"
	echo a | ctl put jobs
	echo b | ctl put mail:in=box
	echo c | ctl put 'with space'

	"$BATS_TEST_DIRNAME/complete" "$1" <<END
mqctl sta
mqctl status
mqctl -H $SPOOL ls jo
mqctl -H $SPOOL ls jobs
mqctl -H $SPOOL ls jobs mail:i
mqctl -H $SPOOL ls jobs mail:in=box
mqctl -H $SPOOL ls mail:in=
mqctl -H $SPOOL ls mail:in=box
mqctl -H $SPOOL peek wit
mqctl -H $SPOOL peek with%20space
mqctl -H $SPOOL cat jobs 0
mqctl -H $SPOOL cat jobs 0000000000000001
mqctl -H $SPOOL mv jobs a
mqctl -H $SPOOL mv jobs all
mqctl -H $SPOOL mv jobs all wi
mqctl -H $SPOOL mv jobs all with%20space
mqctl -H $SPOOL status rea
mqctl -H $SPOOL status readonly
mqctl check --
mqctl check --repair
mqctl -H $SPOOL/../spo
mqctl -H $SPOOL/../spool/
mqctl -H /nowhere ls jo
mqctl -H /nowhere ls jo
mqd -o sync=f
mqd -o sync=full
mqd -o pool
mqd -o pool_idle=
mqd -u ro
mqd -u root
mqctl "//;etouch $SPOOL/executed;#" x
mqctl //;etouch $SPOOL/executed;# x
END
	[ ! -e "$SPOOL/executed" ]
}

@test "bash completes commands, queues, messages and options" {
	completions bash
}

@test "zsh completes commands, queues, messages and options" {
	completions zsh
}
