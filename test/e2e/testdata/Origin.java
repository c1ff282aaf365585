import com.sun.net.httpserver.HttpServer;
import java.io.FileWriter;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

/** The server of the JDK, four threads: PORT, LOG. */
class Origin {
    public static void main(String[] args) throws Exception {
        var served = new FileWriter(args[1], true);
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 0);
        server.createContext("/", exchange -> {
            exchange.getRequestBody().readAllBytes();
            var body = "x".repeat(1000).getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
            synchronized (served) {
                served.write(exchange.getRequestMethod() + " " + exchange.getRequestURI() + "\n");
                served.flush();
            }
        });
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
    }
}
