<?php
// What the PHP clients share: checks that are counted and, once one fails, told apart.

// A warning is a failure: the extensions report what confuses them that way. (Not the deprecations:
// php-memcache itself does what PHP 8.2 deprecates.)
set_error_handler(function (int $level, string $text, string $file, int $line) {
    throw new ErrorException($text, 0, $level, $file, $line);
}, E_ALL & ~E_DEPRECATED);
error_reporting(E_ALL & ~E_DEPRECATED);

$passed = $failed = 0;

// $got must be $wanted in value and type, all the way down (=== would compare objects by identity).
function check(string $what, mixed $got, mixed $wanted): void
{
    global $passed, $failed;
    if (serialize($got) === serialize($wanted)) {
        $passed++;
        return;
    }
    $failed++;
    printf("%s: wanted %s, got %s\n", $what,
        substr(var_export($wanted, true), 0, 200), substr(var_export($got, true), 0, 200));
}

// The files of the messages that wait, as the spool shows them; see mqspool(5).
function messages(string $queue): array
{
    return glob(getenv('SPOOL') . "/$queue/[0-9]*");
}

// What waits in a queue with one message: the file without its first line.
function body(string $queue): string
{
    $file = file_get_contents(messages($queue)[0]);
    return substr($file, strpos($file, "\n") + 1);
}

function done(): never
{
    global $passed, $failed;
    echo "$passed checks passed, $failed failed\n";
    exit($passed > 0 && $failed === 0 ? 0 : 1);
}
