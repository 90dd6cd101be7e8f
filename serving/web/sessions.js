// The list of conversations beside the chat. Where the service keeps none, the chat goes on without.

import { Failure, open, request } from "./api.js";
import { $, ask, field, h, icon, iconButton, keepFocus, toast } from "./dom.js";
import { t } from "./i18n.js";

const path = (id) => `/api/sessions/${encodeURIComponent(id)}`;

export class Sessions {
  /** `onopen(id)` shows a conversation, `onnew()` an empty one. */
  constructor(onopen, onnew) {
    this.onopen = onopen;
    this.onnew = onnew;
    this.rows = [];
    this.kept = true;
    this.current = null;
  }

  /** The id of a new conversation, or null where none is kept. */
  async begin() {
    try {
      return (await request("POST", "/api/sessions", {})).id;
    } catch (error) {
      if (!(error instanceof Failure) || error.status === 401) throw error;
      this.kept = false;
      this.show();
      return null;
    }
  }

  async refresh() {
    try {
      this.rows = (await request("GET", "/api/sessions")).sessions;
      this.kept = true;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.kept = false;
    }
    this.show();
  }

  choose(id) {
    this.current = id;
    this.show();
  }

  show() {
    const rows = this.rows.filter((row) => row.messages > 0);
    const note = !this.kept ? t("no_history") : rows.length ? null : t("none_yet");
    const draw = () => $("sessions").replaceChildren(
      note ? h("p", { class: "quiet" }, note) : h("ul", {}, rows.map((row) => this.showRow(row))),
      rows.length && this.kept
        ? h("div", { class: "row" },
            h("button", { type: "button", class: "plain small", on: { click: () => this.export() }, title: t("export") }, icon("down_arrow"), t("export_short")),
            iconButton("trash", t("forget_all"), () => this.forgetAll()))
        : "",
    );
    keepFocus($("sessions"), draw, () => $("new"));
  }

  showRow(row) {
    const title = row.title || t("untitled");
    const named = (name) => `${t(name)}: ${title}`;
    return h("li", { class: "session" },
      h("a", { id: `open-${row.id}`, href: `#/s/${encodeURIComponent(row.id)}`, title, "aria-current": row.id === this.current ? "page" : null }, title),
      iconButton("edit", named("rename"), () => this.rename(row), { id: `rename-${row.id}` }),
      iconButton("trash", named("remove"), () => this.remove(row), { id: `remove-${row.id}` }));
  }

  async rename(row) {
    const input = h("input", { name: "title", value: row.title, required: true, maxlength: "200" });
    const given = await ask({ title: t("rename"), fields: [field(t("title"), input)], yes: t("save"), no: t("cancel") });
    if (given?.title.trim()) await this.change(() => request("PATCH", path(row.id), { title: given.title.trim() }));
  }

  async remove(row) {
    const text = [h("p", {}, `“${row.title || t("untitled")}”. ${t("irreversible")}`)];
    if (!(await ask({ title: t("remove_session"), text, yes: t("remove"), no: t("cancel"), danger: true }))) return;
    await this.change(() => request("DELETE", path(row.id)));
    if (row.id === this.current) this.onnew();
  }

  async forgetAll() {
    const text = [h("p", {}, t("irreversible"))];
    if (!(await ask({ title: t("remove_all"), text, yes: t("remove"), no: t("cancel"), danger: true }))) return;
    await this.change(() => request("DELETE", "/api/history"));
    this.onnew();
  }

  async export() {
    try {
      const rows = await (await open("GET", "/api/history")).blob();
      const address = URL.createObjectURL(rows);
      h("a", { href: address, download: "history.ndjson" }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      toast(error.message, "warn");
    }
  }

  async change(action) {
    try {
      await action();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      toast(error.message, "warn");
    }
    await this.refresh();
  }
}
