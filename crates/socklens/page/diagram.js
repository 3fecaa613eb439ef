// The diagram of the eleven states of TCP, with the sockets of both hosts on it.

const PLACES = {
  wide: {
    size: [500, 300], box: [104, 28],
    at: { "CLOSED": [250, 18], "LISTEN": [112, 62], "SYN-SENT": [388, 62], "SYN-RECV": [112, 114], "ESTABLISHED": [250, 146],
      "FIN-WAIT-1": [76, 202], "CLOSING": [250, 202], "CLOSE-WAIT": [424, 202], "FIN-WAIT-2": [76, 262],
      "TIME-WAIT": [250, 262], "LAST-ACK": [424, 262] },
    far: { "LAST-ACK>CLOSED": [[424, 276], [424, 294], [493, 294], [493, 18], [304, 18]],
      "TIME-WAIT>CLOSED": [[250, 276], [250, 294], [7, 294], [7, 18], [196, 18]] },
  },
  tall: {
    size: [358, 430], box: [106, 30],
    at: { "CLOSED": [179, 20], "LISTEN": [70, 74], "SYN-SENT": [288, 74], "SYN-RECV": [70, 138], "ESTABLISHED": [179, 190],
      "FIN-WAIT-1": [66, 256], "CLOSING": [179, 306], "CLOSE-WAIT": [292, 256], "FIN-WAIT-2": [66, 356],
      "TIME-WAIT": [179, 400], "LAST-ACK": [292, 356] },
    far: { "LAST-ACK>CLOSED": [[345, 356], [354, 356], [354, 20], [232, 20]],
      "TIME-WAIT>CLOSED": [[126, 400], [4, 400], [4, 20], [126, 20]] },
  },
};

const EDGES = ["CLOSED>LISTEN", "CLOSED>SYN-SENT", "LISTEN>SYN-RECV", "SYN-SENT>SYN-RECV", "SYN-SENT>ESTABLISHED",
  "SYN-RECV>ESTABLISHED", "ESTABLISHED>FIN-WAIT-1", "ESTABLISHED>CLOSE-WAIT", "FIN-WAIT-1>FIN-WAIT-2",
  "FIN-WAIT-1>CLOSING", "FIN-WAIT-1>TIME-WAIT", "FIN-WAIT-2>TIME-WAIT", "CLOSING>TIME-WAIT", "CLOSE-WAIT>LAST-ACK",
  "LAST-ACK>CLOSED", "TIME-WAIT>CLOSED"];

// The part of the line between two centres that lies outside of their boxes.
function between([x1, y1], [x2, y2], [w, h]) {
  const edge = (dx, dy) => {
    const t = Math.min(dx ? (w / 2 + 2) / Math.abs(dx) : Infinity, dy ? (h / 2 + 2) / Math.abs(dy) : Infinity);
    return [dx * t, dy * t];
  };
  const [ox, oy] = edge(x2 - x1, y2 - y1);
  return [[x1 + ox, y1 + oy], [x2 - ox, y2 - oy]];
}

const EDGE_OF_GONE = { "LAST-ACK": "LAST-ACK>CLOSED", "TIME-WAIT": "TIME-WAIT>CLOSED" };

