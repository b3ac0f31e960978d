import com.sun.net.httpserver.*;
import java.io.*;
import java.net.InetSocketAddress;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.xml.parsers.DocumentBuilderFactory;
import org.w3c.dom.Element;

public class Service {
    static final Map<String, String> replies = new ConcurrentHashMap<>(); // in production: a table with a unique key

    static boolean isSigned(String header, byte[] body) throws Exception {
        if (header == null || !header.matches("t=\\d{1,12},v1=[0-9a-f]{64}")) return false;
        String t = header.substring(2, header.indexOf(','));
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(System.getenv("SECRET").getBytes(), "HmacSHA256"));
        mac.update((t + ".").getBytes());
        String made = "t=" + t + ",v1=" + HexFormat.of().formatHex(mac.doFinal(body));
        return MessageDigest.isEqual(made.getBytes(), header.getBytes())
            && Math.abs(System.currentTimeMillis() / 1000 - Long.parseLong(t)) < 300;
    }

    static String handle(byte[] body) {
        try {
            Element push = DocumentBuilderFactory.newInstance().newDocumentBuilder()
                .parse(new ByteArrayInputStream(body)).getDocumentElement();
            System.out.println("handled " + text(push, "MsgId"));
            if (!text(push, "MsgType").equals("text")) return "success";
            return "<xml><ToUserName>" + text(push, "FromUserName") + "</ToUserName><FromUserName>" + text(push, "ToUserName")
                + "</FromUserName><CreateTime>" + System.currentTimeMillis() / 1000 + "</CreateTime><MsgType>text</MsgType><Content>"
                + text(push, "Content").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") + "</Content></xml>";
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    static String text(Element push, String name) {
        var found = push.getElementsByTagName(name);
        return found.getLength() == 0 ? "" : found.item(0).getTextContent();
    }

    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", exchange -> {
            byte[] reply = {};
            int status = 403;
            try {
                byte[] body = exchange.getRequestBody().readAllBytes();
                if (isSigned(exchange.getRequestHeaders().getFirst("X-Wxproxy-Signature"), body)) {
                    String event = exchange.getRequestHeaders().getFirst("X-Wxproxy-Event");
                    reply = replies.computeIfAbsent(event, e -> handle(body)).getBytes("UTF-8");
                    status = 200;
                }
            } catch (Exception e) {
                status = 500;
            }
            exchange.sendResponseHeaders(status, reply.length == 0 ? -1 : reply.length);
            exchange.getResponseBody().write(reply);
            exchange.close();
        });
        server.start();
    }
}
