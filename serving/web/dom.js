// Elements without markup strings: whatever a model or a document wrote arrives as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  plus: "M12 5v14M5 12h14",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  up: "M7 11v9H4v-9h3zm0 0l4-8c1.7 0 2.5 1 2.5 2.5L13 9h5.5a2 2 0 0 1 2 2.3l-1 7a2 2 0 0 1-2 1.7H7",
  down: "M17 13V4h3v9h-3zm0 0l-4 8c-1.7 0-2.5-1-2.5-2.5L11 15H5.5a2 2 0 0 1-2-2.3l1-7a2 2 0 0 1 2-1.7H17",
  copy: "M9 9h10v11H9zM5 15V4h10",
  tree: "M6 4v12a2 2 0 0 0 2 2h4M6 9h6M12 7h7v4h-7zM12 16h7v4h-7z",
  check: "M5 12.5l4.5 4.5L19 7.5",
  edit: "M4 20h4L19 9l-4-4L4 16v4z",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  down_arrow: "M12 4v12M6 11l6 6 6-6M5 20h14",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2",
  help: "M9 9a3 3 0 1 1 4 2.8c-.7.4-1 1-1 2.2M12 17.5v.5M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z",
  gear: "M4 7h10M18 7h2M4 17h2M10 17h10M14 5v4M8 15v4",
  chat: "M4 5h16v11H9l-5 4V5z",
  out: "M10 4H5v16h5M14 8l4 4-4 4M18 12H9",
  warn: "M12 4l9 16H3zM12 10v4M12 17v.5",
  flag: "M6 21V4h12l-2 4 2 4H6",
};

/** An element. `on` holds listeners, `data` the dataset; other attributes as in HTML; true is "", null is none. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A line icon; it says nothing to screen readers, its button does. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "glyph");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button that is only an icon; its label is its tooltip too. */
export function iconButton(name, label, onclick, attributes = {}) {
  return h("button", { class: "icon", type: "button", "aria-label": label, title: label, on: { click: onclick }, ...attributes }, icon(name));
}

export const $ = (id) => document.getElementById(id);

const CONTROLS = "a, button, input, select, textarea, [tabindex]";
const called = (control) => control.getAttribute("aria-label") ?? (control.name || control.textContent);

/**
 * Draws `box` anew by `draw` and leaves the focus where it was: the control that had it is known again by its
 * id, or else by what it is called. Where it is gone or disabled, what `instead()` gives has the focus.
 */
export function keepFocus(box, draw, instead = () => null) {
  const had = document.activeElement;
  const held = had !== box && box.contains(had);
  draw();
  if (!held || box.contains(had)) return;
  const same = (one) => !one.disabled && (had.id ? one.id === had.id : one.localName === had.localName && called(one) === called(had));
  ([...box.querySelectorAll(CONTROLS)].find(same) ?? instead())?.focus();
}

/** Says something to screen readers, once and without haste. */
export function announce(text) {
  $("live").textContent = text;
}

/** A short notice that goes by itself. */
export function toast(text, kind = "") {
  const note = h("p", { class: `toast ${kind}` }, text);
  $("toasts").append(note);
  setTimeout(() => note.remove(), 6000);
}

/** Puts text into the clipboard; whether that worked. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Over plain HTTP there is no `navigator.clipboard`; what is selected in a field can be copied all the same.
    const before = document.activeElement;
    const source = h("textarea", { class: "unseen", readonly: true, value: text });
    document.body.append(source);
    source.select();
    const copied = document.execCommand("copy");
    source.remove();
    before.focus();
    return copied;
  }
}

/** Asks in a modal dialog. `fields` are labeled controls with names. Gives the values, or null when canceled. */
export function ask({ title, text = [], fields = [], yes, no, danger = false }) {
  return new Promise((resolve) => {
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      text,
      fields,
      h(
        "div",
        { class: "row end" },
        no && h("button", { type: "button", class: "plain", on: { click: () => dialog.close() } }, no),
        h("button", { type: "submit", class: danger ? "danger" : "primary", value: "yes" }, yes),
      ),
    );
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
    let result = null;
    form.addEventListener("submit", () => {
      result = Object.fromEntries(new FormData(form));
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal(); // the focus goes in, and back where it was
  });
}

/** A labeled control for a form. */
export function field(label, control, hint = "") {
  return h("label", { class: "field" }, h("span", {}, label), control, hint && h("small", {}, hint));
}

/** Places in Python count characters, those in JavaScript UTF-16 units: an emoji is one there and two here. */
export function unitsAt(text, characters) {
  let units = 0;
  for (let n = 0; n < characters && units < text.length; n += 1) units += text.codePointAt(units) > 0xffff ? 2 : 1;
  return units;
}
