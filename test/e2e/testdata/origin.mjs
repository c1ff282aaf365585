// Node's http: chunked answers, server-sent events, WebSocket echo. PORT, LOG.
import { appendFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { createServer } from "node:http";

const [port, log] = process.argv.slice(2);
const events = 10;

const server = createServer((request, response) => {
  appendFileSync(log, `${request.method} ${request.url}\n`);
  if (request.url !== "/events") {
    response.write("x".repeat(500)); // no length was told: chunked
    setImmediate(() => response.end("y".repeat(500)));
    return;
  }
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  let sent = 0;
  const timer = setInterval(() => {
    response.write(`data: ${++sent}\n\n`);
    if (sent === events) {
      clearInterval(timer);
      response.end();
    }
  }, 5);
});

// Frames of fewer than 126 bytes are echoed.
server.on("upgrade", (request, socket) => {
  appendFileSync(log, `${request.method} ${request.url}\n`);
  const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  const accept = createHash("sha1").update(key).digest("base64");
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  let unread = Buffer.alloc(0);
  socket.on("error", () => {});
  socket.on("data", (data) => {
    unread = Buffer.concat([unread, data]);
    while (unread.length >= 6 && unread.length >= 6 + (unread[1] & 127)) {
      const length = unread[1] & 127;
      const body = Buffer.from(unread.subarray(6, 6 + length)).map((b, i) => b ^ unread[2 + (i % 4)]);
      const closing = (unread[0] & 15) === 8;
      socket.write(Buffer.concat([Buffer.from([unread[0], length]), body]));
      unread = unread.subarray(6 + length);
      if (closing) return socket.end();
      appendFileSync(log, `message ${request.url}\n`);
    }
  });
});
server.listen(Number(port), "127.0.0.1");
