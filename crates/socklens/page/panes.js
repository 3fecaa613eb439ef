// The panes of the calls and of the kernel, and the sentences at the top.

function paint(text, hostOf) {
  // A few colours for a line of code: hosts, sockets, constants, texts and numbers.
  const parts = [];
  const pattern = /(b?"(?:[^"\\]|\\.)*")|\b([A-Za-z_][A-Za-z0-9_]*)\b|(\b\d[\d_.]*\b)/g;
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > at) parts.push(text.slice(at, match.index));
    const word = match[0];
    let cls = null;
    if (match[1]) cls = "t-text";
    else if (match[3]) cls = "t-number";
    else if (hostOf(word)) cls = `t-${hostOf(word).toLowerCase()}`;
    else if (/^(expect|join|wire|wait|and|within|run|sysctl|limit|from)$/.test(word) && (at === 0 || /\s$/.test(text.slice(0, match.index)))) cls = "t-word";
    parts.push(cls ? h("span", { class: cls }, word) : word);
    at = match.index + word.length;
  }
  parts.push(text.slice(at));
  return parts;
}

// The host of each name of the scenario, from its text.
function hostsOfNames(source) {
  // Sockets of programs are named after their host.
  if (source.of === "programs") return { get: name => /^[AB]\d*$/.test(name) ? name[0] : undefined };
  const hosts = new Map([["A", "A"], ["B", "B"]]);
  for (const line of source.lines) {
    const match = line.text.match(/^([\w, ]+?)\s*=\s*(\w+)\./);
    if (!match) continue;
    for (const name of match[1].split(",")) hosts.set(name.trim(), hosts.get(match[2]));
  }
  return hosts;
}

// A result that fits beside its line. The whole one is in the title of the line.
function shortened(text) {
  if (text.length <= 34) return text;
  const size = text.match(/(\([\d]+ bytes\))$/);
  return `${text.slice(0, 14)}\u2026${size ? ` ${size[1]}` : ""}`;
}

// A hint of the library names the scenario that shows it.
function hintText(app, text) {
  return text.replace(/; see `socklens run (\w+)`$/, (_, name) => name === app.recording.source.name ? "." : `. See the lesson ${name}.`)
    .replaceAll("; ", ". ").replace(/\. ([a-z])/g, (_, letter) => `. ${letter.toUpperCase()}`);
}

function lineState(app, line) {
  const seen = app.moment.lines.get(line.n);
  if (!seen) return { state: app.moment.next === line.n && app.atEnd() ? "next" : "", text: "" };
  const call = seen.call !== undefined ? app.moment.calls.get(seen.call) : null;
  if (call && call.isHeld && !call.ret) return { state: "blocked", text: "held" };
  if (call && !call.ret) {
    return app.isBlocked(seen.call) ? { state: "blocked", text: "blocks" } : { state: "running", text: "" };
  }
  let text = seen.text;
  if (call && call.ret && (!text || /^(blocks|returned|started)$/.test(text))) {
    text = call.ret.errno ? `= -1 ${call.ret.errno}` : `= ${call.ret.val}`;
  }
  if (call && call.ret && call.ret.us > 1500) text += `  after ${seconds(call.ret.us / 1000)}`;
  if (seen.state === "done" && line.k === "expect") return { state: "true", text: "true" };
  return { state: seen.state, text };
}

// Programs can make very many calls, so only those around the cursor are drawn.
const DRAWN = 500;

function drawnCalls(lines, now) {
  const next = lines.findIndex(line => line.n > (now ?? 0));
  const reached = next < 0 ? lines.length : next;
  const before = Math.max(0, Math.min(reached - DRAWN * 4 / 5, lines.length - DRAWN));
  const code = lines.slice(before, before + DRAWN);
  return { before, code, after: lines.length - before - code.length };
}

