// The recording, its causes, and the state of everything at a moment of it.

class Recording {
  constructor() {
    this.events = [];
    this.meta = null;
    this.source = { name: "", title: "", lines: [] };
    this.names = new Map();       // cookie -> name, of the whole recording
    this.moves = [];              // packets with what belongs to them
    this.movesOf = new Map();     // index of an event -> moves
    this.callsById = new Map();
    this.packets = new Map();     // id -> move
    this.sent = new Map();        // what a packet is -> the last packet that was the same
    this.flows = new Map();       // direction of a connection -> its last packet
    this.deaths = new Map();      // cookie -> the last counters, and the number of events before them
    this.rows = new Map();        // cookie -> the last kern event
    this.link = { pending: { A: [], B: [] }, out: null, last: { A: null, B: null } };
    this.stopsCache = null;
    this.ended = null;
    this.begun = new Set();       // numbers of lines that have begun
    this.heldCalls = new Set();   // calls that are kept at their entry
  }

  // Whether these are the calls of programs. Then each call is a line.
  get ofPrograms() { return this.source.of === "programs"; }

  add(event) {
    if (event.k === "call" && this.ofPrograms) {
      event.line = event.id;
      this.source.lines.push({ k: "call", n: event.id, text: `${event.sock}.${event.fn}(${event.args})` });
      this.add({ k: "line", t: event.t, line: event.id });
    }
    switch (event.k) {
      case "meta": this.meta = event; return;
      case "source": this.source = event; return;
      case "end": case "notrun": this.ended = event; return;
      // No moment of its own: the change before it is one.
      case "died": this.deaths.set(event.ck, { at: this.events.length, info: event.info || {} }); return;
    }
    if (!HANDLED.has(event.k)) return;
    event.i = this.events.length;
    this.events.push(event);
    this.stopsCache = null;
    this.connect(event);
  }

  join(move, index) {
    const list = this.movesOf.get(index) || [];
    if (!list.includes(move)) list.push(move);
    this.movesOf.set(index, list);
  }

  // What caused what: see the order of events in the library.
  connect(e) {
    const link = this.link;
    switch (e.k) {
      case "name":
        if (!this.names.has(e.ck)) this.names.set(e.ck, e.name);
        break;
      case "line":
        this.begun.add(e.line);
        // Programs do not wait for each other.
        if (this.ofPrograms) break;
        link.pending = { A: [], B: [] };
        link.out = null;
        break;
      case "held": this.heldCalls.add(e.id); break;
      case "released": this.heldCalls.delete(e.id); break;
      case "call":
        this.callsById.set(e.id, { call: e, ret: null, moves: [] });
        link.last[e.actor] = e.id;
        link.pending[e.actor] = [];
        link.out = null;
        break;
      case "hint": {
        const call = this.callsById.get(e.id);
        if (call) call.hint = e;
        break;
      }
      case "ret": {
        const call = this.callsById.get(e.id);
        if (!call) break;
        call.ret = e;
        this.heldCalls.delete(e.id);
        const name = call.call.sock;
        for (let m = this.moves.length - 1; m >= 0; m--) {
          const move = this.moves[m];
          if (move.lastIndex < call.call.i) break;
          const ends = move.to === call.call.actor &&
            move.after.some(i => this.names.get(this.events[i].ck) === name);
          if (ends) { this.attachCall(move, call); break; }
        }
        break;
      }
      case "kern": case "gone":
        e.prev = this.rows.get(e.ck) || null;
        this.rows.set(e.ck, e);
        if (link.out && link.out.to === e.host) {
          link.out.after.push(e.i);
          link.out.lastIndex = e.i;
          this.join(link.out, e.i);
        } else {
          link.pending[e.host].push(e.i);
        }
        break;
      case "pkt": {
        this.flow(e);
        if (e.len || /SYN|FIN/.test(e.flags || "")) {
          const same = [e.from, e.src, e.dst, e.flags, e.seq, e.len].join();
          const earlier = this.sent.get(same);
          e.resent = Boolean(earlier) && e.seq !== undefined;
          // While the earlier one is not lost, this one adds nothing.
          e.again = e.resent && !/^(dropped|lost)/.test(earlier.fate);
        }
        let before = link.pending[e.from];
        const isAnswer = !before.length && link.out && link.out.to === e.from;
        if (isAnswer) before = link.out.after.slice();
        const move = { packet: e, from: e.from, to: e.from === "A" ? "B" : "A", fates: [], before,
          after: [], calls: [], lastIndex: e.i, fate: e.fate };
        this.moves.push(move);
        this.packets.set(e.id, move);
        if (e.resent !== undefined) this.sent.set([e.from, e.src, e.dst, e.flags, e.seq, e.len].join(), move);
        this.join(move, e.i);
        before.forEach(i => this.join(move, i));
        const cookies = new Set(before.map(i => this.names.get(this.events[i].ck)));
        const call = this.callsById.get(link.last[e.from]);
        if (call && !isAnswer && (cookies.has(call.call.sock) || (!before.length && !link.out))) {
          this.attachCall(move, call);
        }
        link.pending[e.from] = [];
        link.out = ["passed", "duplicated", "delivered"].includes(e.fate) ? move : null;
        break;
      }
      case "fate": {
        const move = this.packets.get(e.id);
        if (!move) break;
        move.fates.push(e.i);
        move.fate = e.fate;
        move.lastIndex = e.i;
        this.join(move, e.i);
        link.out = e.fate === "dropped" ? null : move;
        break;
      }
    }
  }

