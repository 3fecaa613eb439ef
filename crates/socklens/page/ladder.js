// The ladder: packets between two lines of life, with the calls and the changes of state beside them.

const MANY_ALIKE = 6;

function ladderRows(app) {
  const { recording, moment } = app;
  const events = recording.events;
  const rows = [];
  let out = null;
  let waiting = { A: [], B: [] };
  // A socket that the program still holds is closed, and not gone.
  const isHeld = e => recording.names.has(e.ck) && ![...recording.callsById.values()].some(({ call }) =>
    call.fn === "close" && call.i < e.i && call.sock === recording.names.get(e.ck));
  const chip = e => ({ i: e.i, ck: e.ck, st: e.k !== "gone" ? e.st : isHeld(e) ? "CLOSED" : "gone" });
  const flush = host => {
    if (!waiting[host].length) return;
    const last = rows[rows.length - 1];
    if (last && last.type === "call" && last.host === host) last.states.push(...waiting[host]);
    else rows.push({ type: "state", host, key: `s${waiting[host][0].i}`, i: waiting[host][0].i, states: waiting[host] });
    waiting[host] = [];
  };
  const flushAll = () => { flush("A"); flush("B"); };
  for (let i = 0; i < moment.cursor; i++) {
    const e = events[i];
    switch (e.k) {
      case "call":
        flushAll();
        out = null;
        rows.push({ type: "call", key: `c${e.id}`, i, id: e.id, host: e.actor, call: e, ret: null, states: [] });
        break;
      case "ret": {
        const call = recording.callsById.get(e.id).call;
        const last = rows[rows.length - 1];
        if (last && last.type === "call" && last.id === e.id) {
          last.ret = e;
        } else {
          const row = rows.find(row => row.type === "call" && row.id === e.id);
          if (row) row.later = true;
          flushAll();
          rows.push({ type: "ret", key: `r${e.id}`, i, host: call.actor, call, ret: e, states: [] });
        }
        break;
      }
      case "kern": case "gone":
        if (e.k === "kern" && e.was === e.st) break;
        if (out && out.to === e.host) out.row[e.host].push(chip(e));
        else waiting[e.host].push(chip(e));
        break;
      case "pkt": {
        const to = e.from === "A" ? "B" : "A";
        flush(to);
        const row = { type: "pkt", key: `p${e.id}`, i, id: e.id, e, from: e.from, to, A: [], B: [],
          fate: moment.fates.get(e.id), first: e.fate, isHeld: moment.held.has(e.id) };
        row[e.from] = waiting[e.from];
        waiting[e.from] = [];
        rows.push(row);
        out = ["passed", "duplicated", "delivered"].includes(e.fate) ? { row, to } : null;
        break;
      }
      case "fate": {
        flushAll();
        const move = recording.packets.get(e.id);
        if (!move) break;
        const row = { type: "fate", key: `f${e.id}`, i, id: e.id, e: move.packet, from: move.from, to: move.to,
          A: [], B: [], fate: e.fate };
        rows.push(row);
        out = e.fate === "dropped" ? null : { row, to: move.to };
        break;
      }
      case "note":
        flushAll();
        rows.push({ type: "note", key: `n${i}`, i, text: e.text });
        break;
    }
  }
  flushAll();
  return fold(rows, app.unfolded);
}

const isData = row => row.e.len > 0;
const alike = row => `${row.from}|${isData(row) ? "data" : row.e.flags}|${row.fate}`;