function renderCalls(app) {
  const { recording } = app;
  const lines = recording.source.lines.filter(line => line.k !== "comment" && line.k !== "needs");
  const { before, code, after } = recording.ofPrograms ? drawnCalls(lines, app.moment.line)
    : { before: 0, code: lines, after: 0 };
  const hostOf = name => app.hosts.get(name);
  const rest = (key, count, where) => count === 0 ? [] : [{
    key, sig: String(count), make: () => h("li", { class: "ln" }, h("p", { class: "why" }, `${count} calls ${where}`)),
  }];
  sync($("calls"), rest("before", before, "before").concat(code.map(line => {
    const { state, text } = lineState(app, line);
    const isNow = app.moment.line === line.n;
    const seen = app.moment.lines.get(line.n);
    const index = seen ? (seen.call !== undefined ? recording.callsById.get(seen.call).call.i : seen.at) : -1;
    const owner = line.text.replace(/^[\w, ]+=\s*/, "").match(/^(?:run |sysctl |join )?(\w+)/);
    const host = owner && hostOf(owner[1]);
    const isFuture = app.isFuture(line.n);
    const call = seen && seen.call !== undefined ? recording.callsById.get(seen.call) : null;
    const hint = call && call.hint && call.hint.i < app.cursor ? hintText(app, call.hint.text) : "";
    return {
      key: `l${line.n}`, sig: `${state}|${text}|${isNow}|${index}|${isFuture}|${hint}`,
      make: () => h("li", { class: `ln ${line.k} ${host ? `host-${host.toLowerCase()}` : ""} ${state ? `is-${state}` : ""} ${isNow ? "now" : ""}`,
        "data-i": index >= 0 ? index : null, "data-line": line.n, "aria-current": isNow ? "step" : null },
      h("button", {
        class: "code", onclick: () => app.goToLine(line.n), disabled: isFuture && !app.canRunTo(),
        title: isFuture ? (app.canRunTo() ? `Run up to line ${line.n}` : "Not reached yet") : `Go to line ${line.n}`,
        onfocus: () => app.point(index >= 0 ? index : null), onblur: () => app.point(null),
        onmouseenter: () => app.point(index >= 0 ? index : null), onmouseleave: () => app.point(null),
      },
      h("span", { class: "no" }, String(line.n)),
      h("code", null, paint(line.text, hostOf)),
      text ? h("span", { class: "res", title: text.length > 34 ? text : null }, shortened(text)) : null),
      line.why ? h("p", { class: "why" }, line.why) : null,
      hint ? h("p", { class: "why hint" }, h("b", null, "Hint "), hint) : null),
    };
  }), rest("after", after, "after")));
}

function renderIntro(app) {
  const header = [];
  for (const line of app.recording.source.lines) {
    if (line.k !== "comment") break;
    if (line.why) header.push(line.why);
  }
  sync($("intro"), header.slice(1).map((text, i) => ({ key: i, sig: text, make: () => h("p", null, text) })));
}

// A queue as a bar with its number.
function queueBar(label, bytes, text, scale) {
  const part = bytes > 0 ? Math.max(3, Math.min(100, 100 * bytes / scale)) : 0;
  const bar = h("span", { class: "fill" });
  bar.style.width = `${part}%`;
  return h("div", { class: `queue ${bytes > 0 ? "has" : ""}` }, h("span", { class: "q-name" }, label),
    h("span", { class: "track", "aria-hidden": "true" }, bar), h("span", { class: "q-num" }, text));
}

const FIN_IN_RECEIVE = ["CLOSE-WAIT", "CLOSING", "LAST-ACK"];
const FIN_IN_SEND = ["FIN-WAIT-1", "CLOSING", "LAST-ACK"];