function renderDiagram(app) {
  const { shape } = app;
  const place = PLACES[shape];
  const [w, hgt] = place.box;
  const sockets = [...app.moment.sockets.values()].filter(socket => socket.proto === "tcp" && socket.host && place.at[socket.st] &&
    (socket.hasRow || !socket.closed) && !(socket.gone && !socket.names.length));
  const last = app.moment.last;
  const edge = last && (last.to === "GONE" ? EDGE_OF_GONE[last.from] : `${last.from}>${last.to}`);
  const sig = shape + sockets.map(socket => `${socket.ck}${socket.st}${socket.names}`).join() + edge;
  const host = $("diagram");
  if (host.dataset.sig === sig) return;
  host.dataset.sig = sig;

  if (host.dataset.shape !== shape) {
    host.dataset.shape = shape;
    const marker = (id, cls) => s("marker", { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" },
      s("path", { d: "M0 0 L8 4 L0 8 z", class: cls }));
    host.replaceChildren(s("svg", { viewBox: `0 0 ${place.size[0]} ${place.size[1]}`, role: "img", "aria-labelledby": "diagram-text" },
      s("title", { id: "diagram-text" }, "States"),
      s("defs", null, marker("tip", "tip"), marker("tip-a", "tip a"), marker("tip-b", "tip b")),
      s("g", { class: "edges" }, EDGES.map(name => {
        const [from, to] = name.split(">");
        const points = place.far[name] || between(place.at[from], place.at[to], place.box);
        return s("polyline", { points: points.map(point => point.join()).join(" "), "data-edge": name, "marker-end": "url(#tip)" });
      })),
      s("g", { class: "boxes" }, STATES.map(state => {
        const [x, y] = place.at[state];
        return s("g", { class: "box", "data-state": state }, s("rect", { x: x - w / 2, y: y - hgt / 2, width: w, height: hgt, rx: 7 }),
          s("text", { x, y: y + 4.5 }, state));
      })),
      s("g", { class: "tokens" })));
  }
  for (const node of host.querySelectorAll("[data-edge]")) {
    const isLast = node.dataset.edge === edge;
    node.setAttribute("class", isLast ? `last ${last.host === "A" ? "a" : "b"}` : "");
    node.setAttribute("marker-end", isLast ? `url(#tip-${last.host.toLowerCase()})` : "url(#tip)");
  }
  const inState = new Map();
  for (const socket of sockets) inState.set(socket.st, [...(inState.get(socket.st) || []), socket]);
  for (const node of host.querySelectorAll(".box")) {
    const here = inState.get(node.dataset.state) || [];
    const on = name => here.some(socket => socket.host === name);
    node.setAttribute("class", `box ${on("A") && on("B") ? "both" : on("A") ? "a" : on("B") ? "b" : ""}`);
  }
  // A is a circle, B is a square, so that colour is not the only difference.
  const tokens = [];
  for (const [state, here] of inState) {
    const [x, y] = place.at[state];
    const shown = here.slice(0, 4);
    shown.forEach((socket, n) => {
      const name = n === 3 && here.length > 4 ? `+${here.length - 3}` : socket.names[0] || "?";
      const wide = Math.max(22, 9 + 8 * name.length);
      const isA = socket.host === "A";
      const left = x - w / 2 + 4 + n * (wide + 3) - (shown.length > 3 ? 4 : 0);
      tokens.push({ key: n === 3 && here.length > 4 ? `more${state}` : socket.ck, sig: `${name}${socket.host}`, x: left, y: y + hgt / 2 - 1, wide, isA, name });
    });
  }
  sync(host.querySelector(".tokens"), tokens.map(token => ({
    key: token.key, sig: token.sig,
    make: () => s("g", { class: `token ${token.isA ? "a" : "b"}` },
      s("rect", { x: 0, y: -3, width: token.wide, height: 19, rx: token.isA ? 9.5 : 2 }), s("text", { x: token.wide / 2, y: 11 }, token.name)),
  })));
  const nodes = host.querySelector(".tokens").children;
  tokens.forEach((token, n) => { nodes[n].style.transform = `translate(${token.x}px, ${token.y}px)`; });
  const text = sockets.map(socket => `${socket.names[0] || "a connection"} of ${socket.host} is in ${socket.st}`).join("; ") || "no TCP socket";
  setText(host.querySelector("title"), text);
  const words = last && CHANGES[`${last.from}>${last.to}`];
  const to = last && (last.to === "GONE" ? "gone" : last.to);
  setText($("change"), last ? `${app.moment.label(last.ck)}: ${last.from} \u2192 ${to}. ${words || STATE_WORDS[last.to] || ""}`
    : sockets.length ? "" : "No TCP socket yet. Sockets of A are round, those of B are square.");
}
