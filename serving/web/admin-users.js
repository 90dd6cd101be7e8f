// People and programs: who there is, what they may do and read, and keys for programs.

import { button, table, tag, top } from "./admin-parts.js";
import { Failure, request } from "./api.js";
import { ask, field, h, toast } from "./dom.js";
import { t, when } from "./i18n.js";

const ROLES = ["reader", "curator", "admin"];
const path = (name) => `/api/users/${encodeURIComponent(name)}`;

export class UsersPage {
  constructor(show) {
    this.show = show;
  }

  async load() {
    const { users } = await request("GET", "/api/users");
    const named = (word, user) => ({ "aria-label": `${t(word)}: ${user.name}` });
    return [
      top(t("users"), button(t("add_user"), () => this.edit(), "primary")),
      users.length
        ? table(t("users"), [t("name"), t("role"), t("tenant"), t("access"), t("actions")], users.map((user) => [
            user.name,
            tag(t(`role_${user.role}`)),
            user.tenant,
            user.access ? user.access.map((scope) => tag(scope)) : t("everything"),
            h("span", { class: "row" },
              button(t("edit"), () => this.edit(user), "plain small", named("edit", user)),
              button(t("keys"), () => this.show(() => this.keys(user)), "plain small", named("keys", user)),
              button(t("remove"), () => this.remove(user), "plain small", named("remove", user))),
          ]))
        : h("p", { class: "quiet" }, t("no_users")),
    ];
  }

  async edit(user = null) {
    const given = await ask({
      title: user ? t("edit_user", { name: user.name }) : t("add_user"),
      fields: [
        user ? null : field(t("name"), h("input", { name: "name", required: true, maxlength: "64", autocomplete: "off" })),
        field(t("password"), h("input", { name: "password", type: "password", autocomplete: "new-password", required: !user, minlength: "12" }), user ? t("keep_password") : ""),
        field(t("role"), roles(user?.role)),
        field(t("access"), h("textarea", { name: "access", rows: "3", value: (user?.access ?? []).join("\n") }), t("access_hint")),
      ],
      yes: t("save"),
      no: t("cancel"),
    });
    if (!given) return;
    const scopes = given.access.split(/\s+/).filter(Boolean);
    const body = { ...(user && { version: user.version }), role: given.role, access: scopes.length ? scopes : null, ...(given.password && { password: given.password }) };
    await this.change(() => (user ? request("PATCH", path(user.name), body) : request("POST", "/api/users", { name: given.name, ...body })));
  }

  async keys(user) {
    const { keys } = await request("GET", `${path(user.name)}/keys`);
    return [
      top(t("keys_of", { name: user.name }), button(t("users"), () => this.show(() => this.load())), button(t("new_key"), () => this.addKey(user), "primary")),
      keys.length
        ? table(t("keys"), [t("label"), t("role"), t("created"), t("expires"), t("actions")], keys.map((key) => [
            key.label,
            tag(t(`role_${key.role}`)),
            when(key.created_at),
            key.expires_at ? when(key.expires_at) : t("never"),
            button(t("remove"), () => this.removeKey(user, key), "plain small", { "aria-label": `${t("remove")}: ${key.label}` }),
          ]))
        : h("p", { class: "quiet" }, t("no_keys")),
    ];
  }

  async addKey(user) {
    const given = await ask({
      title: t("new_key"),
      fields: [
        field(t("label"), h("input", { name: "label", required: true, maxlength: "100" })),
        field(t("role"), roles("reader")),
        field(t("days"), h("input", { name: "days", type: "number", min: "1", max: "3650", value: "90" }), t("days_hint")),
      ],
      yes: t("save"),
      no: t("cancel"),
    });
    if (!given) return;
    const body = { label: given.label, role: given.role, expires_in_days: given.days ? Number(given.days) : null };
    await this.change(async () => {
      const made = await request("POST", `${path(user.name)}/keys`, body);
      await ask({ title: t("key_title", { name: user.name }), text: [h("p", {}, t("key_once")), h("p", {}, h("code", { class: "long" }, made.key))], yes: t("close") });
    }, () => this.keys(user));
  }

  async removeKey(user, key) {
    const text = [h("p", {}, t("irreversible"))];
    if (await ask({ title: t("remove_key", { name: key.label }), text, yes: t("remove"), no: t("cancel"), danger: true })) {
      await this.change(() => request("DELETE", `${path(user.name)}/keys/${encodeURIComponent(key.id)}`), () => this.keys(user));
    }
  }

  async remove(user) {
    const text = [h("p", {}, t("irreversible"))];
    if (await ask({ title: t("remove_user", { name: user.name }), text, yes: t("remove"), no: t("cancel"), danger: true })) {
      await this.change(() => request("DELETE", path(user.name)));
    }
  }

  async change(action, then = () => this.load()) {
    try {
      await action();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      toast(error.message, "warn");
    }
    await this.show(then);
  }
}

const roles = (chosen) => h("select", { name: "role" }, ROLES.map((role) => h("option", { value: role, selected: role === chosen }, t(`role_${role}`))));