function queueText(socket, isReceive) {
  const bytes = isReceive ? socket.rq : socket.wq;
  const size = n => n >= 10000 ? `${(n / 1000).toLocaleString("en", { maximumFractionDigits: n < 100000 ? 1 : 0 })} kB` : `${n.toLocaleString("en")} B`;
  if (!bytes) return "empty";
  if (socket.proto === "tcp") {
    if (!isReceive && /^SYN/.test(socket.st)) return bytes === 1 ? "the SYN" : size(bytes);
    if ((isReceive ? FIN_IN_RECEIVE : FIN_IN_SEND).includes(socket.st)) {
      return bytes === 1 ? "the FIN" : `${size(bytes - 1)} + FIN`;
    }
  }
  return size(bytes);
}

function seats(socket) {
  const all = Math.max(socket.backlog + 1, socket.waiting);
  const shown = Math.min(all, 16);
  const circles = [];
  for (let n = 0; n < shown; n++) {
    circles.push(s("circle", { cx: 9 + 18 * (n % 8), cy: 9 + 18 * Math.floor(n / 8), r: 6, class: n < socket.waiting ? "taken" : "free" }));
  }
  const rows = Math.ceil(shown / 8);
  return h("div", { class: "seats" }, h("span", { class: "q-name" }, "Accept queue"),
    s("svg", { width: 18 * Math.min(shown, 8), height: 18 * rows, "aria-hidden": "true" }, circles),
    h("span", { class: "q-num" }, `${socket.waiting} of ${all} taken`));
}

function timerLeft(app, socket) {
  return Math.max(0, socket.ms - (app.now() - socket.t) * 1000);
}

// All values of TCP_INFO. Every row is there from the beginning, so that the card keeps its height.
function details(app, socket) {
  const counters = app.moment.counters(socket);
  const rows = COUNTERS.map(([name, words, unit]) => h("tr", { title: `tcpi_${name}` }, h("th", { scope: "row" }, words),
    h("td", { "data-counter": name }, counterText(counters[name], unit))));
  return h("details", { class: "info", open: app.opened.has(socket.ck),
    ontoggle: event => { event.target.open ? app.opened.add(socket.ck) : app.opened.delete(socket.ck); } },
  h("summary", null, socket.gone ? `TCP_INFO of ${socket.names.join(", ") || "it"} at its end` : app.moment.isDead(socket) ? "TCP_INFO before TIME-WAIT" : "TCP_INFO"),
  h("table", null, h("tbody", null, rows)));
}

function hasDetails(app, socket) {
  return socket.proto === "tcp" && socket.st !== "LISTEN" && Object.keys(app.moment.counters(socket)).length > 0;
}

function card(app, socket, isBrief) {
  const isListener = socket.st === "LISTEN";
  const name = socket.names.length ? socket.names.join(", ") : socket.ino ? "unnamed" : "not accepted";
  const scale = app.scaleOf(socket.ck);
  const notes = [];
  if (!socket.hasRow && !socket.gone && socket.st === "CLOSED") notes.push("only a descriptor yet: it is in no table of the kernel");
  if (socket.hasRow && socket.proto === "tcp" && !socket.names.length && !socket.ino) notes.push("the connection waits for accept()");
  if (socket.closed && socket.hasRow && socket.st !== "TIME-WAIT" && socket.proto === "tcp") notes.push("closed by the program: the kernel finishes alone");
  if (socket.drops) notes.push(`${plural(socket.drops, "datagram")} discarded`);
  const path = socket.path.length > 1 ? h("ol", { class: "path", "aria-label": "Path of states" },
    socket.path.map(step => h("li", { "data-i": step.i }, step.st))) : null;
  const hasTimer = socket.timer !== "off" && socket.hasRow;
  return h("li", { class: `card ${socket.hasRow ? "" : "rowless"}`, "data-ck": socket.ck },
    h("div", { class: "card-head" }, h("b", { class: `name ${socket.host === "A" ? "a" : "b"}` }, name),
      h("span", { class: `state s-${socket.st}`, title: STATE_WORDS[socket.st] || "" }, socket.st)),
    isBrief ? null : h("p", { class: "meaning" }, socket.proto === "tcp" || socket.st !== "CLOSED" ? STATE_WORDS[socket.st] || "" : ""),
    socket.local && socket.proto !== "unix" ? h("p", { class: "addr" }, isListener ? socket.local : `${socket.local} \u2192 ${socket.peer}`) : null,
    socket.hasRow && socket.waiting !== undefined && isListener ? seats(socket) : null,
    socket.hasRow && !isListener && socket.st !== "TIME-WAIT" ? [
      queueBar(socket.proto === "udp" ? "Recv memory" : "Recv queue", socket.rq, queueText(socket, true), scale),
      queueBar("Send queue", socket.wq, queueText(socket, false), scale)] : null,
    hasTimer ? h("p", { class: "timer" }, h("span", { class: "q-name" }, TIMERS[socket.timer] || socket.timer),
      h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: "fill" })), h("span", { class: "q-num left" }, "")) : null,
    hasTimer && socket.retr ? h("p", { class: "note" }, `sent again ${socket.retr}\u00d7 without an answer`) : null,
    notes.map(text => h("p", { class: "note" }, text)), path, hasDetails(app, socket) ? details(app, socket) : null);
}

