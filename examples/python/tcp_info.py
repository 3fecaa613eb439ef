"""An echo server that prints the system's statistics of the connection.

It serves one client and exits. During the connection `ss -ti` shows the same
figures.

Run it (the arguments shown are the defaults):

    python3 examples/python/tcp_info.py 127.0.0.1 9999

Connect with `echo_tcp_client`, in either language, or with `nc 127.0.0.1 9999`.
"""

import fcntl
import socket
import struct
import termios

import common

# linux/tcp.h: the states, starting with 1, and the offsets of the fields.
STATES = (
    "ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 TIME_WAIT"
    " CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING"
).split()
RTT, TOTAL_RETRANS, BYTES_RECEIVED = 68, 100, 128


def tcp_info(sock):
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1024)


def print_info(sock):
    """Prints one line of the current statistics."""
    info = tcp_info(sock)
    # Old systems do not count them.
    received = "?"
    if len(info) >= BYTES_RECEIVED + 8:
        (received,) = struct.unpack_from("=Q", info, BYTES_RECEIVED)
    (retrans,) = struct.unpack_from("=I", info, TOTAL_RETRANS)
    (unread,) = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))
    print(
        f"{STATES[info[0] - 1]}: {received} bytes received, {unread} unread,"
        f" {retrans} segments retransmitted"
    )


def main():
    host, port = common.address("127.0.0.1", 9999)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(1)
        print("listening on %s:%d" % server.getsockname(), flush=True)

        sock, peer = server.accept()
        with sock:
            print("%s:%d connected" % peer)
            while True:
                data = sock.recv(1024)
                # At end of file the state changes too.
                print_info(sock)
                if not data:
                    break
                sock.sendall(data)
            # The round-trip time. For a new connection it is only an estimate.
            (rtt,) = struct.unpack_from("=I", tcp_info(sock), RTT)
            print(f"round trip: {rtt} µs")


if __name__ == "__main__":
    main()
