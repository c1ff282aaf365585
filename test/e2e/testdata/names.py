"""Asks the resolver for each name, COUNT times: COUNT, NAME..."""
import socket
import sys

for _ in range(int(sys.argv[1])):
    for name in sys.argv[2:]:
        try:
            socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)
        except socket.gaierror:
            pass