  // Finds probes and window updates: acknowledgements with a special meaning.
  flow(e) {
    if (e.seq === undefined) return;
    const key = [e.from, e.src, e.dst].join();
    const known = this.flows.get(key);
    const isPure = e.flags === "ACK" && !e.len;
    if (known && isPure) {
      e.probe = e.seq === known.next - 1;
      e.opens = !e.probe && e.ack === known.ack && e.win > known.win && known.isPure;
    }
    const next = e.seq + e.len + (/SYN/.test(e.flags) ? 1 : 0) + (/FIN/.test(e.flags) ? 1 : 0);
    this.flows.set(key, { next: Math.max(next, known ? known.next : 0), ack: e.ack, win: e.win, isPure });
  }

  attachCall(move, call) {
    if (!move.calls.includes(call)) move.calls.push(call);
    if (!call.moves.includes(move)) call.moves.push(move);
  }

  // The indices of the events that belong to an event, with itself.
  related(index) {
    const found = new Set([index]);
    const event = this.events[index];
    if (!event) return found;
    const withMove = move => {
      found.add(move.packet.i);
      [...move.fates, ...move.before, ...move.after].forEach(i => found.add(i));
      move.calls.forEach(withCall);
    };
    const withCall = call => {
      found.add(call.call.i);
      if (call.ret) found.add(call.ret.i);
    };
    if (event.k === "call" || event.k === "ret") {
      const call = this.callsById.get(event.id);
      if (call) { withCall(call); call.moves.forEach(withMove); }
    }
    (this.movesOf.get(index) || []).forEach(withMove);
    if (event.k === "kern" && !this.movesOf.has(index)) {
      // A change by a call without a packet, such as listen().
      for (let i = index - 1; i >= 0 && this.events[i].k !== "line"; i--) {
        const other = this.events[i];
        if (other.k === "call" && other.actor === event.host) {
          withCall(this.callsById.get(other.id));
          break;
        }
      }
    }
    return found;
  }

  // Whether the events show only that a kernel sends again what is still under way.
  isRepeat(from, to) {
    for (let i = from; i < to; i++) {
      const e = this.events[i];
      if (!(e.k === "pkt" ? e.again && e.fate === "held" : e.k === "kern" && e.was === e.st)) return false;
    }
    return to > from;
  }

