// Starting the full cycle in Dagster, and watching a run to its end.

import { button, table, tag, top } from "./admin-parts.js";
import { Failure, request } from "./api.js";
import { announce, ask, field, h, icon, keepFocus, toast } from "./dom.js";
import { duration, t } from "./i18n.js";
import { link } from "./markdown.js";

const WATCH_MS = 2000;
const KINDS = { SUCCESS: "ok", FAILURE: "warn", CANCELED: "warn" };

export class CyclePage {
  constructor(show) {
    this.show = show;
    this.run = sessionStorage.getItem("run");
    this.timer = 0;
    this.looks = 0; // of two at once, only the last one counts
    this.progress = null; // where the run's steps are shown; null: nowhere
  }

  leave() {
    clearTimeout(this.timer);
    this.looks += 1;
    this.progress = null;
  }

  async load() {
    this.leave();
    this.progress = h("div", { class: "section" });
    this.input = h("input", { name: "run", value: this.run ?? "", spellcheck: "false", pattern: "[0-9a-fA-F\\-]{36}" });
    const form = h("form", { class: "row" }, field(t("watch_run"), this.input), h("button", { type: "submit", class: "plain" }, t("show")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.watch(this.input.value.trim());
    });
    const page = [top(t("cycle"), button(t("start_cycle"), () => this.start(), "primary")), h("p", {}, t("cycle_text")), form, this.progress];
    await this.look();
    return page;
  }

  /** Shows how the run is, and looks again while it goes on. The form stays: somebody may be typing in it. */
  async look() {
    clearTimeout(this.timer);
    const look = (this.looks += 1);
    const { progress } = this;
    if (!this.run || !progress) return progress?.replaceChildren();
    let found = { done: true };
    let elements;
    try {
      found = await request("GET", `/api/jobs/${encodeURIComponent(this.run)}`);
      elements = steps(found);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      elements = [h("p", { class: "notice warn", role: "alert" }, icon("warn"), error.message)];
    }
    if (look !== this.looks) return;
    keepFocus(progress, () => progress.replaceChildren(...elements.filter(Boolean)));
    if (!found.done) this.timer = setTimeout(() => this.look(), WATCH_MS);
    else if (this.watching && found.run) announce(t("run_ended", { status: found.run.status }));
    this.watching = !found.done;
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
    this.run = this.input.value = id;
    sessionStorage.setItem("run", id);
    this.look();
  }
}

function steps({ run, url }) {
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

const state = (status) => [KINDS[status] || status === "WAITING" || status === "SKIPPED" ? null : h("span", { class: "spinner" }), tag(status.toLowerCase().replaceAll("_", " "), KINDS[status] ?? "")];
