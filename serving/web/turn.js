// One question and its answer: a record of what was told so far, and the elements that show it.

import { Failure, request } from "./api.js";
import { announce, ask, copyText, field, h, icon, iconButton, toast, unitsAt } from "./dom.js";
import { duration, known, t } from "./i18n.js";
import { render } from "./markdown.js";
import { openLineage, openPassage } from "./passage.js";

export class Turn {
  /** `retry(question)` asks again. */
  constructor(question, retry) {
    this.question = question;
    this.retry = retry;
    this.id = null;
    this.stages = new Map(); // stage -> {start, finish} in seconds
    this.sources = [];
    this.text = "";
    this.citations = [];
    this.answer = null; // the whole of it, once done
    this.phase = "waiting"; // streaming, broken, done, stopped, failed
    this.error = "";
    this.rating = 0;
    this.parts = Object.fromEntries(
      ["steps", "notices", "body", "after", "foot"].map((name) => [name, h("div", { class: name })]),
    );
    this.asked = h("h2", { class: "asked" });
    this.element = h("article", { class: "turn", data: { phase: "waiting" } }, this.asked, h("div", { class: "reply" }, Object.values(this.parts)));
    this.frame = 0;
    this.show();
  }

  /** A turn that was answered before, from what a conversation keeps. */
  static stored(question, message, retry) {
    const turn = new Turn(question, retry);
    turn.id = message.answer_id;
    turn.text = message.content;
    turn.phase = "done";
    turn.show();
    if (turn.id) turn.recall();
    return turn;
  }

  /** Fetches the rest of a stored answer; without it the text stands alone. */
  async recall() {
    try {
      this.finish(await request("GET", `/v1/answers/${encodeURIComponent(this.id)}`));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
    }
    this.show();
  }