function renderKernel(app) {
  for (const host of ["A", "B"]) {
    const shown = [...app.moment.sockets.values()].filter(socket => socket.host === host && (socket.hasRow || !socket.closed) &&
      !(socket.gone && !socket.names.length));
    const gone = [...app.moment.sockets.values()].filter(socket => socket.host === host && !shown.includes(socket));
    shown.sort((one, two) => (two.st === "LISTEN") - (one.st === "LISTEN"));
    // With many sockets only those that have just changed have all their words.
    const { from, to } = app.storySpan();
    const fresh = new Set(app.recording.events.slice(from, to).map(e => e.ck));
    const isBrief = socket => shown.length > 2 && !fresh.has(socket.ck);
    const items = shown.map(socket => ({
      key: socket.ck,
      sig: [socket.st, socket.rq, socket.wq, socket.waiting, socket.backlog, socket.timer, socket.retr, socket.names.join(), socket.closed,
        socket.hasRow, socket.drops, socket.path.length, socket.local, socket.peer, socket.ino === 0, app.scaleOf(socket.ck), isBrief(socket),
        app.moment.isDead(socket), JSON.stringify(app.moment.counters(socket))].join("|"),
      make: () => card(app, socket, isBrief(socket)),
    }));
    if (!shown.length) items.push({ key: "none", sig: "", make: () => h("li", { class: "empty" }, "no socket") });
    if (gone.length) {
      const names = gone.map(socket => `${socket.names.join(", ") || "a connection"}${socket.was ? ` (was ${socket.was})` : ""}`);
      items.push({ key: "gone", sig: names.join(), make: () => h("li", { class: "gone-list" }, h("b", null, "Gone "), names.join(", ")) });
      for (const socket of gone.filter(socket => socket.names.length && hasDetails(app, socket))) {
        items.push({ key: `gone${socket.ck}`, sig: JSON.stringify(app.moment.counters(socket)),
          make: () => h("li", { class: "gone-list" }, details(app, socket)) });
      }
    }
    sync($(`kernel-${host}`), items);
  }
  renderTimers(app);
}

// Only the numbers and bars of running timers, several times a second.
function renderTimers(app) {
  for (const socket of app.moment.sockets.values()) {
    if (socket.timer === "off" || !socket.hasRow) continue;
    const node = document.querySelector(`.card[data-ck="${socket.ck}"] .timer`);
    if (!node) continue;
    const left = timerLeft(app, socket);
    setText(node.querySelector(".left"), left > 0 ? `in ${seconds(left)}` : "now");
    node.querySelector(".fill").style.width = `${socket.ms ? Math.min(100, 100 * left / Math.max(socket.ms, 1)) : 0}%`;
  }
}