// Runs of alike packets become one row each, unless the reader has opened them.
function fold(rows, unfolded) {
  const folded = [];
  for (let at = 0; at < rows.length;) {
    const first = rows[at];
    const isQuiet = row => row.type === "pkt" && !row.A.length && !row.B.length;
    if (first.type !== "pkt") { folded.push(first); at++; continue; }
    // What is sent again while the earlier packet is under way.
    let end = at;
    const isAgain = row => isQuiet(row) && row.e.again && row.isHeld;
    while (end < rows.length && isAgain(rows[end])) end++;
    if (end > at) {
      const key = `again${first.id}`;
      folded.push({ type: "fold", key, i: first.i, rows: rows.slice(at, end), again: true, isOpen: unfolded.has(key) });
      if (unfolded.has(key)) folded.push(...rows.slice(at, end));
      at = end;
      continue;
    }
    // A transfer: data in one direction, acknowledgements in the other.
    end = at;
    const kinds = new Set();
    while (end < rows.length && isQuiet(rows[end]) && rows[end].fate === "passed") {
      const row = rows[end];
      if (!isData(row) && row.e.flags !== "ACK" && row.e.flags !== "UDP") break;
      kinds.add(alike(row));
      if (kinds.size > 2) break;
      end++;
    }
    if (end - at >= MANY_ALIKE) {
      const key = `many${first.id}`;
      folded.push({ type: "fold", key, i: first.i, rows: rows.slice(at, end), again: false,
        isOpen: unfolded.has(key) });
      if (unfolded.has(key)) folded.push(...rows.slice(at, end));
      at = end;
      continue;
    }
    folded.push(first);
    at++;
  }
  return folded;
}

function packetName(e) {
  if (!e.flags) return "packet";
  if (e.len && /^(PSH\+)?ACK$/.test(e.flags)) return "DATA";
  return e.flags.replace("FIN+PSH", "FIN");
}

function packetDetail(e, isNarrow) {
  const parts = [];
  if (e.len) parts.push(plural(e.len, "byte"));
  // Only an acknowledgement without data has nothing of its own to number.
  const isPure = e.flags === "ACK" && !e.len;
  if (e.seq !== undefined && !isPure) parts.push(`seq ${e.seq}`);
  if (e.ack !== undefined && /ACK/.test(e.flags) && !(isNarrow && !isPure)) parts.push(`ack ${e.ack}`);
  return parts.join("  ");
}

// The printable beginning of what a packet carries.
function payload(e) {
  if (!e.len || !e.raw) return "";
  try {
    const raw = atob(e.raw);
    return [...raw.slice(raw.length - e.len, raw.length - e.len + 24)]
      .map(c => c >= " " && c <= "~" ? c : "\u00b7").join("") + (e.len > 24 ? "\u2026" : "");
  } catch { return ""; }
}

function arrow(row, width) {
  const leftward = row.from === "B";
  const x = part => leftward ? width - 1 - part * (width - 2) : 1 + part * (width - 2);
  const [top, bottom] = [4, 18];
  const y = part => top + part * (bottom - top);
  const line = (from, to, extra, dy = 0) => s("line", { x1: x(from), y1: y(from) + dy, x2: x(to), y2: y(to) + dy, class: extra });
  const head = (at, dy = 0) => {
    const d = leftward ? 1 : -1;
    return s("path", { class: "head", d: `M${x(at)} ${y(at) + dy} l${d * 9} -6 l0 9 z` });
  };
  const cross = at => s("path", { class: "cross", d: `M${x(at) - 5} ${y(at) - 5} l10 10 m0 -10 l-10 10` });
  const gate = () => s("path", { class: "gate", d: `M${x(0.5) - 3} 1 v20 M${x(0.5) + 3} 1 v20` });
  const parts = [];
  if (row.type === "fate") {
    if (row.fate === "dropped") parts.push(cross(0.5));
    else {
      parts.push(s("circle", { class: "dot", cx: x(0.5), cy: y(0.5), r: 3 }), line(0.5, 1, "go"), head(1));
      if (row.fate === "duplicated") parts.push(line(0.5, 1, "go", -6), head(1, -6));
    }
  } else if (row.first === "held" || row.first === "delayed") {
    parts.push(line(0, 0.5, row.isHeld ? "go waits" : "go"), row.isHeld ? gate() : s("circle", { class: "dot", cx: x(0.5), cy: y(0.5), r: 3 }));
  } else if (row.first === "dropped" || row.first.startsWith("lost")) {
    parts.push(line(0, 0.5, "go"), cross(0.5));
  } else {
    parts.push(line(0, 1, "go"), head(1));
    if (row.first === "duplicated") parts.push(line(0, 1, "go", -6), head(1, -6));
  }
  return s("svg", { class: "arrow", width, height: 22, "aria-hidden": "true", focusable: "false" }, parts);
}

