// The page: one cursor for all panes, and what moves it.

const WAITING_CALLS = new Set(["connect", "accept", "recv", "recvfrom", "recvmsg", "recv_fds", "run", "accept4", "read",
  "readv", "poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2"]);

const ICONS = {
  reset: "M3.5 8a4.5 4.5 0 1 0 1.3-3.2M3 2v3.2h3.2",
  back: "M10 3 5 8l5 5",
  step: "M6 3l5 5-5 5",
  line: "M3 3l5 5-5 5M8.5 3l5 5-5 5",
  run: "M4 2.5v11l9-5.5z",
  pause: "M5 3v10M11 3v10",
};

class App {
  constructor(boot, recording) {
    this.boot = boot;
    this.mode = boot.mode;
    this.unfolded = new Set();
    this.opened = new Set();
    this.speed = 1;
    this.laneWidth = 240;
    this.shape = "wide";
    this.pointed = null;
    this.frame = null;
    this.player = null;
    this.busy = false;
    this.marks = [];
    this.use(recording);
    this.controls();
    if (this.mode === "live") {
      this.live = new Live(this, boot.token);
      this.lessons();
      this.live.open();
    } else {
      this.show("lesson");
      this.seek(0);
    }
    setInterval(() => this.tick(), 100);
    const observer = new ResizeObserver(() => { if (this.measure()) this.draw(); });
    for (const id of ["panes", "ladder", "diagram"]) observer.observe($(id));
  }

  use(recording) {
    this.recording = recording;
    this.moment = new Moment(recording);
    this.hosts = hostsOfNames(recording.source);
    this.playing = false;
    this.offset = null;
    this.unfolded.clear();
    this.opened.clear();
    clearTimeout(this.player);
    this.player = null;
    for (const id of ["calls", "ladder", "kernel-A", "kernel-B", "intro"]) $(id).replaceChildren();
  }

  get cursor() { return this.moment.cursor; }
  get end() { return this.recording.events.length; }
  atEnd() { return this.cursor >= this.end; }

  // The events of the moment before the cursor.
  span() {
    let from = 0;
    for (const stop of this.recording.stops()) {
      if (stop >= this.cursor) break;
      from = stop;
    }
    return [from, this.cursor];
  }

  // The moment that is described: not one in which a kernel only sends again while a student reads.
  storySpan() {
    let [from, to] = this.span();
    let repeats = 0;
    if (this.mode === "live" && this.atEnd()) {
      const stops = this.recording.stops();
      let place = stops.indexOf(from);
      while (place > 0 && this.recording.isRepeat(from, to)) {
        to = from;
        from = stops[--place];
        repeats++;
      }
    }
    return { from, to, repeats };
  }

  now() {
    if (this.mode === "live" && this.atEnd() && this.offset !== null) return performance.now() / 1000 - this.offset;
    return this.moment.time;
  }

  isBlocked(id) {
    const open = this.moment.calls.get(id);
    if (!open || open.ret) return false;
    const { ret } = this.recording.callsById.get(id);
    return WAITING_CALLS.has(open.call.fn) || !ret || ret.us > 20000;
  }

  scaleOf(ck) {
    let most = 0;
    for (const e of this.recording.events) if (e.k === "kern" && e.ck === ck) most = Math.max(most, e.rq, e.wq);
    return Math.max(16, most * 1.25);
  }

  // ---- Moving the cursor

  seek(cursor) {
    this.moment.seek(Math.max(0, Math.min(cursor, this.end)));
    this.pointed = null;
    this.draw();
  }

  forward(byLine) {
    const cursor = this.cursor;
    if (byLine) {
      const next = this.recording.events.findIndex((e, i) => i > cursor && e.k === "line");
      return next < 0 ? this.end : next;
    }
    return this.recording.stops().find(stop => stop > cursor) ?? this.end;
  }

  step(byLine) {
    this.pause();
    if (!this.atEnd()) this.seek(this.forward(byLine));
    else if (this.mode === "live") this.command("step");
  }