// What the moment before the cursor was, in sentences.
function narrate(app) {
  const { recording, moment } = app;
  const { from, to, repeats } = app.storySpan();
  const said = [];
  const checks = [];
  const hints = [];
  const changes = [];
  for (let i = from; i < to; i++) {
    const e = recording.events[i];
    switch (e.k) {
      case "call": {
        const call = moment.calls.get(e.id);
        const args = e.args.length > 40 ? "\u2026" : e.args;
        const object = e.sock === e.actor ? "" : ` on ${e.sock}`;
        said.push(e.fn === "run" ? `${e.actor} runs ${e.args}.` : `${e.actor} calls ${e.fn}(${args})${object}. ${CALLS[e.fn] || ""}`.trim());
        if (call && !call.ret && !call.isHeld && app.isBlocked(e.id)) said.push("The call blocks: it has not returned yet.");
        break;
      }
      case "held":
        said.push("The call is held at its entry: the kernel has done nothing yet.");
        break;
      case "released": {
        const { call } = recording.callsById.get(e.id);
        said.push(`The call ${call.fn}() of ${call.sock} runs.`);
        break;
      }
      case "ret": {
        const call = recording.callsById.get(e.id).call;
        const end = returned(e);
        const name = call.fn === "run" ? "The program" : `${call.fn}()`;
        const isOwn = ["call", "line"].includes(recording.events[from].k);
        if (end.bad) said.push(`${name} ${end.text}${ERRORS[e.errno] ? `, which means that ${ERRORS[e.errno]}` : ""}.`);
        else if (e.val === 'b""' && call.fn === "recv") said.push(`${name} returns b"": the end of the stream.`);
        else if (e.val !== "0" || !isOwn) said.push(`${name} ${call.fn === "run" ? `ends with ${e.val}` : end.text}.`);
        break;
      }
      case "pkt":
        if (e.resent) said.push(`${packetName(e)}: ${e.from} sends it again, because no acknowledgement has come. The packet ${FATES[e.fate] || e.fate}.`);
        else said.push(`${packetName(e)}: ${e.from} ${packetWords(e, e.from === "A" ? "B" : "A")}. The packet ${FATES[e.fate] || e.fate}.`);
        break;
      case "fate": {
        const move = recording.packets.get(e.id);
        if (move) said.push(`${packetName(move.packet)} from ${move.from} ${FATES[e.fate] || e.fate}.`);
        break;
      }
      case "kern":
        if (e.was !== e.st) changes.push([e.ck, e.was || (e.st === "SYN-RECV" ? "LISTEN" : "CLOSED"), e.st]);
        else {
          const socket = { ...moment.sockets.get(e.ck), ...e };
          const was = e.prev || {};
          if (e.retr && e.timer === "on" && e.retr !== was.retr) changes.push([e.ck, null, `was not acknowledged in time: the kernel sends again (${e.retr}\u00d7).`]);
          else if (e.timer === "persist" && was.timer !== "persist") changes.push([e.ck, null, "may not send: the peer's window is closed."]);
          else if (e.waiting !== undefined && e.waiting !== was.waiting) changes.push([e.ck, null, `${plural(e.waiting, "connection")} in the accept queue.`]);
          else if (e.drops > (was.drops || 0)) changes.push([e.ck, null, `the datagram is discarded: no room. ${plural(e.drops, "datagram")} so far.`]);
          else if (e.rq !== was.rq && (e.rq || was.rq)) changes.push([e.ck, null, e.proto === "udp" && e.rq
            ? `its datagrams take ${plural(e.rq, "byte")} of memory.` : e.rq ? `${queueText(socket, true)} in the receive queue.` : "the receive queue is empty."]);
          else if (e.wq !== was.wq && e.proto === "tcp") changes.push([e.ck, null, e.wq ? `${queueText(socket, false)} in the send queue, until acknowledged.` : "everything is acknowledged."]);
        }
        break;
      case "gone":
        changes.push([e.ck, e.was, "GONE"]);
        break;
      case "expect":
        checks.push(`Check: ${e.text.replace(/^expect /, "")}. ${e.ok ? "True" : "Not true"}: ${e.seen.replace(/^ok \((.*)\)$/, "$1") || "ok"}.`);
        break;
      case "hint":
        hints.push(hintText(app, e.text));
        break;
      case "note":
        said.push(`${e.text}.`);
        break;
      case "done":
        if (!e.ok && !checks.length) said.push(`Line ${e.line} failed: ${e.text.replace(/^FAILED: /, "")}.`);
        break;
    }
  }
  const last = new Map();
  changes.forEach(change => last.set(change[0], change));
  const list = [...last.values()].slice(0, 3).map(([ck, was, now]) => {
    const name = moment.label(ck) === "not accepted" ? "The connection that is not accepted yet" : moment.label(ck);
    if (was === null) return `${name}: ${now}`;
    const why = CHANGES[`${was}>${now}`] || "";
    return `${name} is ${now === "GONE" ? "gone" : now}${why ? `. ${why}` : "."}`;
  });
  const line = recording.source.lines.find(line => line.n === moment.line);
  const done = recording.events.slice(from, to).find(e => e.k === "done");
  if (!said.length && !list.length && line && (recording.events[from] || {}).k === "line") {
    if (line.text === "wire hold") said.push("From now on the wire holds every packet.");
    else if (line.text === "wire pass") said.push("From now on the wire lets packets pass.");
    else if (line.text === "wire cut") said.push("The wire is cut: every packet is lost.");
    else if (/^wire drop/.test(line.text)) said.push("The next packet of this kind will be dropped.");
    else if (/^wire duplicate/.test(line.text)) said.push("The next packet of this kind will be delivered twice.");
    else if (/^limit descriptors/.test(line.text)) said.push(`The process may open ${line.text.replace(/\D+/, "")} more.`);
    else if (line.k === "wait") said.push("The scenario waits.");
    else if (line.k === "set") said.push("A parameter of the kernel is set.");
    else if (line.k === "join" && done && done.ok) said.push(`The call on ${line.text.split(" ")[1]} has returned ${done.text.replace(/^= /, "")}.`);
    else if (line.k === "needs") said.push("The lesson begins.");
  }
  if (repeats) list.push("Meanwhile the kernels send again what is not acknowledged.");
  return { said, changes: [...list, ...checks], line, hints };
}

