// Releases: what there is, how each was judged, what differs, and which one serves.

import { button, table, tag, top } from "./admin-parts.js";
import { Failure, request } from "./api.js";
import { ask, field, h, icon, toast } from "./dom.js";
import { known, number, t, when } from "./i18n.js";
import { render } from "./markdown.js";

const spaced = (name) => name.replaceAll("_", " ");
const short = (id) => (id ? id.slice(0, 8) : "–");
const path = (id) => `/api/releases/${encodeURIComponent(id)}`;
const shown = (value) => (value === null || value === undefined ? "–" : typeof value === "number" ? number(value) : typeof value === "object" ? JSON.stringify(value) : String(value));

export class ReleasesPage {
  constructor(show) {
    this.show = show;
  }

  async load() {
    this.list = await request("GET", "/api/releases");
    const { releases, total, champion, pinned } = this.list;
    const head = top(
      t("releases"),
      pinned && button(t("unpin"), () => this.move("/api/releases/unpin", { expected: pinned })),
      releases.some((one) => one.aliases.includes("previous")) && button(t("rollback"), () => this.rollback(champion)),
      button(t("reload"), () => this.show(() => this.load())),
    );
    if (!releases.length) return [head, h("p", { class: "quiet" }, t("no_releases"))];
    const scored = (name) => releases.some((one) => one.scores[name] !== null && one.scores[name] !== undefined);
    const names = [...new Set(releases.flatMap((one) => Object.keys(one.scores)))].filter(scored).slice(0, 4);
    return [
      head,
      table(t("releases"), [t("release"), t("created"), t("gate"), ...names.map(spaced), t("actions")], releases.map((one) => [
        [h("code", {}, short(one.id)), " ", one.serving && tag(t("serving"), "ok"), one.aliases.map((name) => tag(t(name), name === "champion" ? "gold" : ""))],
        h("time", { datetime: one.created_at }, when(one.created_at)),
        verdict(one.gate),
        ...names.map((name) => shown(one.scores[name])),
        h("span", { class: "row" },
          button(t("show"), () => this.show(() => this.detail(one.id)), "plain small", { "aria-label": `${t("show")} ${short(one.id)}` }),
          button(t("promote"), () => this.promote(one), "plain small", { disabled: one.id === champion, "aria-label": `${t("promote")} ${short(one.id)}` }),
          button(t("pin"), () => this.pin(one.id), "plain small", { disabled: one.id === pinned, "aria-label": `${t("pin")} ${short(one.id)}` })),
      ])),
      total > releases.length && h("p", { class: "quiet" }, t("showing", { n: releases.length, total })),
    ];
  }

  async detail(id) {
    const one = await request("GET", path(id));
    const others = this.list.releases.filter((other) => other.id !== one.id);
    const choice = h("select", { "aria-label": t("compare_with") }, others.map((other) => h("option", { value: other.id }, `${short(other.id)} ${other.aliases.map((name) => t(name)).join(" ")}`)));
    const { weights, adapters, ...parts } = one.record;
    return [
      top([`${t("release")} `, h("code", {}, one.id)], button(t("releases"), () => this.show(() => this.load()))),
      h("p", { class: "row" }, verdict(one.gate), one.serving && tag(t("serving"), "ok"), one.aliases.map((name) => tag(t(name), name === "champion" ? "gold" : ""))),
      one.gate?.reasons.length ? h("ul", {}, one.gate.reasons.map((reason) => h("li", {}, reason))) : null,
      others.length ? h("p", { class: "row" }, choice, button(t("compare"), () => this.show(() => this.diff(choice.value, one.id)))) : null,
      h("h3", {}, t("report")),
      Object.keys(one.scores).length ? h("dl", { class: "scores" }, Object.entries(one.scores).map(([name, value]) => h("div", {}, h("dt", {}, spaced(name)), h("dd", {}, shown(value))))) : null,
      one.rendered ? h("div", { class: "report" }, render(one.rendered, { level: 3 })) : h("p", { class: "quiet" }, t("no_report")),
      h("h3", {}, t("parts")),
      table(t("parts"), [t("part"), t("version")], Object.entries({ ...parts, ...prefixed("adapters", adapters), ...prefixed("weights", weights) }).map(([name, value]) => [name, h("code", {}, shown(value))])),
      h("h3", {}, t("history")),
      h("ol", { class: "history" }, one.history.map((row) => h("li", {}, h("b", {}, known(row.event) ? t(row.event) : row.event), " ", when(row.at), row.by ? ` ${t("by", { name: row.by })}` : "",
        row.event === "judged" ? [" ", tag(t(row.passed ? "passed" : "not_passed"), row.passed ? "ok" : "warn")] : null, row.note ? ` – ${row.note}` : ""))),
    ];
  }

