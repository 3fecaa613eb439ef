// What the tests of the page share: the server, the browser, and small waits with a limit.
import { spawn, execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { chromium } from "playwright-core";

export const folder = new URL(".", import.meta.url).pathname;
export const socklens = process.env.SOCKLENS;
const LIMIT = 10_000;

export function assert(isTrue, text) {
  if (!isTrue) throw new Error(text);
}

export function equal(seen, wanted, what) {
  assert(JSON.stringify(seen) === JSON.stringify(wanted), `${what}: ${JSON.stringify(seen)} instead of ${JSON.stringify(wanted)}`);
}

// A server with its address.
export async function serve(...args) {
  const child = spawn(socklens, ["serve", ...args], { stdio: ["ignore", "pipe", "inherit"] });
  const url = await new Promise((resolve, reject) => {
    let text = "";
    const timer = setTimeout(() => reject(new Error("the server prints no address")), LIMIT);
    child.stdout.on("data", data => {
      text += data;
      const match = text.match(/http:\/\/\S+/);
      if (match) { clearTimeout(timer); resolve(new URL(match[0])); }
    });
    child.on("exit", code => reject(new Error(`the server has ended with ${code}`)));
  });
  return { url, token: url.searchParams.get("token"), child, end: () => child.kill("SIGKILL") };
}

// The address of a replay of a built-in scenario, or of a text.
export function replay(name, scenario) {
  const file = `${folder}${name}.html`;
  if (scenario) writeFileSync(`${folder}${name}.scn`, scenario);
  execFileSync(socklens, ["run", scenario ? `${folder}${name}.scn` : name, "--quiet", "--html", file], { timeout: 60_000, stdio: ["ignore", "ignore", "inherit"] });
  return `file://${file}`;
}

// The address of a replay of programs on the hosts.
export function watched(name, ...args) {
  const file = `${folder}${name}.html`;
  execFileSync(socklens, ["watch", ...args, "--quiet", "--html", file], { timeout: 60_000, stdio: ["ignore", "ignore", "inherit"] });
  return `file://${file}`;
}

// A raw request, with the headers of the test and no others.
export function request(server, { method = "GET", path, headers = {} }) {
  return new Promise((resolve, reject) => {
    const all = { Host: server.url.host, ...headers };
    const sent = http.request({ host: "127.0.0.1", port: server.url.port, method, path, headers: all, setHost: false, timeout: LIMIT }, answer => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode));
    });
    sent.on("error", reject);
    sent.end();
  });
}

// A relay in front of the server that can lose all connections. It replaces its own authority in
// requests, which have no bodies, by that of the server.
export async function relay(server) {
  const pairs = new Set();
  let isDown = false;
  // After how many bytes the next streams of events are lost.
  let limits = [], lost = 0;
  const listener = net.createServer(client => {
    if (isDown) { client.destroy(); return; }
    const upstream = net.connect(Number(server.url.port), "127.0.0.1");
    const pair = [client, upstream];
    pairs.add(pair);
    for (const [from, to] of [pair, [...pair].reverse()]) {
      from.on("error", () => {});
      from.on("close", () => { to.destroy(); pairs.delete(pair); });
    }
    client.on("data", data => upstream.write(data.toString("latin1").replaceAll(`127.0.0.1:${listener.address().port}`, server.url.host), "latin1"));
    upstream.on("end", () => client.end());
    let passed = 0, isStream = false, limit = Infinity;
    upstream.on("data", data => {
      // A connection can have carried the page before.
      if (!isStream && /content-type: text\/event-stream/i.test(data.toString("latin1"))) {
        isStream = true;
        passed = 0;
        limit = limits.shift() ?? Infinity;
      }
      const rest = isStream ? limit - passed : Infinity;
      passed += data.length;
      if (!client.write(data.subarray(0, Math.min(data.length, rest)))) {
        upstream.pause();
        client.once("drain", () => upstream.resume());
      }
      if (passed >= limit) {
        limit = Infinity;
        lost++;
        upstream.pause();
        // What was written arrives before the end.
        client.end(() => pair.forEach(socket => socket.destroy()));
      }
    });
  });
  await new Promise(resolve => listener.listen(0, "127.0.0.1", resolve));
  const cut = () => { for (const pair of pairs) pair.forEach(socket => socket.destroy()); };
  return {
    url: new URL(`http://127.0.0.1:${listener.address().port}/?token=${server.token}`),
    down: () => { isDown = true; cut(); },
    up: () => { isDown = false; },
    loseAfter: bytes => { limits = bytes; },
    lost: () => lost,
    end: () => { listener.close(); cut(); },
  };
}

