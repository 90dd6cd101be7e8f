// What the sections of the administration are put together from.

import { h } from "./dom.js";

/** A table with headed columns that scrolls by itself on a narrow screen. */
export function table(label, columns, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", {}, h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, n) => h(n ? "td" : "th", n ? {} : { scope: "row" }, cell)))))));
}

/** The head of a section: its name and what can be done. */
export const top = (title, ...actions) => h("header", { class: "top" }, h("h2", {}, title), h("div", { class: "row" }, actions));

export const button = (label, onclick, kind = "plain", attributes = {}) =>
  h("button", { type: "button", class: kind, on: { click: onclick }, ...attributes }, label);

export const tag = (text, kind = "") => h("span", { class: `tag ${kind}` }, text);
