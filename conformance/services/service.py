import hashlib, hmac, os, sys, time
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET, replies = os.environ["SECRET"].encode(), {}  # in production: a table with a unique key

class Service(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        sent = dict(part.partition("=")[::2] for part in self.headers.get("X-Wxproxy-Signature", "").split(","))
        made = hmac.new(SECRET, sent.get("t", "").encode() + b"." + body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(made, sent.get("v1", "")) or abs(time.time() - int(sent["t"])) > 300:
            return self.send_error(403)
        event = self.headers["X-Wxproxy-Event"]
        if event not in replies:
            replies[event] = self.handle_event(ET.fromstring(body))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(replies[event])

    def handle_event(self, push):
        print("handled", push.findtext("MsgId"), flush=True)
        if push.findtext("MsgType") != "text":
            return b"success"
        reply = ET.Element("xml")
        for name, value in (("ToUserName", push.findtext("FromUserName")), ("FromUserName", push.findtext("ToUserName")),
                            ("CreateTime", str(int(time.time()))), ("MsgType", "text"), ("Content", push.findtext("Content"))):
            ET.SubElement(reply, name).text = value
        return ET.tostring(reply, "utf-8")

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