export async function launch() {
  return chromium.launch({ executablePath: process.env.SOCKLENS_CHROMIUM, args: ["--no-sandbox"] });
}

// A page whose errors fail the test.
export async function open(browser, url, { width = 1280, scheme = "light" } = {}) {
  const height = width < 500 ? 844 : width < 1000 ? 1024 : 800;
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, hasTouch: width < 500 });
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT);
  page.problems = [];
  page.requests = [];
  page.on("pageerror", error => page.problems.push(error.stack));
  page.on("console", message => { if (message.type() === "error") page.problems.push(message.text()); });
  page.on("request", sent => page.requests.push(sent.url()));
  await page.goto(String(url));
  return page;
}

export const shot = (page, name) => page.screenshot({ path: `${folder}${name}.png` });

// Texts of the panes.
export const text = (page, selector) => page.locator(selector)
  .evaluateAll(nodes => nodes.map(node => node.innerText ?? node.textContent).join(" | ").replace(/\s+/g, " "));

export async function sees(page, selector, wanted) {
  const end = Date.now() + LIMIT;
  for (;;) {
    const seen = await text(page, selector);
    if (wanted instanceof RegExp ? wanted.test(seen) : seen.includes(wanted)) return seen;
    if (Date.now() > end) throw new Error(`${selector} has no ${wanted}: ${seen}`);
    await page.waitForTimeout(10);
  }
}

// Starts a lesson of the list by its name.
export async function lesson(page, name) {
  // The same lesson may have run before, up to any line.
  await page.evaluate(() => { window.recordingBefore = app.recording; });
  await page.locator(`.lessons button:has(.f:text-is("${name}"))`).click();
  await page.waitForFunction(() => app.recording !== window.recordingBefore && app.next() !== undefined);
  await sees(page, "#file", name);
}

// Runs the lesson up to a line.
export async function until(page, line) {
  await page.locator(`[data-line="${line}"] button.code`).click();
  await page.waitForFunction(n => app.next() === n, line);
}

// Where a wheel or a finger cannot get out of: panes in panes, panes that keep the page from scrolling,
// and what cannot be scrolled into sight.
export async function scrollTraps(page) {
  const { problems, panes } = await page.evaluate(() => {
    const root = document.scrollingElement;
    // Behind a dialog nothing scrolls.
    const dialog = document.querySelector("dialog[open]");
    const canScroll = !dialog && root.scrollHeight > innerHeight + 1 && getComputedStyle(document.body).overflowY !== "hidden";
    const scrolls = node => node.scrollHeight > node.clientHeight + 1 && ["auto", "scroll"].includes(getComputedStyle(node).overflowY);
    const isShown = node => node.checkVisibility() && node.getClientRects().length > 0;
    const nodes = [...document.querySelectorAll("body *")].filter(node => (!dialog || dialog.contains(node)) && isShown(node) && scrolls(node) && node.tagName !== "SELECT");
    const problems = [];
    for (const node of nodes) {
      const name = `${node.tagName.toLowerCase()}#${node.id}`;
      const style = getComputedStyle(node);
      if (nodes.some(other => other !== node && other.contains(node))) problems.push(`${name} scrolls in another pane`);
      if (canScroll && style.overscrollBehaviorY !== "auto") problems.push(`${name} keeps the page from scrolling`);
      if (canScroll && node.clientHeight > innerHeight * 0.7) problems.push(`${name} is ${node.clientHeight} of ${innerHeight} high`);
      if (node.tabIndex < 0 && !node.querySelector("button, a, summary")) problems.push(`${name} cannot be scrolled by keyboard`);
      const { bottom, top } = node.getBoundingClientRect();
      if (!canScroll && (bottom > innerHeight + 1 || top < -1)) problems.push(`${name} is out of sight`);
    }
    return { problems, panes: canScroll ? nodes.map(node => node.id).filter(Boolean) : [] };
  });
  // With the wheel, as a user does it: at the end of a pane the page goes on.
  for (const id of panes) {
    const box = await page.locator(`#${id}`).evaluate(node => {
      document.scrollingElement.scrollTop = 0;
      node.scrollIntoView({ block: "nearest" });
      node.scrollTop = node.scrollHeight;
      const rect = node.getBoundingClientRect();
      return { x: rect.left + rect.width / 2, y: Math.min(rect.bottom, innerHeight) - 8, at: document.scrollingElement.scrollTop,
        isEnd: document.scrollingElement.scrollTop + innerHeight >= document.scrollingElement.scrollHeight - 1 };
    });
    if (box.isEnd) continue;
    await page.mouse.move(box.x, box.y);
    // The page may show the present of a pane meanwhile, so that it is not at its end any more.
    let isMoved = false;
    for (let n = 0; n < 30 && !isMoved; n++) {
      await page.mouse.wheel(0, 300);
      await page.waitForTimeout(30);
      isMoved = await page.evaluate(at => document.scrollingElement.scrollTop > at, box.at);
    }
    if (!isMoved) problems.push(`the wheel over #${id} does not scroll the page`);
  }
  await page.evaluate(() => { document.scrollingElement.scrollTop = 0; });
  return problems;
}