  back() {
    this.pause();
    const stops = this.recording.stops();
    this.seek([...stops].reverse().find(stop => stop < this.cursor) ?? 0);
  }

  isFinished() {
    return this.mode === "replay" || Boolean(this.recording.ended) || this.next() === null;
  }

  // The number of the line before which a lesson waits; null at its end.
  next() {
    if (this.recording.ofPrograms) {
      const [held] = this.recording.heldCalls;
      if (held !== undefined) return held;
    }
    for (let i = this.end - 1; i >= 0; i--) {
      if (this.recording.events[i].k === "paused") return this.recording.events[i].next;
      if (this.recording.events[i].k === "line") return undefined;
    }
    return undefined;
  }

  run() {
    if (this.playing) { this.pause(); return; }
    if (this.atEnd() && this.isFinished()) {
      if (this.mode === "live") return;
      this.seek(0);
    }
    this.playing = true;
    if (this.mode === "live" && !this.isFinished()) this.command("run");
    this.play();
    this.draw();
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    clearTimeout(this.player);
    this.player = null;
    if (this.mode === "live" && !this.isFinished()) this.command("pause");
    this.draw();
  }

  // Plays a recording at a pace for readers: most events are microseconds apart.
  play() {
    clearTimeout(this.player);
    this.player = null;
    if (!this.playing) return;
    if (this.atEnd()) {
      if (this.isFinished()) { this.playing = false; this.draw(); }
      return;
    }
    this.seek(this.speed === 0 ? this.end : this.forward(false));
    const quiet = !narrate(this).said.length && !narrate(this).changes.length;
    this.player = setTimeout(() => this.play(), (quiet ? 120 : 1100) / (this.speed || 10));
  }

  goTo(index) {
    if (index === null || index === undefined || index < 0) return;
    this.pause();
    this.seek(this.recording.stops().find(stop => stop > index) ?? this.end);
  }

  goToLine(number) {
    const events = this.recording.events;
    const begin = events.findIndex(e => e.k === "line" && e.line === number);
    if (begin < 0) {
      if (this.canRunTo()) this.command(`until/${number}`);
      return;
    }
    this.pause();
    const next = events.findIndex((e, i) => i > begin && e.k === "line");
    this.seek(next < 0 ? this.end : next);
  }

  isFuture(number) {
    return !this.recording.begun.has(number);
  }

  canRunTo() { return this.mode === "live" && !this.isFinished(); }
  canDecide() { return this.mode === "live" && this.atEnd() && !this.recording.ended; }

  // ---- The server

  async command(what) {
    this.busy = true;
    await this.live.post(what);
    this.busy = false;
  }

  decide(id, what) {
    performance.mark("decided");
    this.keepFocus = id;
    this.command(`packet/${id}/${what}`);
  }

  restart(run) {
    this.use(new Recording());
    if (run.name === null) { this.show("home"); return; }
    this.show("lesson");
    this.banner("");
    this.draw();
  }

  arrive(event) {
    const wasAtEnd = this.atEnd();
    this.recording.add(event);
    if (event.k === "source") {
      this.hosts = hostsOfNames(this.recording.source);
      this.export.update();
    }
    if (event.t !== undefined) {
      const offset = performance.now() / 1000 - event.t;
      this.offset = this.offset === null ? offset : Math.min(this.offset, offset);
    }
    if (event.k === "notrun") this.banner(`This lesson cannot run here: ${event.text}`);
    if (event.k === "end" && event.text) this.banner(event.text);
    if (this.playing) {
      if (this.player === null) this.player = setTimeout(() => this.play(), 0);
    } else if (wasAtEnd) {
      this.moment.seek(this.end);
    }
    this.draw();
  }

  connected(isConnected) {
    document.body.classList.toggle("lost", !isConnected);
    if (!isConnected) this.banner("The connection to socklens is lost. The page tries again; the lesson continues where it was.", true);
    else if ($("banner").dataset.lost) this.banner("");
  }

  refused(text) { this.banner(text); }

  banner(text, isLost) {
    $("banner").hidden = !text;
    setText($("banner"), text);
    isLost ? $("banner").dataset.lost = "yes" : delete $("banner").dataset.lost;
  }

