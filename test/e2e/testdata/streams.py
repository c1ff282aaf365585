"""HTTP/1.1 over asyncio's streams, one thread for all connections: PORT, LOG."""
import asyncio
import sys

served = open(sys.argv[2], "a", buffering=1)


async def serve(reader, writer):
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        method, path, _ = head.decode().split(" ", 2)
        for line in head.decode().split("\r\n"):
            if line.lower().startswith("content-length:"):
                await reader.readexactly(int(line.split(":")[1]))
        await asyncio.sleep(0.001)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        writer.write(b"x" * 1000)
        await writer.drain()
        served.write("%s %s\n" % (method, path))
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