function stateChips(app, chips) {
  return chips.map(chip => h("span", { class: "chip", "data-i": chip.i },
    h("small", null, app.moment.label(chip.ck)), chip.st === "gone" ? "gone" : chip.st));
}

function returned(ret) {
  if (ret.errno) return { text: `fails: ${ret.errno}`, bad: true };
  return { text: `returns ${ret.val}`, bad: false };
}

// "SYN 2x, SYN+ACK 1x"
function againText(rows) {
  const counts = new Map();
  for (const row of rows) counts.set(packetName(row.e), (counts.get(packetName(row.e)) || 0) + 1);
  return [...counts].map(([name, count]) => `${name} ${count}\u00d7`).join(", ");
}

function rowElement(app, row) {
  const gutter = (host, chips) => h("div", { class: `gutter ${host.toLowerCase()}` }, stateChips(app, chips));
  const focus = i => ({ onfocus: () => app.point(i), onblur: () => app.point(null) });
  if (row.type === "note") return h("li", { class: "row note", "data-i": row.i }, h("p", null, row.text));
  if (row.type === "fold") {
    const bytes = host => row.rows.reduce((sum, r) => sum + (r.from === host ? r.e.len || 0 : 0), 0);
    const count = host => row.rows.filter(r => r.from === host).length;
    const parts = row.again
      ? [`sent again, and held: ${againText(row.rows)}`]
      : ["A", "B"].filter(count).map(host => `${host} ${plural(count(host), "packet")}${bytes(host) ? `, ${plural(bytes(host), "byte")}` : ""}`);
    return h("li", { class: "row fold", "data-i": row.i }, gutter("A", []), h("div", { class: "lane" }, h("button", {
      "aria-expanded": String(row.isOpen), onclick: () => app.toggleFold(row.key), ...focus(row.i),
    }, parts.join(" \u00b7 "), h("span", { class: "more" }, row.isOpen ? "hide" : "show"))), gutter("B", []));
  }
  if (row.type === "state") {
    return h("li", { class: "row state", "data-i": row.i }, gutter("A", row.host === "A" ? row.states : []),
      h("div", { class: "lane" }), gutter("B", row.host === "B" ? row.states : []));
  }
  if (row.type === "call" || row.type === "ret") {
    const { call, ret } = row;
    const name = call.fn === "run" ? `run ${call.args}` : `${call.sock}.${call.fn}()`;
    let text, cls = "";
    if (row.type === "ret") {
      const end = returned(ret);
      text = `${name} ${end.text}`;
      cls = end.bad ? "bad" : "";
    } else if (ret) {
      const end = returned(ret);
      text = end.bad ? `${name} ${end.text}` : name;
      cls = end.bad ? "bad" : "";
    } else {
      const open = app.moment.calls.get(call.id);
      text = name;
      if (open && !open.ret) { text += app.isBlocked(call.id) ? " blocks" : ""; cls = app.isBlocked(call.id) ? "blocked" : ""; }
    }
    return h("li", { class: `row call on-${row.host.toLowerCase()} ${cls}`, "data-i": ret ? `${row.i} ${ret.i}` : row.i },
      gutter("A", row.host === "A" ? row.states : []),
      h("div", { class: "lane" }, h("button", {
        class: "tag", title: text, onclick: () => app.goTo(row.i), ...focus(row.i), onmouseenter: () => app.point(row.i), onmouseleave: () => app.point(null),
      }, text)),
      gutter("B", row.host === "B" ? row.states : []));
  }
  const word = row.type === "fate" ? row.fate : row.isHeld ? row.first : row.first === "passed" ? "" : row.first === "held" ? "" : row.first;
  const meaning = row.type !== "pkt" ? "" : row.e.probe ? "probe" : row.e.win === 0 && row.e.flags === "ACK" ? "window 0"
    : row.e.opens ? "window opens" : "";
  const data = row.type === "pkt" ? payload(row.e) : "";
  const shape = row.type === "fate" ? `is-${row.fate}` : row.isHeld ? "is-held" : row.first.startsWith("lost") ? "is-dropped" : `is-${row.first}`;
  return h("li", { class: `row pkt from-${row.from.toLowerCase()} ${shape}`, "data-i": row.i },
    gutter("A", row.A),
    h("div", { class: "lane" },
      h("button", {
        class: "pk", "data-packet": row.type === "pkt" ? row.id : null, onclick: () => app.goTo(row.i), ...focus(row.i),
        onmouseenter: () => app.point(row.i), onmouseleave: () => app.point(null),
      },
      h("span", { class: "label" }, h("span", { class: "vh" }, `${row.from} to ${row.to}: `), h("b", null, packetName(row.e)), " ", row.type === "pkt" ? packetDetail(row.e, app.laneWidth < 260) : "",
        meaning ? h("em", { class: "meaning-tag" }, meaning) : null,
        word ? h("em", null, word) : h("span", { class: "vh" }, ` ${row.first}`)),
      data ? h("span", { class: "data" }, data) : null,
      arrow(row, app.laneWidth)),
      row.isHeld && app.canDecide() ? decisions(app, row) : null),
    gutter("B", row.B));
}

