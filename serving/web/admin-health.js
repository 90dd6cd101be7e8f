// How the service is, and its cache: whatever the two reports hold is shown, under their own names.

import { button, table, top } from "./admin-parts.js";
import { Failure, request } from "./api.js";
import { ask, h, icon, toast } from "./dom.js";
import { number, t } from "./i18n.js";

export class HealthPage {
  constructor(show) {
    this.show = show;
  }

  async load() {
    const { problems = {}, ...rest } = await (await fetch("/readyz")).json();
    const rows = Object.entries(problems);
    return [
      top(t("health"), button(t("reload"), () => this.show(() => this.load()))),
      rows.length
        ? [h("h3", {}, t("problems")), rows.map(([name, why]) => h("p", { class: "notice warn" }, icon("warn"), h("span", {}, h("b", {}, `${name}: `), text(why))))]
        : h("p", { class: "notice ok" }, icon("check"), t("healthy")),
      ...facts("", rest),
    ];
  }
}

export class CachePage {
  constructor(show) {
    this.show = show;
  }

  async load() {
    const { problem, ...rest } = await request("GET", "/api/cache");
    return [
      top(t("cache"), button(t("reload"), () => this.show(() => this.load())), button(t("clear_cache"), () => this.clear(), "danger")),
      problem && h("p", { class: "notice warn", role: "alert" }, icon("warn"), problem),
      ...facts("", rest),
    ];
  }

  async clear() {
    if (!(await ask({ title: t("clear_title"), text: [h("p", {}, t("clear_text"))], yes: t("clear_cache"), no: t("cancel"), danger: true }))) return;
    try {
      await request("DELETE", "/api/cache");
      toast(t("cleared"));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      toast(error.message, "warn");
    }
    await this.show(() => this.load());
  }
}

/** Nested values as tables: the plain ones of an object together, each nested one under its own heading. */
function facts(name, row) {
  const nested = ([, value]) => value !== null && typeof value === "object" && !Array.isArray(value);
  const plain = Object.entries(row).filter((entry) => !nested(entry));
  return [
    name && h("h3", {}, words(name)),
    plain.length ? table(words(name) || t("status"), [], plain.map(([key, value]) => [words(key), text(value)])) : null,
    ...Object.entries(row).filter(nested).flatMap(([key, value]) => facts(name ? `${name} ${key}` : key, value)),
  ];
}

const words = (name) => name.replaceAll("_", " ");

function text(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (value === true) return t("yes");
  if (value === false) return "–";
  if (typeof value === "number") return number(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
