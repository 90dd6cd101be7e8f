// Starting the full cycle in Dagster, and watching a run to its end.

import { button, table, tag, top } from "./admin-parts.js";
import { Failure, request } from "./api.js";
import { announce, ask, field, h, icon, toast } from "./dom.js";
import { duration, t } from "./i18n.js";
import { link } from "./markdown.js";

const WATCH_MS = 2000;
const KINDS = { SUCCESS: "ok", FAILURE: "warn", CANCELED: "warn" };

export class CyclePage {
  constructor(show) {
    this.show = show;
    this.run = sessionStorage.getItem("run");
    this.timer = 0;
  }

  leave() {
    clearTimeout(this.timer);
  }

  async load() {
    clearTimeout(this.timer);
    const input = h("input", { name: "run", value: this.run ?? "", spellcheck: "false", pattern: "[0-9a-fA-F\\-]{36}" });
    const form = h("form", { class: "row" }, field(t("watch_run"), input), h("button", { type: "submit", class: "plain" }, t("show")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.watch(input.value.trim());
    });
    const head = [top(t("cycle"), button(t("start_cycle"), () => this.start(), "primary")), h("p", {}, t("cycle_text")), form];
    if (!this.run) return head;
    try {
      return [...head, ...(await this.steps())];
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return [...head, h("p", { class: "notice warn", role: "alert" }, icon("warn"), error.message)];
    }
  }

  async steps() {
    const { run, url, done } = await request("GET", `/api/jobs/${encodeURIComponent(this.run)}`);
    if (!done) this.timer = setTimeout(() => this.show(() => this.load()), WATCH_MS);
    else if (this.watching) announce(t("run_ended", { status: run.status }));
    this.watching = !done;
    return [
      h("h3", {}, t("run", { id: run.id.slice(0, 8) }), " ", state(run.status)),
      h("p", {}, link(url, t("in_dagster"))),
      run.errors.length ? h("div", { class: "notice warn", role: "alert" }, icon("warn"), h("ul", {}, run.errors.map((error) => h("li", {}, error)))) : null,
      table(t("cycle"), [t("step"), t("status"), t("took"), t("made")], run.steps.map((step) => [
        step.name,
        state(step.status),
        step.started && step.ended ? duration(step.ended - step.started) : "–",
        step.assets.map((asset) => tag(asset)),
      ])),
    ];
  }

  async start() {
    if (!(await ask({ title: t("cycle_confirm"), text: [h("p", {}, t("cycle_text"))], yes: t("start_cycle"), no: t("cancel") }))) return;
    try {
      this.watch((await request("POST", "/api/jobs/full-cycle")).run_id);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      toast(error.message, "warn");
    }
  }

  watch(id) {
    this.run = id;
    sessionStorage.setItem("run", id);
    this.show(() => this.load());
  }
}

const state = (status) => [KINDS[status] || status === "WAITING" || status === "SKIPPED" ? null : h("span", { class: "spinner" }), tag(status.toLowerCase().replaceAll("_", " "), KINDS[status] ?? "")];