  async diff(before, after) {
    const found = await request("GET", `${path(before)}/diff/${encodeURIComponent(after)}`);
    const pairs = (name, rows) => Object.keys(rows).length ? [h("h3", {}, t(name)), table(t(name), [t("part"), t("before"), t("after")], Object.entries(rows).map(([key, [old, now]]) => [key, shown(old), shown(now)]))] : [];
    const out = [...pairs("parts", found.parts), ...pairs("scores", found.scores), ...changes("documents", found.documents), ...changes("chunks", found.chunks)];
    return [
      top(t("differences", { a: short(found.after), b: short(found.before) }), button(t("releases"), () => this.show(() => this.load()))),
      found.missing.map((why) => h("p", { class: "notice warn" }, icon("warn"), t("not_compared", { why }))),
      out.length ? out : h("p", { class: "quiet" }, t("same")),
    ];
  }

  async promote(one) {
    const passed = Boolean(one.gate?.passed);
    const reason = h("input", { name: "reason", maxlength: "500", required: !passed });
    const given = await ask({
      title: t("promote_title", { id: short(one.id) }),
      text: [
        h("p", {}, t("promote_text", { champion: short(this.list.champion) })),
        passed ? null : [h("p", { class: "notice warn" }, icon("warn"), t("force_text")), h("ul", {}, (one.gate?.reasons ?? [t("not_judged")]).map((why) => h("li", {}, why)))],
      ].flat(2).filter(Boolean),
      fields: [field(t("reason"), reason, t("reason_hint"))],
      yes: t(passed ? "promote" : "force"),
      no: t("cancel"),
      danger: !passed,
    });
    if (given) await this.move(`${path(one.id)}/promote`, { expected: this.list.champion ?? "", reason: given.reason, force: !passed });
  }

  async pin(id) {
    const given = await ask({
      title: t("pin_title", { id: short(id) }),
      text: [h("p", {}, t("pin_text"))],
      fields: [field(t("reason"), h("input", { name: "reason", maxlength: "500" }), t("reason_hint"))],
      yes: t("pin"),
      no: t("cancel"),
    });
    if (given) await this.move(`${path(id)}/pin`, { expected: this.list.pinned ?? "", reason: given.reason });
  }

  async rollback(champion) {
    const text = [h("p", {}, t("rollback_text", { champion: short(champion) }))];
    if (await ask({ title: t("rollback_title"), text, yes: t("rollback"), no: t("cancel"), danger: true })) {
      await this.move("/api/releases/rollback", { expected: champion ?? "" });
    }
  }

  async move(address, body) {
    try {
      const now = await request("POST", address, body);
      toast(t("moved", { champion: short(now.champion) }));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      toast(error.message, "warn");
    }
    await this.show(() => this.load());
  }
}

const verdict = (gate) => (gate ? tag(t(gate.passed ? "passed" : "not_passed"), gate.passed ? "ok" : "warn") : tag(t("not_judged")));

const prefixed = (prefix, rows) => Object.fromEntries(Object.entries(rows ?? {}).map(([name, value]) => [`${prefix}.${name}`, value]));

function changes(name, found) {
  if (!found) return [];
  const kinds = [["added", "added"], ["removed", "removed"], ["changed", "altered"]].filter(([kind]) => found.counts[kind]);
  return kinds.length ? [h("h3", {}, t(name)), kinds.map(([kind, word]) => h("details", {}, h("summary", {}, `${number(found.counts[kind])} ${t(word)}`),
    h("ul", { class: "ids" }, found[kind].map((id) => h("li", {}, h("code", {}, id)))),
    found.counts[kind] > found[kind].length ? h("p", { class: "quiet" }, t("and_more", { n: number(found.counts[kind] - found[kind].length) })) : null))] : [];
}