  // ---- Drawing

  // Measures only when a size changes: each measurement while drawing would lay the page out once more.
  measure() {
    const list = $("ladder");
    const gutter = parseFloat(getComputedStyle(list).getPropertyValue("--gutter")) || 84;
    const lane = list.clientWidth ? Math.max(120, Math.floor(list.clientWidth - 2 * gutter - 4)) : this.laneWidth;
    const shape = $("diagram").clientWidth ? ($("diagram").clientWidth >= 400 ? "wide" : "tall") : this.shape;
    const isChanged = lane !== this.laneWidth || shape !== this.shape;
    this.laneWidth = lane;
    this.shape = shape;
    return isChanged;
  }

  show(which) {
    this.page = which;
    $("home-page").hidden = which !== "home";
    $("lesson-page").hidden = which !== "lesson";
    $("controls").hidden = $("extras").hidden = which !== "lesson";
    $("home").hidden = which !== "lesson" || this.mode !== "live";
    document.body.dataset.page = which;
    this.measure();
    if (which === "home") {
      setText($("file"), "socklens");
      setText($("title"), "See what sockets do");
      document.title = "socklens";
    }
  }

  draw() {
    if (this.frame === null) {
      this.frame = requestAnimationFrame(() => { this.frame = null; this.paint(); });
    }
  }

  paint() {
    if (this.page !== "lesson") return;
    const { source, meta } = this.recording;
    setText($("file"), source.name || "socklens");
    setText($("title"), source.title || source.name || "socklens");
    document.title = source.name ? `${source.name} - socklens` : "socklens";
    renderIntro(this);
    renderCalls(this);
    renderLadder(this);
    renderKernel(this);
    renderDiagram(this);
    renderStory(this);
    this.ending();
    this.buttons();
    this.mark();
    if (this.pointed === null) this.follow();
    if (this.keepFocus !== undefined && document.activeElement === document.body) {
      document.querySelector(`[data-packet="${this.keepFocus}"]`)?.focus({ preventScroll: true });
      this.keepFocus = undefined;
    }
    if (meta) document.body.dataset.tier = meta.tier;
    this.painted = this.cursor;
  }

  buttons() {
    const isOver = this.atEnd() && this.isFinished();
    const set = (id, icon, text, key) => {
      const sig = icon + text;
      const button = $(id);
      if (button.dataset.sig === sig) return;
      button.dataset.sig = sig;
      button.setAttribute("aria-keyshortcuts", key);
      button.title = `${text} (key ${key})`;
      button.replaceChildren(s("svg", { viewBox: "0 0 16 16", width: 15, height: 15, "aria-hidden": "true", class: icon === "run" ? "solid" : "" },
        s("path", { d: ICONS[icon] })), h("span", null, text));
    };
    set("reset", "reset", "Reset", "0");
    set("back", "back", "Back", "b");
    set("step", "step", "Step", "s");
    set("line", "line", "Next line", "l");
    set("run", this.playing ? "pause" : "run", this.playing ? "Pause" : "Run", "r");
    const running = this.mode === "live" && this.atEnd() && this.next() === undefined;
    $("back").disabled = this.cursor === 0;
    $("reset").disabled = this.mode === "replay" && this.cursor === 0;
    $("step").disabled = $("line").disabled = isOver || running;
    $("run").disabled = this.mode === "live" && isOver;
    const stops = this.recording.stops();
    const at = stops.filter(stop => stop < this.cursor).length;
    const position = $("position");
    position.max = String(stops.length);
    position.value = String(at);
    position.setAttribute("aria-valuetext", `moment ${at} of ${stops.length}, ${seconds(this.moment.time * 1000)} after the start`);
    setText($("position-text"), `${at} of ${stops.length}`);
  }

