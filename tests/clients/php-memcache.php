<?php
// php-memcache (PECL, its own protocol code) as a queue client: php php-memcache.php HOST PORT SCENARIO
require __DIR__ . '/check.php';

[, $host, $port, $scenario] = $argv;

function client(): Memcache
{
    global $host, $port;
    $client = new Memcache();
    check('connect', $client->connect($host, (int)$port), true);
    return $client;
}

$scenarios = [
    'everyday' => function () {
        $client = client();
        $object = new stdClass();
        $object->name = 'größe';
        $object->list = [1, 2.5, null, true];
        // Random bytes do not shrink, so that all of them travel: CR LF and NUL are among them.
        $values = ['hello', '', 42, -1.5, true, ['a' => 1, 'b' => [2, 3]], $object,
            random_bytes(102400), "END\r\nVALUE jobs 0 5\r\n"];

        foreach ($values as $i => $value) {
            check("set of value $i", $client->set('jobs', $value), true);
        }
        foreach ($values as $i => $value) {
            check("get of value $i", $client->get('jobs'), $value);
        }
        check('get of an empty queue', $client->get('jobs'), false);
        check('get of a missing queue', $client->get('nothing'), false);

        check('a last set', $client->set('jobs', 'dropped'), true);
        check('delete', $client->delete('jobs'), true);
        check('get after delete', $client->get('jobs'), false);
        check('delete of a missing queue', $client->delete('jobs'), false);
    },

    'cas' => function () {
        $client = client();
        $client->set('jobs', 'one');
        $number = (int)basename(messages('jobs')[0]);
        check('get with cas', $client->get('jobs', $flags, $cas), 'one');
        check('the message number as cas', $cas, $number);
        $client->set('jobs', 'two');
        check('cas', $client->cas('jobs', 'three', 0, 0, $number), false);
        check('the queue after cas', $client->get('jobs'), 'two');
        check('the queue after that', $client->get('jobs'), false);
    },

    // The flags say that a value is compressed; bits of the user's own travel with them.
    'flags' => function () {
        $client = client();
        $text = str_repeat('all work and no play makes jack a dull boy. ', 2500);
        check('set', $client->set('jobs', $text, MEMCACHE_COMPRESSED), true);
        check('less than a tenth is stored', strlen(body('jobs')) * 10 < strlen($text), true);
        check('get', $client->get('jobs'), $text);
        check('set with flags', $client->set('jobs', 'own', 0x7fff0000), true);
        check('get with flags', $client->get('jobs', $flags), 'own');
        check('the flags', $flags & 0x7fff0000, 0x7fff0000);
    },

    'multi' => function () {
        $client = client();
        foreach (['a' => 1, 'b' => ['x'], 'c' => 'three'] as $queue => $value) {
            $client->set($queue, $value);
        }
        $client->set('b', 'second');
        check('get of several', $client->get(['a', 'b', 'none', 'c']),
            ['a' => 1, 'b' => ['x'], 'c' => 'three']);
        check('get of several again', $client->get(['a', 'b', 'none', 'c']), ['b' => 'second']);
        check('get of nothing', $client->get(['a', 'none']), []);
    },

    'stats' => function () {
        $client = client();
        $client->set('jobs', 'one');
        $client->set('jobs', 'two');
        $client->get('jobs');
        $version = $client->getVersion();
        check("version $version", preg_match('/^[1-9]\d*\.\d+\.\d+$/', $version), 1);
        $stats = $client->getStats();
        $wanted = ['version' => $version, 'cmd_set' => '2', 'cmd_get' => '1', 'get_hits' => '1',
            'get_misses' => '0', 'curr_items' => '1', 'total_items' => '2'];
        foreach ($wanted as $name => $value) {
            check($name, $stats[$name] ?? 'missing', $value);
        }
        foreach (['items', 'slabs', 'sizes', 'malloc', 'cachedump', 'reset'] as $type) {
            $client->getStats($type);
            check("in step after stats $type", $client->getVersion(), $version);
        }
    },

    'refused' => function () {
        $client = client();
        check('set', $client->set('jobs', 'one'), true);
        $refused = ['add' => ['jobs', 'x'], 'replace' => ['jobs', 'x'], 'append' => ['jobs', 'x'],
            'prepend' => ['jobs', 'x'], 'increment' => ['jobs'], 'decrement' => ['jobs']];
        foreach ($refused as $method => $arguments) {
            check($method, $client->$method(...$arguments), false);
        }
        check('get', $client->get('jobs'), 'one');
        check('get again', $client->get('jobs'), false);
    },
];

$scenarios[$scenario]();
done();