function renderStory(app) {
  const { said, changes, line, hints } = narrate(app);
  const code = app.moment.cursor === 0 ? null : line;
  const nodes = [];
  if (app.moment.cursor === 0) {
    nodes.push(h("p", { class: "now-line" }, app.recording.source.title || app.recording.source.name || "\u2026"));
    nodes.push(h("p", { class: "sentences" }, app.mode === "live" && !app.recording.events.some(e => e.k === "line")
      ? "Press Step to run the first line, or Run for all of them."
      : "Press Step for the first moment, Next line for a whole line, or Run."));
  } else {
    if (code) nodes.push(h("p", { class: "now-line" }, h("span", { class: "no" }, `Line ${code.n}`), h("code", null, paint(code.text, name => app.hosts.get(name)))));
    const text = [...said, ...changes];
    nodes.push(h("p", { class: "sentences" }, text.length ? text.join(" ") : "Nothing changes that could be seen."));
    for (const hint of hints) nodes.push(h("p", { class: "why" }, h("b", null, "Hint "), hint));
    if (code && code.why) nodes.push(h("p", { class: "why" }, h("b", null, "Why? "), code.why));
  }
  const sig = nodes.map(node => node.textContent).join("|");
  if ($("say").dataset.sig === sig) return;
  $("say").dataset.sig = sig;
  $("say").replaceChildren(...nodes);
}