// Elements that stick out of the window, texts that are cut, and buttons that lie on each other.
export function layoutProblems(page) {
  return page.evaluate(() => {
    const problems = [];
    const isShown = node => node.checkVisibility({ checkVisibilityCSS: true }) && node.getClientRects().length > 0;
    const name = node => `${node.tagName.toLowerCase()}#${node.id}.${String(node.getAttribute("class")).replace(/ /g, ".")} "${(node.textContent || "").trim().slice(0, 40)}"`;
    if (document.documentElement.scrollWidth > innerWidth + 1) problems.push(`the page is ${document.documentElement.scrollWidth} wide`);
    const clipped = node => {
      const style = getComputedStyle(node);
      return style.overflowX !== "visible" && style.textOverflow !== "ellipsis" && !style.clipPath.includes("inset") && node.clientWidth > 0 &&
        node.scrollWidth > node.clientWidth + 1;
    };
    for (const node of document.querySelectorAll("body *")) {
      if (!isShown(node) || node.closest("[aria-hidden]") || node.tagName === "SELECT") continue;
      if (clipped(node)) problems.push(`cut: ${name(node)}`);
      const box = node.getBoundingClientRect();
      if (box.width && (box.right > innerWidth + 1 || box.left < -1) && node.children.length === 0) problems.push(`outside: ${name(node)}`);
    }
    const groups = [".acts .act", "#controls button", ".tabs button", ".gutter.a .chip", ".gutter.b .chip", ".card", ".lessons button", ".top > *"];
    for (const group of groups) {
      const boxes = [...document.querySelectorAll(group)].filter(isShown).map(node => [node, node.getBoundingClientRect()]);
      for (let i = 0; i < boxes.length; i++) {
        for (let j = i + 1; j < boxes.length; j++) {
          const [one, a] = boxes[i], [two, b] = boxes[j];
          if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1) problems.push(`overlap: ${name(one)} and ${name(two)}`);
        }
      }
    }
    // A text beside another one must not be squeezed into a narrow column.
    for (const node of [...document.querySelectorAll(".ln code"), document.getElementById("title")]) {
      const lines = node.getClientRects().length && node.offsetHeight / parseFloat(getComputedStyle(node).lineHeight || 20);
      const space = node.closest(".code, .top")?.clientWidth;
      if (isShown(node) && space < 480 && lines > 2.5 && node.offsetWidth < space * 0.55) problems.push(`squeezed: ${name(node)}`);
    }
    // A box of text in the diagram must hold its text.
    for (const box of document.querySelectorAll(".box, .token")) {
      if (!isShown(box)) continue;
      const rect = box.querySelector("rect").getBoundingClientRect(), words = box.querySelector("text").getBoundingClientRect();
      if (words.width > rect.width + 1) problems.push(`diagram: ${box.textContent} is wider than its box`);
    }
    return problems;
  });
}
