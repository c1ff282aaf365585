// Node's own clients: COUNT requests of /chunk, one stream of events, one
// WebSocket with COUNT messages. PORT, COUNT.
const [port, count] = process.argv.slice(2).map(Number);
const base = `127.0.0.1:${port}`;
for (let i = 1; i <= count; i++) {
  const body = await (await fetch(`http://${base}/chunk/${i}`)).text();
  if (body.length !== 1000) throw new Error(`${body.length} bytes`);
}
const events = await (await fetch(`http://${base}/events`)).text();
const socket = new WebSocket(`ws://${base}/socket`);
await new Promise((resolve, reject) => {
  let echoed = 0;
  socket.onerror = reject;
  socket.onopen = () => socket.send("message 1");
  socket.onmessage = () => (++echoed < count ? socket.send(`message ${echoed + 1}`) : socket.close());
  socket.onclose = resolve;
});
console.log(events.split("data:").length - 1);
