"use strict";
// The explanations: what states, packets, timers and changes of state mean.

const STATES = ["CLOSED", "LISTEN", "SYN-SENT", "SYN-RECV", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2",
  "CLOSING", "TIME-WAIT", "CLOSE-WAIT", "LAST-ACK"];

const STATE_WORDS = {
  "CLOSED": "no connection",
  "LISTEN": "accepts connections",
  "SYN-SENT": "asked for a connection, no answer yet",
  "SYN-RECV": "was asked, and answered; the third packet is missing",
  "ESTABLISHED": "connected, both sides can send",
  "FIN-WAIT-1": "has sent its end, which is not acknowledged yet",
  "FIN-WAIT-2": "its end is acknowledged; the peer can still send",
  "CLOSING": "both ended at once; the own end is not acknowledged yet",
  "TIME-WAIT": "both ends are done; it waits for late packets, for 60 seconds",
  "CLOSE-WAIT": "the peer has ended; this program has not closed yet",
  "LAST-ACK": "has sent its end as the second one; the last acknowledgement is missing",
  "CONNECTED": "has a peer",
  "UNCONNECTED": "no fixed peer",
  "GONE": "the kernel has no such socket any more",
};

// Why a state changes. The key is "from>to".
const CHANGES = {
  "CLOSED>LISTEN": "listen() makes the socket accept connections.",
  "CLOSED>SYN-SENT": "connect() sends a SYN.",
  "LISTEN>SYN-RECV": "A SYN has arrived. The kernel answers with SYN+ACK; the program does not notice.",
  "CLOSED>SYN-RECV": "A SYN has arrived. The kernel answers with SYN+ACK; the program does not notice.",
  "SYN-SENT>ESTABLISHED": "The SYN+ACK has arrived: connect() returns.",
  "SYN-SENT>SYN-RECV": "Both sides have sent a SYN: a simultaneous open.",
  "SYN-RECV>ESTABLISHED": "The third packet has arrived: the connection waits for accept().",
  "ESTABLISHED>FIN-WAIT-1": "close() or shutdown() sends a FIN: nothing more to send.",
  "ESTABLISHED>CLOSE-WAIT": "The FIN of the peer has arrived: recv() will return b\"\" after the last byte.",
  "SYN-RECV>FIN-WAIT-1": "Closed before the handshake was complete.",
  "SYN-RECV>CLOSE-WAIT": "The FIN of the peer came together with the third packet.",
  "FIN-WAIT-1>FIN-WAIT-2": "The FIN is acknowledged. The other direction is still open.",
  "FIN-WAIT-1>CLOSING": "The peer's FIN has arrived before the acknowledgement of the own one.",
  "FIN-WAIT-1>TIME-WAIT": "The peer's FIN and the acknowledgement of the own one came together.",
  "FIN-WAIT-2>TIME-WAIT": "The peer's FIN has arrived. Late packets are awaited for 60 seconds.",
  "CLOSING>TIME-WAIT": "The own FIN is acknowledged. Late packets are awaited for 60 seconds.",
  "CLOSE-WAIT>LAST-ACK": "close() or shutdown() sends the FIN of the second direction.",
  "LAST-ACK>GONE": "The last acknowledgement has arrived: the kernel forgets the connection.",
  "LAST-ACK>CLOSED": "The last acknowledgement has arrived.",
  "TIME-WAIT>GONE": "The waiting time is over.",
  "ESTABLISHED>GONE": "The connection was reset: the kernel forgets it at once.",
  "ESTABLISHED>CLOSED": "The connection was reset.",
  "SYN-SENT>GONE": "The attempt to connect has failed.",
  "SYN-SENT>CLOSED": "The attempt to connect has failed.",
  "LISTEN>GONE": "The listener was closed.",
};

const TIMERS = {
  "on": "sends again",
  "keepalive": "keep-alive asks",
  "timewait": "ends",
  "persist": "window probe",
};

// What a function does, for readers who see it for the first time.
const CALLS = {
  "socket": "It makes a socket: a descriptor, and nothing on the network yet.",
  "socketpair": "It makes two sockets that are connected to each other.",
  "bind": "It gives the socket its own address and port.",
  "listen": "From now on the kernel accepts connections for it, and keeps them in a queue.",
  "accept": "It takes a connection from the accept queue, or waits for one.",
  "connect": "It asks the other host for a connection, and waits for the answer.",
  "accept4": "It takes a connection from the accept queue, or waits for one.",
  "poll": "It waits until a socket is ready, or the time is over.",
  "ppoll": "It waits until a socket is ready, or the time is over.",
  "select": "It waits until a socket is ready, or the time is over.",
  "pselect6": "It waits until a socket is ready, or the time is over.",
  "epoll_ctl": "It registers the socket, so that epoll_wait() reports what happens to it.",
  "epoll_wait": "It waits until a registered socket is ready, or the time is over.",
  "epoll_pwait": "It waits until a registered socket is ready, or the time is over.",
  "read": "It takes bytes from the receive queue, or waits for some.",
  "write": "It copies bytes into the send queue. The kernel sends them.",
  "getsockname": "It asks for the own address.",
  "getpeername": "It asks for the address of the peer.",
  "getsockopt": "It asks for an option.",
  "fcntl": "It sets flags of the descriptor, such as O_NONBLOCK.",
  "send": "It copies bytes into the send queue. The kernel sends them.",
  "sendall": "It copies bytes into the send queue. The kernel sends them.",
  "sendto": "It sends one datagram.",
  "recv": "It takes bytes from the receive queue, or waits for some.",
  "recvfrom": "It takes one datagram, or waits for one.",
  "shutdown": "It ends one direction of the connection.",
  "close": "It returns the descriptor. With the last one the connection ends.",
  "dup": "It makes a second descriptor of the same socket.",
  "setsockopt": "It sets an option.",
  "settimeout": "It limits how long a call may wait.",
  "setblocking": "It selects whether a call waits.",
  "send_fds": "It sends descriptors to another process.",
  "recv_fds": "It receives descriptors.",
};

