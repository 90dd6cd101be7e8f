// The door: name and password, and the account's own menu.

import { Failure, login, request } from "./api.js";
import { $, ask, field, h, iconButton, toast } from "./dom.js";
import { t } from "./i18n.js";

/** Shows the login form until somebody got in. `reason` says why it is shown again. */
export function enter(reason = "") {
  return new Promise((resolve) => {
    const show = () => {
      const name = h("input", { name: "username", autocomplete: "username", required: true, autocapitalize: "none", spellcheck: "false" });
      const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
      const problem = h("p", { class: "notice warn", role: "alert", hidden: !reason }, reason);
      const button = h("button", { type: "submit", class: "primary wide" }, t("sign_in"));
      const form = h("form", { class: "door" },
        h("img", { src: "/static/icon.svg", alt: "", width: "52", height: "52" }), h("h1", {}, "Data Alchemy"), h("p", {}, t("sign_in_text")),
        problem, field(t("name"), name), field(t("password"), password), button);
      form.addEventListener("submit", async (event) => {
        event.preventDefault();
        button.disabled = true;
        try {
          await login(name.value, password.value);
          document.removeEventListener("language", show);
          $("door").replaceChildren();
          resolve();
        } catch (error) {
          if (!(error instanceof Failure)) throw error;
          problem.textContent = error.message;
          problem.hidden = false;
          password.value = "";
          password.focus();
        } finally {
          button.disabled = false;
        }
      });
      $("door").replaceChildren(form);
      name.focus();
    };
    document.addEventListener("language", show);
    show();
  });
}

/** Asks for the old and a new password, and changes it. */
export async function changePassword() {
  const given = await ask({
    title: t("change_password"),
    fields: [
      field(t("old_password"), h("input", { name: "old", type: "password", autocomplete: "current-password", required: true })),
      field(t("new_password"), h("input", { name: "new", type: "password", autocomplete: "new-password", required: true, minlength: "12" })),
    ],
    yes: t("save"),
    no: t("cancel"),
  });
  if (!given) return;
  try {
    await request("POST", "/api/auth/password", given);
    toast(t("changed"));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    toast(error.message, "warn");
  }
}

/** The account's corner of the side bar. */
export function account(me, signOut) {
  if (!me.login) return [];
  return [
    h("div", { class: "who" },
      h("span", { class: "face", "aria-hidden": "true" }, [...me.name][0]?.toUpperCase()),
      h("span", {}, h("b", {}, me.name), h("small", {}, t(`role_${me.role}`))),
      iconButton("gear", t("change_password"), changePassword),
      iconButton("out", t("sign_out"), signOut)),
  ];
}
