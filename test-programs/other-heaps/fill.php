<?php
// Keeps about 32 MiB in PHP's heap, says so, and waits for the end of its input.
$kept = [];
for ($at = 0; $at < 512; $at++) {
    $kept[] = str_repeat(chr(65 + $at % 26), 65000);
}
echo "ready\n";
stream_get_contents(STDIN);
echo count($kept), "\n";