  ending() {
    const box = $("ending");
    const isOver = this.atEnd() && this.end > 0 && this.isFinished();
    box.hidden = !isOver;
    if (!isOver || box.dataset.for === String(this.end)) return;
    box.dataset.for = String(this.end);
    const checks = this.recording.events.filter(e => e.k === "expect");
    const wrong = checks.filter(e => !e.ok).length;
    const parts = [h("p", null, h("b", null, "The end. "),
      checks.length ? `${plural(checks.length - wrong, "check")} true${wrong ? `, ${wrong} not` : ""}.` : "")];
    if (wrong && this.mode === "live") {
      parts.push(h("p", null, "A check can be untrue because packets were decided by hand, or because the kernel's timers went on between two steps. Reset starts again."));
    }
    if (this.mode === "live") {
      const token = encodeURIComponent(this.boot.token);
      const link = (extension, text) => h("a", { href: `session.${extension}?token=${token}`, download: `${this.recording.source.name}.${extension}` }, text);
      parts.push(h("p", null, "Keep it: ", link("html", "this page as a file"), ", ", link("jsonl", "the recording"), ", ",
        link("pcapng", "the packets for Wireshark"), "."));
    }
    box.replaceChildren(...parts);
  }

  // Marks what belongs to the entry under the pointer or the focus, and to the cursor.
  mark() {
    const { recording } = this;
    const { from, to } = this.storySpan();
    const current = new Set();
    for (let i = from; i < to; i++) current.add(i);
    let related = new Set();
    if (this.pointed !== null) related = recording.related(this.pointed);
    else {
      const main = [...current].find(i => ["pkt", "fate", "call", "ret"].includes(recording.events[i].k));
      if (main !== undefined) related = recording.related(main);
    }
    const cookies = set => new Set([...set].map(i => recording.events[i]).filter(e => e && (e.k === "kern" || e.k === "gone")).map(e => e.ck));
    const relatedCookies = cookies(related), currentCookies = cookies(current);
    for (const node of document.querySelectorAll("[data-i]")) {
      const own = node.dataset.i.split(" ").map(Number);
      node.classList.toggle("rel", own.some(i => related.has(i)));
      node.classList.toggle("cur", own.some(i => current.has(i)));
    }
    for (const node of document.querySelectorAll("[data-ck]")) {
      node.classList.toggle("rel", relatedCookies.has(node.dataset.ck));
      node.classList.toggle("cur", currentCookies.has(node.dataset.ck));
    }
    document.body.classList.toggle("pointing", this.pointed !== null);
  }

  point(index) {
    if (this.pointed === index) return;
    this.pointed = index;
    this.mark();
  }

  // Keeps the present of each pane in sight.
  follow() {
    reveal($("calls-scroll"), $("calls").querySelector(".now"));
    const rows = $("ladder").children;
    const current = $("ladder").querySelectorAll(".row.cur");
    reveal($("ladder-scroll"), current[current.length - 1] || rows[rows.length - 1]);
    reveal($("kernel-scroll"), document.querySelector(".card.cur"));
  }

  tick() {
    if (this.page === "lesson" && this.mode === "live" && this.atEnd() && !this.recording.ended) renderTimers(this);
  }

  toggleFold(key) {
    this.unfolded.has(key) ? this.unfolded.delete(key) : this.unfolded.add(key);
    this.draw();
  }

  // ---- Controls

  controls() {
    $("reset").onclick = () => this.resetAll();
    $("back").onclick = () => this.back();
    $("step").onclick = () => this.step(false);
    $("line").onclick = () => this.step(true);
    $("run").onclick = () => this.run();
    $("home").onclick = () => { this.pause(); this.show("home"); $("home-page").querySelector("button")?.focus(); };
    $("speed").onchange = event => { this.speed = Number(event.target.value); if (this.playing) this.play(); };
    $("position").oninput = event => {
      this.pause();
      const at = Number(event.target.value);
      this.seek(at === 0 ? 0 : this.recording.stops()[at] ?? this.end);
    };
    for (const tab of document.querySelectorAll("[data-tab]")) {
      if (tab.tagName === "BUTTON") tab.onclick = () => this.tab(tab.dataset.tab);
    }
    this.export = new Export(this);
    this.helpBody();
    $("help").onclick = () => $("help-box").showModal();
    $("help-close").onclick = () => $("help-box").close();
    document.addEventListener("keydown", event => this.key(event));
  }