  /** Takes an event of the stream. */
  take({ event, data }) {
    if (this.phase === "broken" || this.phase === "waiting") this.phase = "streaming";
    if (event === "started") this.id = data.id;
    else if (event === "status") this.stages.set(data.stage, { ...this.stages.get(data.stage), [data.state]: data.at });
    else if (event === "sources") this.sources = data.sources;
    else if (event === "citation") this.citations.push(data.citation);
    else if (event === "token") {
      if (!this.text) announce(t("answer_begun"));
      this.text += data.text;
    } else if (event === "broken") this.phase = "broken";
    else if (event === "error") this.fail(data.message);
    else if (event === "stopped") this.stop();
    else if (event === "done") {
      this.finish(data.answer);
      announce(t("answer_ready", { text: data.answer.answer }));
    }
    if (event === "status" && data.state === "start") announce(t(data.stage));
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.show();
    });
  }

  finish(answer) {
    this.id = answer.id;
    this.answer = answer;
    this.text = answer.answer;
    this.citations = answer.citations;
    this.phase = "done";
  }

  fail(message) {
    this.phase = "failed";
    this.error = message;
    announce(message);
    this.show();
  }

  stop() {
    if (this.phase === "done" || this.phase === "failed") return;
    this.phase = "stopped";
    announce(t("stopped"));
    this.show();
  }

  get running() {
    return ["waiting", "streaming", "broken"].includes(this.phase);
  }

  /** Opens citation `number`, if there is one. */
  cite(number) {
    if (this.answer && this.citations.some((one) => one.number === number)) {
      openPassage(this.id, number, () => this.judge(-1, { wrong_citations: [number] }));
    }
  }

  /** Draws everything from the record. */
  show() {
    const { steps, notices, body, after, foot } = this.parts;
    this.element.dataset.phase = this.phase;
    body.setAttribute("aria-busy", String(this.running));
    this.asked.replaceChildren(h("span", { class: "unseen" }, `${t("you")}: `), this.question);
    steps.replaceChildren(...this.showSteps());
    notices.replaceChildren(...this.showNotices());
    body.replaceChildren(...render(this.text, { cite: (number) => this.chip(number), marked: this.unsupported() }));
    after.replaceChildren(...[this.showSources(), this.showIntuition()].filter(Boolean));
    foot.replaceChildren(...this.showFoot());
  }

  showSteps() {
    const rows = [...this.stages].map(([stage, { start, finish }]) =>
      h("li", { class: finish === undefined && this.running ? "active" : "over" },
        finish === undefined ? h("span", { class: "spinner" }) : icon("check"),
        t(stage), finish === undefined ? null : h("span", { class: "took" }, duration(finish - start))),
    );
    if (!rows.length && this.running) rows.push(h("li", { class: "active" }, h("span", { class: "spinner" }), t("working")));
    return rows.length ? [h("ol", { "aria-label": t("working") }, rows)] : [];
  }

  showNotices() {
    const { answer } = this;
    const out = [];
    const note = (text, kind = "info") => out.push(h("p", { class: `notice ${kind}` }, icon(kind === "warn" ? "warn" : "help"), text));
    if (this.phase === "broken") note(t("reconnecting"), "warn");
    if (this.phase === "stopped") note(t("stopped"));
    if (this.phase === "failed") {
      out.push(h("p", { class: "notice warn", role: "alert" }, icon("warn"), this.error,
        h("button", { type: "button", class: "plain", on: { click: () => this.retry(this.question) } }, t("again"))));
    }
    if (!answer) return out;
    if (answer.cached) note(t(`cached_${answer.cached}`, { text: answer.cached_question ?? "" }));
    if (answer.standalone) note(t("standalone", { text: answer.standalone }));
    if (answer.degraded.length) {
      note(t("degraded", { list: answer.degraded.map((name) => (known(`d_${name}`) ? t(`d_${name}`) : name)).join(", ") }), "warn");
    }
    for (const [name, filters] of [["filtered", answer.filters], ["dropped", answer.dropped]]) {
      const words = Object.entries(filters ?? {}).flatMap(([key, value]) =>
        (Array.isArray(value) ? value : value ? [value] : []).map((v) => t(`f_${key}`, { v })));
      if (words.length) note(t(name, { list: words.join(", ") }), name === "dropped" ? "warn" : "info");
    }
    if (answer.removed?.length) {
      note(t("removed_from", { list: answer.removed.map((name) => (known(`r_${name}`) ? t(`r_${name}`) : name)).join(", ") }), "warn");
    }
    if (answer.unsupported?.length) note(t("unsupported_note"), "warn");
    return out;
  }

  unsupported() {
    const spans = this.answer?.unsupported ?? [];
    return spans.map(({ start, end }) => ({ start: unitsAt(this.text, start), end: unitsAt(this.text, end) }));
  }

  chip(number) {
    const cited = this.citations.find((one) => one.number === number);
    const source = cited ?? this.sources.find((one) => one.number === number);
    if (this.phase === "done" && !cited) return h("span", { class: "chip none", title: t("no_source", { n: number }) }, number);
    const label = t("source_n", { n: number, title: source?.title ?? "" });
    return h("button", { type: "button", class: "chip", disabled: !this.answer, "aria-label": label, title: label, data: { number }, on: { click: () => this.cite(number) } }, number);
  }

  showSources() {
    if (!this.answer || !this.citations.length) return null;
    const first = new Map();
    for (const one of this.citations) if (!first.has(one.number)) first.set(one.number, one);
    return h("section", { class: "sources", "aria-label": t("sources") }, h("h3", {}, t("sources")),
      h("ol", {}, [...first.values()].map((one) =>
        h("li", {}, h("button", { type: "button", class: "card", on: { click: () => this.cite(one.number) } },
          h("span", { class: "chip still" }, one.number),
          h("span", { class: "about" }, h("b", {}, one.title || one.document_id), h("span", { class: "tag" }, one.source)),
          h("span", { class: "quote" }, one.quote))))));
  }

  showIntuition() {
    const said = this.answer?.intuition;
    return said && h("details", { class: "intuition" },
      h("summary", {}, t("intuition"), " ", h("span", { class: "tag warn" }, t("unverified"))),
      h("p", {}, said.text), h("small", {}, t("intuition_note", { adapter: said.adapter })));
  }

  showFoot() {
    if (this.running || !this.id || !this.text) return [];
    const { answer } = this;
    const said = answer && answer.finalist !== "none" && t(answer.finalist === "extractive" ? "finalist_extractive" : "finalist", { name: answer.finalist });
    const about = answer ? [said, answer.seconds?.total && duration(answer.seconds.total), answer.release?.slice(0, 8)].filter(Boolean).join(" · ") : "";
    const pressed = (value) => ({ "aria-pressed": String(this.rating === value), class: "icon thumb" });
    return [
      h("div", { class: "row" },
        iconButton("up", t("good"), () => this.judge(1), pressed(1)),
        iconButton("down", t("bad"), () => this.correct(), pressed(-1)),
        iconButton("copy", t("copy"), () => this.copy()),
        iconButton("tree", t("lineage"), () => openLineage(this.id))),
      h("span", { class: "about" }, about),
    ];
  }

  async copy() {
    const sources = [...new Map(this.citations.map((one) => [one.number, one])).values()];
    const text = [this.text, ...sources.map((one) => `[${one.number}] ${one.title} ${one.url}`.trim())].join("\n");
    if (await copyText(text)) toast(t("copied"));
    else toast(t("not_copied"), "warn");
  }

  async correct() {
    const numbers = [...new Set(this.citations.map((one) => one.number))];
    const given = await ask({
      title: t("correct_title"),
      fields: [
        field(t("correction"), h("textarea", { name: "correction", rows: "5", maxlength: "8000" }), t("correction_hint")),
        field(t("comment"), h("textarea", { name: "comment", rows: "2", maxlength: "2000" })),
        numbers.length ? h("fieldset", {}, h("legend", {}, t("wrong_citations")), numbers.map((n) =>
          h("label", { class: "check" }, h("input", { type: "checkbox", name: `wrong-${n}` }), `[${n}]`))) : null,
      ],
      yes: t("send_feedback"),
      no: t("cancel"),
    });
    if (!given) return;
    const wrong_citations = numbers.filter((n) => given[`wrong-${n}`]);
    const words = Object.fromEntries(["correction", "comment"].map((name) => [name, given[name].trim()]).filter(([, value]) => value));
    await this.judge(-1, { ...words, ...(wrong_citations.length && { wrong_citations }) });
  }

  /** Sends feedback; whether it was stored. */
  async judge(rating, more = {}) {
    try {
      await request("POST", "/api/feedback", { answer_id: this.id, rating, ...more });
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      toast(error.message, "warn");
      return false;
    }
    this.rating = rating;
    for (const [n, button] of [...this.element.querySelectorAll(".thumb")].entries()) {
      button.setAttribute("aria-pressed", String(rating === (n ? -1 : 1)));
    }
    toast(t("thanks"));
    return true;
  }
}