  // The indices at which a moment begins. The cursor stops there, and at the end.
  stops() {
    if (this.stopsCache) return this.stopsCache;
    const events = this.events;
    const stops = [];
    let head = -1, hasPacket = false, onlyKernel = false, onlyLine = false, calls = [], to = null;
    const begin = i => {
      if (stops[stops.length - 1] !== i) stops.push(i);
      head = i; hasPacket = false; calls = []; to = null; onlyKernel = false; onlyLine = false;
    };
    const nextOf = (i, skip) => {
      let next = i;
      while (next < events.length && skip.includes(events[next].k)) next++;
      return events[next];
    };
    for (let i = 0; i < events.length; i++) {
      const e = events[i];
      if (head < 0) begin(i);
      if (e.k === "line") { begin(i); onlyLine = true; continue; }
      if (e.k === "call") {
        if (!onlyLine) begin(i);
        calls.push(e.id);
      } else if (e.k === "released") {
        begin(i);
      } else if (e.k === "pkt") {
        if (!onlyKernel && !onlyLine) begin(i);
        hasPacket = true;
        to = ["passed", "duplicated"].includes(e.fate) ? (e.from === "A" ? "B" : "A") : null;
      } else if (e.k === "fate") {
        if (!onlyLine) begin(i);
        hasPacket = true;
        const move = this.packets.get(e.id);
        to = move && e.fate !== "dropped" ? move.to : null;
      } else if (e.k === "kern" || e.k === "gone") {
        if (to === e.host || onlyKernel) continue;
        const next = nextOf(i, ["kern", "gone"]);
        if (next && next.k === "pkt" && next.from === e.host) {
          if (!onlyLine) begin(i);
          onlyLine = false;
          onlyKernel = true;
          continue;
        }
      } else if (e.k === "name" || e.k === "ret" || e.k === "hint") {
        const ret = nextOf(i, ["name", "hint"]);
        if (ret && ret.k === "ret" && hasPacket && !calls.includes(-ret.id)) {
          begin(i);
          calls.push(-ret.id);
        }
      }
      onlyKernel = false; onlyLine = false;
    }
    return this.stopsCache = stops;
  }
}

const HANDLED = new Set(["call", "ret", "name", "kern", "gone", "pkt", "fate", "expect", "line", "done", "paused",
  "note", "hint", "held", "released"]);

// The state of everything before the event `cursor`.
class Moment {
  constructor(recording) {
    this.recording = recording;
    this.cursor = 0;
    this.time = 0;
    this.sockets = new Map();     // cookie -> socket
    this.calls = new Map();       // id -> { call, ret }
    this.lines = new Map();       // number -> { state, text, call }
    this.held = new Map();        // id -> index of the packet
    this.fates = new Map();       // id -> fate
    this.fresh = [];              // cookies named since the last return
    this.line = null;
    this.next = undefined;
    this.last = null;             // the last change of a state
  }

  socket(ck, host) {
    let socket = this.sockets.get(ck);
    if (!socket) {
      socket = { ck, host, names: [], st: "CLOSED", proto: "tcp", rq: 0, wq: 0, timer: "off", ms: 0, retr: 0, t: 0,
        local: "", peer: "", drops: 0, path: [], hasRow: false, closed: false, gone: false, was: null, ino: 0,
        index: -1, accepted: false, info: {} };
      this.sockets.set(ck, socket);
    }
    return socket;
  }

  seek(cursor) {
    if (cursor < this.cursor) {
      Object.assign(this, new Moment(this.recording));
    }
    const events = this.recording.events;
    while (this.cursor < cursor && this.cursor < events.length) this.apply(events[this.cursor++]);
    return this;
  }

  apply(e) {
    this.time = e.t;
    switch (e.k) {
      case "line":
        this.line = e.line;
        this.next = undefined;
        this.lines.set(e.line, { state: "running", text: "", at: e.i });
        break;
      case "done": {
        const line = this.lines.get(e.line);
        if (line) { line.state = e.ok ? "done" : "failed"; line.text = e.text; }
        break;
      }
      case "paused": this.next = e.next; break;
      case "held": case "released": {
        const call = this.calls.get(e.id);
        if (call) call.isHeld = e.k === "held";
        break;
      }
      case "call":
        this.calls.set(e.id, { call: e, ret: null });
        if (this.lines.has(e.line)) this.lines.get(e.line).call = e.id;
        break;
      case "name": this.name(e); break;
      case "ret": this.ret(e); break;
      case "kern": this.kernel(e); break;
      case "gone": {
        const socket = this.socket(e.ck, e.host);
        socket.was = e.was;
        socket.hasRow = false;
        socket.gone = true;
        socket.timer = "off";
        socket.rq = socket.wq = 0;
        socket.st = socket.closed || !socket.names.length ? "GONE" : "CLOSED";
        this.step(socket, e);
        break;
      }
      case "pkt":
        this.fates.set(e.id, e.fate);
        if (e.fate === "held" || e.fate === "delayed") this.held.set(e.id, e.i);
        break;
      case "fate":
        this.fates.set(e.id, e.fate);
        this.held.delete(e.id);
        break;
    }
  }

