<?php
$body = file_get_contents('php://input');
$secret = getenv('SECRET');
if (!preg_match('/^t=(\d+),v1=(\w+)$/', $_SERVER['HTTP_X_WXPROXY_SIGNATURE'] ?? '', $sent)
    || !hash_equals(hash_hmac('sha256', "$sent[1].$body", $secret), $sent[2])
    || abs(time() - $sent[1]) > 300) {
    http_response_code(403);
    exit;
}
// A file for each event; in production: a table with a unique key.
$file = getenv('DATA') . '/' . hash('sha256', $_SERVER['HTTP_X_WXPROXY_EVENT']);
$lock = fopen($file, 'c+');
flock($lock, LOCK_EX);
$reply = stream_get_contents($lock);
if ($reply === '') {
    $push = simplexml_load_string($body, options: LIBXML_NOCDATA);
    error_log("handled $push->MsgId");
    $reply = 'success';
    if ($push->MsgType == 'text') {
        $xml = new SimpleXMLElement('<xml/>');
        $values = ['ToUserName' => $push->FromUserName, 'FromUserName' => $push->ToUserName,
                   'CreateTime' => time(), 'MsgType' => 'text', 'Content' => $push->Content];
        foreach ($values as $name => $value) {
            $xml->$name = (string) $value;
        }
        $reply = $xml->asXML();
    }
    fwrite($lock, $reply);
}
header('Content-Type: text/xml');
echo $reply;
