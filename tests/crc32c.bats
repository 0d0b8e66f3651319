#!/usr/bin/env bats
# The checksum: published vectors, and both implementations against one bit at a time.

load helper

# build_test [variable=value...]: sets TEST to the test program of that variant.
build_test() {
	local variant=default
	[[ $* != *PORTABLE=1* ]] || variant=portable
	TEST=$TOP/build/$variant/test-crc32c
	make -s -C "$TOP" "$@" "build/$variant/test-crc32c"
}

@test "CRC-32C: the instruction is used where the CPU has it, and is right" {
	build_test
	run "$TEST"
	echo "$output"
	[ "$status" -eq 0 ]
	if grep -Eqw 'sse4_2|crc32' /proc/cpuinfo; then
		[[ $output == *"instruction: good"*"chosen: instruction" ]]
	else
		[[ $output == *"chosen: portable" ]]
	fi
}

@test "CRC-32C: the portable way is right, and the only one in a portable build" {
	build_test PORTABLE=1
	run "$TEST"
	echo "$output"
	[ "$status" -eq 0 ]
	[[ $output == *"portable: good"* && $output != *instruction* ]]
}
