"""Servers in Python. Usage: servers.py sync|thread|fork|unix|asyncio|udp|file ADDRESS [FILE]"""
import asyncio
import socketserver
import sys

MODEL, ADDRESS = sys.argv[1], sys.argv[2]


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while message := self.request.recv(65536):
            self.request.sendall(message)
            if message[:1] == b"Q":
                return


class EchoDatagram(socketserver.BaseRequestHandler):
    def handle(self):
        packet, socket = self.request
        socket.sendto(packet, self.client_address)


class SendFile(socketserver.BaseRequestHandler):
    def handle(self):
        with open(sys.argv[3], "rb") as file:
            self.request.sendfile(file)


def serve(server_class, address, handler):
    server_class.allow_reuse_address = True
    server_class.request_queue_size = 4096
    with server_class(address, handler) as server:
        server.serve_forever()


async def serve_asyncio():
    class EchoProtocol(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)
            if data[:1] == b"Q":
                self.transport.close()

    loop = asyncio.get_running_loop()
    server = await loop.create_server(EchoProtocol, "127.0.0.1", int(ADDRESS), backlog=4096)
    await server.serve_forever()


if MODEL == "asyncio":
    asyncio.run(serve_asyncio())
elif MODEL == "unix":
    serve(socketserver.ThreadingUnixStreamServer, ADDRESS, Echo)
else:
    server_class, handler = {
        "sync": (socketserver.TCPServer, Echo),
        "thread": (socketserver.ThreadingTCPServer, Echo),
        "fork": (socketserver.ForkingTCPServer, Echo),
        "udp": (socketserver.UDPServer, EchoDatagram),
        "file": (socketserver.ThreadingTCPServer, SendFile),
    }[MODEL]
    serve(server_class, ("127.0.0.1", int(ADDRESS)), handler)
