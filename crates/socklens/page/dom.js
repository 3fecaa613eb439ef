// Elements, and lists of elements that are changed in place, so that the focus stays.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.setAttribute("class", value);
    else if (name in node && typeof value === "boolean") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child);
  }
  return node;
}

const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
const $ = id => document.getElementById(id);

// Makes the children of `parent` those of `items`: { key, sig, make }.
function sync(parent, items) {
  const old = new Map();
  for (const child of [...parent.children]) {
    if (child.itemKey === undefined) child.remove();
    else old.set(child.itemKey, child);
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    let node = old.get(item.key), hadFocus = false;
    if (node && node.itemSig === item.sig) {
      old.delete(item.key);
    } else {
      const fresh = item.make();
      fresh.itemKey = item.key;
      fresh.itemSig = item.sig;
      if (node) {
        hadFocus = node.contains(document.activeElement);
        old.delete(item.key);
        if (place === node) place = node.nextElementSibling;
        node.replaceWith(fresh);
      }
      node = fresh;
    }
    if (place === node) place = node.nextElementSibling;
    else if (node.parentNode !== parent || node.nextElementSibling !== place) parent.insertBefore(node, place);
    // An element that is inserted again loses the focus.
    if (hadFocus) (node.matches("button") ? node : node.querySelector("button, summary"))?.focus({ preventScroll: true });
  }
  for (const rest of old.values()) rest.remove();
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Scrolls within a pane only, and only if the element is not in sight.
function reveal(pane, node) {
  if (!node) return;
  if (pane.scrollHeight <= pane.clientHeight + 1) {
    // A narrow page scrolls as a whole.
    if (matchMedia("(max-width: 679.98px)").matches && node.getClientRects().length) node.scrollIntoView({ block: "nearest" });
    return;
  }
  const outer = pane.getBoundingClientRect(), inner = node.getBoundingClientRect();
  const margin = Math.min(64, outer.height / 4);
  if (inner.bottom > outer.bottom - margin) pane.scrollTop += inner.bottom - outer.bottom + margin;
  else if (inner.top < outer.top + margin) pane.scrollTop -= outer.top + margin - inner.top;
}
