// Makes and changes elements. Text is only ever set as text, so nothing that is shown can become markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; `class`, `text` and `on` are what they say. */
export function make(name, attributes = {}, children = []) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for drawings. */
export function draw(name, attributes = {}, children = []) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") element.textContent = value;
    else if (key === "on") element.addEventListener("click", value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** Sets text only where it changed, so that a reader's place and a selection stay. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The same for an attribute; `undefined` takes it away. */
export function mark(element, name, value) {
  if (value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
}

/**
 * Makes the children of `parent` one for each of `items`. Each keeps its element by `key`, so that focus and selection
 * stay where they are; `build` makes a new one, `update` brings one up to date.
 */
export function each(parent, items, key, build, update) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const known = new Map();
  for (const child of [...parent.children]) {
    if (child.dataset.key === undefined) child.remove();
    else known.set(child.dataset.key, child);
  }
  let place = parent.firstElementChild;
  const taken = new Set();
  for (const item of items) {
    let name = key(item);
    while (taken.has(name)) name += "+";
    taken.add(name);
    let element = known.get(name);
    known.delete(name);
    if (!element) {
      element = build(item);
      element.dataset.key = name;
    }
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const gone of known.values()) gone.remove();
  // What was moved has lost the focus.
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

/** A list of terms and what they are now: `[[term, text], ...]`; terms without a text are left out. */
export function facts(list, pairs) {
  const shown = pairs.filter(([, text]) => text);
  each(list, shown, ([term]) => term,
    ([term]) => make("div", {}, [make("dt", { text: term }), make("dd")]),
    (element, [, text]) => say(element.lastElementChild, text));
}

/** One row whose cells say `texts`. */
export function cells(row, texts) {
  texts.forEach((text, place) => say(row.cells[place], text));
}