  tab(name) {
    $("panes").dataset.tab = name;
    for (const tab of document.querySelectorAll("button[data-tab]")) tab.setAttribute("aria-pressed", String(tab.dataset.tab === name));
    this.draw();
  }

  resetAll() {
    this.pause();
    if (this.mode === "live") this.command("reset");
    else this.seek(0);
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]") || !$("keys-on").checked) return;
    const isField = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "?") { $("help-box").showModal(); event.preventDefault(); return; }
    if (isField || this.page !== "lesson") return;
    const decision = DECISIONS.find(([, , key]) => key === event.key);
    if (decision) {
      const focused = Number(document.activeElement?.dataset?.packet);
      const id = this.moment.held.has(focused) ? focused : [...this.moment.held.keys()][0];
      if (id !== undefined && this.canDecide()) this.decide(id, decision[0]);
      event.preventDefault();
      return;
    }
    const actions = { s: () => this.step(false), ArrowRight: () => this.step(false), l: () => this.step(true), b: () => this.back(),
      ArrowLeft: () => this.back(), r: () => this.run(), "0": () => this.resetAll(), e: () => this.export.open() };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    if (event.key === "s" && $("step").disabled || event.key === "l" && $("line").disabled) return;
    action();
  }

  helpBody() {
    const row = (what, text) => h("tr", null, h("th", { scope: "row" }, what), h("td", null, text));
    $("help-body").replaceChildren(
      h("p", null, "Host A and host B are two hosts with a wire between them. A program on each calls socket functions. All panes show the same moment; point at an entry, or move the focus to it, and what belongs to it is marked in the other panes."),
      h("table", null, h("caption", null, "Panes"), h("tbody", null,
        row("Calls", "The lines that run. A blocked call is yellow: the program waits in it, and does nothing else. Select a line to go there."),
        row("Packets", "Each arrow is a packet. A held packet stops in the middle of the wire until it is delivered, dropped or delivered twice. Beside it: the states that changed with it. Several similar packets are one row; show expands it."),
        row("Kernel", "The sockets of each host, as the kernel knows them: state, bytes that wait in the queues, the number of connections in the accept queue and its limit, running timers, the path of states so far, and all values of TCP_INFO. They stay for a socket that is gone: the kernel reports the last ones when it frees it. A SYN and a FIN count as one byte."),
        row("States", "The eleven states of a TCP connection. Sockets of A are round, those of B are square."))),
      h("table", null, h("caption", null, "Keys"), h("tbody", null,
        row("s or \u2192", "step: one moment"), row("l", "next line"), row("b or \u2190", "back"), row("r", "run, pause"), row("0", "reset"),
        ...(this.mode === "live" ? [row("d", "deliver the held packet that has the focus, or the oldest"), row("x", "drop it"), row("u", "deliver it twice")] : []),
        row("e", "export: the calls of a lesson as a program"), row("?", "this help"))));
  }

  // ---- The list of lessons

  lessons() {
    const lists = $("lesson-lists");
    let number = 0;
    const groups = [["programs", "Your programs"], ["your", "Your scenario"], ["first", "Start here, in this order"], ["more", "More lessons"]];
    for (const [group, title] of groups) {
      const lessons = this.boot.lessons.filter(lesson => lesson.group === group);
      if (!lessons.length) continue;
      lists.append(h("h3", null, title), h("ol", { class: "lessons" }, lessons.map(lesson => {
        const index = number++;
        return h("li", null, h("button", { onclick: () => this.command(`lesson/${index}`) },
          h("span", { class: "n" }, String(number)), h("span", { class: "t" }, lesson.title || lesson.name),
          h("span", { class: "f" }, lesson.name)));
      })));
    }
  }
}

function start() {
  const boot = JSON.parse($("boot").textContent);
  const recording = new Recording();
  for (const line of $("recording").textContent.split("\n")) if (line.trim()) recording.add(JSON.parse(line));
  window.app = new App(boot, recording);
}

start();