const ERRORS = {
  "ECONNRESET": "the peer has broken the connection off",
  "EPIPE": "nothing can be sent on it any more",
  "ECONNREFUSED": "no socket listens there",
  "ETIMEDOUT": "no answer came in time",
  "EADDRINUSE": "the address is in use",
  "EINPROGRESS": "the connection is being made, and the call did not wait for it",
  "EINTR": "a signal has interrupted the call",
  "EAGAIN": "the call would have to wait, and may not",
  "EMFILE": "the process has no descriptor left",
  "ECONNABORTED": "the connection was aborted",
  "EMSGSIZE": "the datagram is too large",
  "ENOTCONN": "the socket is not connected",
  "timeout": "the timeout of the socket has expired",
};

function packetWords(packet, peer) {
  const flags = packet.flags || "";
  if (packet.probe) return `asks whether ${peer} is still there: a probe`;
  if (packet.win === 0 && !packet.len && !/RST/.test(flags)) return "has no more room: its window is 0";
  if (packet.opens) return "has room again: it opens its window";
  const has = flag => flags.split("+").includes(flag);
  const bytes = packet.len ? plural(packet.len, "byte") : "";
  if (has("SYN") && has("ACK")) return `agrees, and opens its own direction`;
  if (has("SYN")) return `asks ${peer} for a connection`;
  if (has("RST")) return "breaks the connection off";
  if (has("FIN") && bytes) return `sends ${bytes} and its end`;
  if (has("FIN")) return "has nothing more to send";
  if (flags === "UDP") return `sends a datagram of ${bytes || "0 bytes"}`;
  if (bytes) return `sends ${bytes}`;
  if (flags.startsWith("ICMP")) return "reports an error";
  if (has("ACK")) return `confirms: everything before number ${packet.ack} has arrived`;
  return "sends a packet";
}

const FATES = {
  "passed": "passes", "held": "is held by the wire", "delivered": "is delivered", "dropped": "is dropped",
  "duplicated": "is delivered twice", "delayed": "is delayed", "lost, the wire is cut": "is lost: the wire is cut",
};

// The values of TCP_INFO: the name in C without tcpi_, words, and a unit.
const COUNTERS = [
  ["bytes_sent", "Bytes sent", "B"], ["bytes_retrans", "Bytes sent again", "B"], ["bytes_acked", "Bytes acknowledged", "B"],
  ["bytes_received", "Bytes received", "B"], ["notsent_bytes", "Bytes not sent yet", "B"],
  ["segs_out", "Segments sent", ""], ["segs_in", "Segments received", ""], ["unacked", "Segments under way", ""],
  ["sacked", "Segments acknowledged out of order", ""], ["lost", "Segments lost", ""], ["retrans", "Segments sent again, under way", ""],
  ["total_retrans", "Segments sent again, in all", ""], ["retransmits", "Timer expired in a row", ""],
  ["rtt", "Round-trip time", "us"], ["rttvar", "Its deviation", "us"], ["min_rtt", "Smallest round-trip time", "us"],
  ["rto", "Retransmission timeout", "us"], ["snd_cwnd", "Congestion window, segments", ""],
  ["snd_ssthresh", "Slow start threshold, segments", ""], ["snd_wnd", "Window of the peer", "B"], ["rcv_space", "Space to receive", "B"],
  ["snd_mss", "Largest segment to send", "B"], ["rcv_mss", "Largest segment received", "B"], ["advmss", "Largest segment announced", "B"],
  ["pmtu", "Largest packet of the path", "B"], ["delivery_rate", "Delivery rate", "B/s"], ["pacing_rate", "Pacing rate", "B/s"],
];

function counterText(value, unit) {
  if (value === undefined) return "\u2013";
  if (unit === "us") return `${(value / 1000).toLocaleString("en", { maximumFractionDigits: value < 1000 ? 2 : 0 })} ms`;
  // The kernel says "no limit" with all bits.
  if (value > 2 ** 53) return "no limit";
  // Never so long that it would take a second line.
  if (unit === "B/s" && value >= 1000 || value >= 1e6) {
    const power = Math.min(4, Math.floor(Math.log10(value) / 3));
    return `${(value / 1000 ** power).toPrecision(3)} ${" kMGT"[power]}${unit}`;
  }
  return `${value.toLocaleString("en")}${unit ? ` ${unit}` : ""}`;
}

function plural(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}

function seconds(ms) {
  if (ms >= 9950) return `${Math.round(ms / 1000)} s`;
  if (ms >= 95) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.max(0, Math.round(ms))} ms`;
}
