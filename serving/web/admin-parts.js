// What the sections of the administration are put together from.

import { h } from "./dom.js";

/** A table that scrolls by itself on a narrow screen; without columns it has no head. */
export function table(label, columns, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", {}, columns.length ? h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))) : null,
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, n) => h(n ? "td" : "th", n ? {} : { scope: "row" }, cell)))))));
}

/** The head of a section: its name, which the focus can go to, and what can be done. */
export const top = (title, ...actions) => h("header", { class: "top" }, h("h2", { tabindex: "-1" }, title), h("div", { class: "row" }, actions));

export const button = (label, onclick, kind = "plain", attributes = {}) =>
  h("button", { type: "button", class: kind, on: { click: onclick }, ...attributes }, label);

export const tag = (text, kind = "") => h("span", { class: `tag ${kind}` }, text);