  step(socket, e) {
    const before = socket.path.length ? socket.path[socket.path.length - 1].st : null;
    if (before === socket.st) return;
    socket.path.push({ st: socket.st, i: e.i });
    const from = before || (socket.st === "SYN-RECV" ? "LISTEN" : "CLOSED");
    // The diagram is about TCP.
    if (from !== socket.st && socket.proto === "tcp") this.last = { ck: socket.ck, host: socket.host, from, to: socket.st, i: e.i };
  }

  name(e) {
    const socket = this.socket(e.ck, null);
    if (!socket.names.includes(e.name)) socket.names.push(e.name);
    socket.accepted = true;
    this.fresh.push(e.ck);
  }

  ret(e) {
    const call = this.calls.get(e.id);
    if (!call) return;
    call.ret = e;
    if (this.recording.ofPrograms && this.lines.has(call.call.line)) this.lines.get(call.call.line).state = "done";
    const { sock, actor, fn, args } = call.call;
    for (const ck of this.fresh) {
      const socket = this.sockets.get(ck);
      socket.host = socket.host || actor;
      if (!socket.hasRow && fn.startsWith("socket")) {
        socket.proto = /AF_UNIX/.test(args) ? "unix" : /SOCK_DGRAM/.test(args) ? "udp" : "tcp";
        socket.st = socket.proto === "tcp" ? "CLOSED" : fn === "socketpair" ? "CONNECTED" : "UNCONNECTED";
        socket.index = e.i;
        this.step(socket, e);
      }
    }
    this.fresh = [];
    // A descriptor of another process keeps the socket open.
    if (fn === "close" && e.val === "0") {
      const socket = this.byName(sock);
      if (socket) {
        socket.names.length > 1 ? socket.names.splice(socket.names.indexOf(sock), 1) : socket.closed = true;
        if (socket.closed && !socket.hasRow && socket.st === "CLOSED") socket.st = "GONE";
      }
    }
  }

  kernel(e) {
    const socket = this.socket(e.ck, e.host);
    socket.host = e.host;
    const had = socket.hasRow;
    Object.assign(socket, { st: e.st, proto: e.proto, rq: e.rq, wq: e.wq, waiting: e.waiting, backlog: e.backlog,
      timer: e.timer, ms: e.ms, retr: e.retr, t: e.t, local: e.local, peer: e.peer, drops: e.drops, ino: e.ino,
      hasRow: true, gone: false, index: e.i, info: { ...socket.info, ...e.info } });
    if (!had || e.was !== e.st) this.step(socket, e);
  }

  byName(name) {
    for (const socket of this.sockets.values()) if (socket.names.includes(name)) return socket;
    return null;
  }

  // What TCP knows about a connection, also after its death.
  counters(socket) {
    const death = this.recording.deaths.get(socket.ck);
    return death && death.at <= this.cursor ? { ...socket.info, ...death.info } : socket.info;
  }

  isDead(socket) {
    const death = this.recording.deaths.get(socket.ck);
    return death !== undefined && death.at <= this.cursor;
  }

  label(ck) {
    const socket = this.sockets.get(ck);
    if (socket && socket.names.length) return socket.names.join(", ");
    return "not accepted";
  }

  // Calls that have not returned, by host.
  blocked(host) {
    return [...this.calls.values()].filter(call => !call.ret && call.call.actor === host);
  }
}
