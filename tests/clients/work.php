<?php
// work() of the examples: note that it has begun, then hang if there is a file that says so.
function work(string $job): void
{
    file_put_contents('worked', "$job\n", FILE_APPEND);
    if (file_exists('hang')) {
        fgets(STDIN);
    }
}
