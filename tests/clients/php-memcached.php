<?php
// php-memcached (libmemcached) as a queue client: php php-memcached.php HOST PORT SCENARIO
require __DIR__ . '/check.php';

[, $host, $port, $scenario] = $argv;

function client(array $options = []): Memcached
{
    global $host, $port;
    $client = new Memcached();
    check('addServer', $client->addServer($host, (int)$port), true);
    foreach ($options as $name => $value) {
        check("option $name", $client->setOption($name, $value), true);
    }
    return $client;
}

function code(Memcached $client): string
{
    return $client->getResultCode() . ' ' . $client->getResultMessage();
}

$scenarios = [
    'everyday' => function () {
        $client = client();
        $object = new stdClass();
        $object->name = 'größe';
        $object->list = [1, 2.5, null, true];
        // Random bytes do not shrink, so that all of them travel: CR LF and NUL are among them.
        $values = ['hello', '', 42, -1.5, true, false, ['a' => 1, 'b' => [2, 3]], $object,
            random_bytes(102400), "END\r\nVALUE jobs 0 5\r\n"];

        foreach ($values as $i => $value) {
            check("set of value $i", $client->set('jobs', $value), true);
        }
        foreach ($values as $i => $value) {
            check("get of value $i", $client->get('jobs'), $value);
            check("its result code", $client->getResultCode(), Memcached::RES_SUCCESS);
        }
        check('get of an empty queue', $client->get('jobs'), false);
        check('its result code', $client->getResultCode(), Memcached::RES_NOTFOUND);
        check('get of a missing queue', $client->get('nothing'), false);
        check('its result code', $client->getResultCode(), Memcached::RES_NOTFOUND);

        check('a last set', $client->set('jobs', 'dropped'), true);
        check('delete', $client->delete('jobs'), true);
        check('get after delete', $client->get('jobs'), false);
        check('delete of a missing queue', $client->delete('jobs'), false);
        check('its result code', $client->getResultCode(), Memcached::RES_NOTFOUND);
    },

    // An expected number in the reply makes libmemcached send gets.
    'cas' => function () {
        $client = client();
        $client->set('jobs', 'one');
        $client->set('jobs', ['two']);
        foreach (['one', ['two']] as $value) {
            $number = (int)basename(messages('jobs')[0]);
            $got = $client->get('jobs', null, Memcached::GET_EXTENDED);
            check('the value', $got['value'], $value);
            check('the message number as cas', $got['cas'], $number);
        }
        $client->set('jobs', 'three');
        check('cas', $client->cas($number + 1, 'jobs', 'four'), false);
        check('its result code', $client->getResultCode(), Memcached::RES_DATA_EXISTS);
        check('the queue after cas', $client->get('jobs'), 'three');
        check('the queue after that', $client->get('jobs'), false);
    },

    // The flags say whether and how a value is compressed.
    'compression' => function () {
        $text = str_repeat('all work and no play makes jack a dull boy. ', 2500);
        foreach ([Memcached::COMPRESSION_ZLIB, Memcached::COMPRESSION_FASTLZ] as $type) {
            $client = client([Memcached::OPT_COMPRESSION => true,
                Memcached::OPT_COMPRESSION_TYPE => $type]);
            check('set', $client->set('jobs', $text), true);
            check('less than a tenth is stored', strlen(body('jobs')) * 10 < strlen($text), true);
            check('get', $client->get('jobs'), $text);
            check('set of an array', $client->set('jobs', [$text, $text]), true);
            check('get of it', $client->get('jobs'), [$text, $text]);
        }
        $client = client([Memcached::OPT_COMPRESSION => false]);
        check('set as it is', $client->set('jobs', $text), true);
        check('all of it is stored', body('jobs'), $text);
        check('get as it is', $client->get('jobs'), $text);
    },

    'buffered-quit' => function () {
        $client = client([Memcached::OPT_BUFFER_WRITES => true]);
        for ($i = 1; $i <= 2000; $i++) {
            $client->set('jobs', "$i\n");
        }
        check('quit', $client->quit(), true);
    },

    'noreply' => function () {
        $client = client([Memcached::OPT_NOREPLY => true]);
        for ($i = 1; $i <= 100; $i++) {
            check("set $i", $client->set('jobs', $i), true);
            check("get $i", $client->get('jobs'), $i);
        }
        check('delete', $client->delete('nothing'), true);
        check('get after delete', $client->get('nothing'), false);
    },

    'multi' => function () {
        $client = client();
        check('setMulti', $client->setMulti(['a' => 1, 'b' => ['x'], 'c' => 'three']), true);
        $client->set('b', 'second');
        check('getMulti', $client->getMulti(['a', 'b', 'none', 'c']),
            ['a' => 1, 'b' => ['x'], 'c' => 'three']);
        check('getMulti again', $client->getMulti(['a', 'b', 'none', 'c']), ['b' => 'second']);
        check('getMulti of nothing', $client->getMulti(['a', 'none']), []);
        check('getDelayed', $client->setMulti(['a' => 1, 'b' => 2])
            && $client->getDelayed(['a', 'b']), true);
        check('fetchAll', $client->fetchAll(),
            [['key' => 'a', 'value' => 1], ['key' => 'b', 'value' => 2]]);
        check('deleteMulti', $client->deleteMulti(['a', 'b', 'none']),
            ['a' => true, 'b' => true, 'none' => Memcached::RES_NOTFOUND]);
    },

    'stats' => function () {
        global $host, $port;
        $client = client();
        $client->set('jobs', 'one');
        $client->set('jobs', 'two');
        $client->get('jobs');
        $client->get('none');
        $server = "$host:$port";
        $version = $client->getVersion()[$server];
        check("version $version", preg_match('/^[1-9]\d*\.\d+\.\d+$/', $version), 1);
        $stats = $client->getStats()[$server];
        $wanted = ['version' => $version, 'cmd_set' => 2, 'cmd_get' => 2, 'get_hits' => 1,
            'get_misses' => 1, 'curr_items' => 1, 'total_items' => 2, 'threads' => 1];
        foreach ($wanted as $name => $value) {
            check($name, $stats[$name] ?? 'missing', $value);
        }
        check('stats queue', $client->getStats('queue'), [$server => ['jobs' => '2/1']]);
        foreach (['items', 'slabs', 'settings', 'sizes', 'conns'] as $type) {
            check("stats $type", is_array($client->getStats($type)), true);
            check("in step after stats $type", $client->getVersion(), [$server => $version]);
        }
    },

    // A job that is done, one that is given up, and one whose worker loses its connection.
    'reliable' => function () {
        $client = client();
        check('set', $client->set('jobs', 'one'), true);
        check('set', $client->set('jobs', 'two'), true);
        check('get with open', $client->get('jobs/open'), 'one');
        check('abort', $client->get('jobs/abort'), false);
        check('get with t and open', $client->get('jobs/t=500/open'), 'one');
        check('close/open', $client->get('jobs/t=500/close/open'), 'two');
        $client->quit();
        check('peek', $client->get('jobs/t=5000/peek'), 'two');
        check('get with open', $client->get('jobs/t=500/open'), 'two');
        check('close', $client->get('jobs/close'), false);
        check('t', $client->get('jobs/t=50'), false);
        check('that is a miss', $client->getResultCode(), Memcached::RES_NOTFOUND);
    },

    // What a queue has no use for is answered all the same, and the connection stays in step.
    'refused' => function () {
        $client = client();
        check('set', $client->set('jobs', 'one'), true);
        $refused = ['add' => ['jobs', 'x'], 'replace' => ['jobs', 'x'], 'touch' => ['jobs', 10],
            'increment' => ['jobs'], 'decrement' => ['jobs']];
        foreach ($refused as $method => $arguments) {
            check($method, $client->$method(...$arguments), false);
        }
        check('append', client([Memcached::OPT_COMPRESSION => false])->append('jobs', 'x'), false);
        check('get', $client->get('jobs'), 'one');
        check('get again', $client->get('jobs'), false);
        check('a slash in the key', $client->set('a/b', "delete jobs\r\n"), false);
        check('set after it', $client->set('jobs', 'two'), true);
        check('get after it', $client->get('jobs'), 'two');
        $body = str_repeat('x', (1 << 20) + 1);
        $plain = client([Memcached::OPT_COMPRESSION => false]);
        check('a body over the limit', $plain->set('jobs', $body), false);
        check('set after it', $plain->set('jobs', 'three'), true);
        check('get after it', $plain->get('jobs'), 'three');
    },
];

$scenarios[$scenario]();
done();