const DECISIONS = [["deliver", "Deliver", "d"], ["drop", "Drop", "x"], ["duplicate", "Twice", "u"]];

function decisions(app, row) {
  const name = packetName(row.e);
  return h("div", { class: "acts" }, DECISIONS.map(([what, text, key]) => h("button", {
    class: `act ${what}`, "aria-keyshortcuts": key,
    "aria-label": what === "duplicate" ? `Deliver ${name} from ${row.from} twice` : `${text} ${name} from ${row.from}`,
    onclick: event => { event.stopPropagation(); app.decide(row.id, what); },
    onfocus: () => app.point(row.i), onblur: () => app.point(null),
  }, text)));
}

function signature(app, row) {
  const chips = list => list.map(chip => `${chip.st}${app.moment.label(chip.ck)}`).join();
  switch (row.type) {
    case "fold": return `${row.rows.length}${row.isOpen}`;
    case "call": case "ret": return `${row.ret && row.ret.i} ${chips(row.states)} ${row.type === "call" && app.isBlocked(row.id)} ${row.later}`;
    case "state": return chips(row.states);
    case "note": return "";
    default: return `${row.fate} ${row.isHeld} ${app.laneWidth} ${app.canDecide()} ${chips(row.A)} ${chips(row.B)}`;
  }
}

function renderLadder(app) {
  const list = $("ladder");
  const rows = ladderRows(app);
  sync(list, rows.map(row => ({ key: row.key, sig: signature(app, row), make: () => rowElement(app, row) })));
  const isWired = app.recording.meta && app.recording.meta.tier !== "loopback";
  setText($("ladder-empty"), rows.length ? "" : "No call was made yet. Press Step.");
  $("ladder-empty").hidden = rows.length > 0;
  const held = app.moment.held.size;
  const wire = !isWired ? "no wire: packets cannot be seen" : held ? `the wire holds ${plural(held, "packet")}` : "";
  setText($("wire"), wire);
  $("wire").classList.toggle("holds", held > 0);
  for (const host of ["A", "B"]) {
    const calls = app.moment.blocked(host).filter(call => app.isBlocked(call.call.id));
    setText($(`busy-${host}`), calls.length ? `${calls.map(call => `${call.call.fn}()`).join(", ")} blocks` : "");
    $(`busy-${host}`).hidden = !calls.length;
  }
}
