// The page: who is there, which view is shown, the bar above it, and the keys.

import { Admin } from "./admin.js";
import { Failure, forget, hasToken, logout, request } from "./api.js";
import { Chat } from "./chat.js";
import { $, ask, h, icon, iconButton, keepFocus, toast } from "./dom.js";
import { number, switchLanguage, t } from "./i18n.js";
import { account, enter } from "./login.js";
import { closePanel } from "./passage.js";
import { Sessions } from "./sessions.js";

const THEMES = ["auto", "light", "dark"];
const LOOK_MS = 15_000; // between two looks at what serves
const KEYS = [
  [["/"], "k_ask"],
  [["n"], "k_new"],
  [["1", "…", "9"], "k_cite"],
  [["Esc"], "k_stop"],
  [["a"], "k_admin"],
  [["t"], "k_theme"],
  [["?"], "k_help"],
];

let me = { name: "", role: "reader", login: false };
let theme = localStorage.getItem("theme") ?? "auto";
let sessions, chat, admin;
let ready = null; // what /readyz said last; false: nothing

async function start() {
  showTheme();
  await admitted();
  sessions = new Sessions((id) => go(`#/s/${id}`), () => go("#/"));
  chat = new Chat(sessions);
  admin = new Admin();
  $("app").hidden = false;
  $("menu").replaceChildren(icon("menu"));
  $("menu").addEventListener("click", () => toggleSide());
  $("new").addEventListener("click", fresh);
  window.addEventListener("hashchange", arrive);
  document.addEventListener("language", showAll);
  document.addEventListener("signedout", signedOut);
  document.addEventListener("keydown", key);
  $("main").addEventListener("click", () => toggleSide(false));
  showAll();
  sessions.refresh();
  look();
  setInterval(look, LOOK_MS);
  chat.focus();
}

/** Returns when the service knows who is there, or needs nobody to be. */
async function admitted(reason = "") {
  const mode = await request("GET", "/api/auth/mode").catch((error) => {
    if (error.status === 404) return { login: "open" };
    throw error;
  });
  if (mode.login === "open") {
    me = { name: "", role: "admin", login: false };
    return;
  }
  if (reason || !hasToken()) await enter(reason);
  for (;;) {
    try {
      me = await request("GET", "/api/auth/me");
      return;
    } catch (error) {
      if (!(error instanceof Failure) || error.status !== 401) throw error;
      await enter(t("signed_out"));
    }
  }
}

let leaving = false;
async function signedOut() {
  if (leaving || !me.login) return;
  leaving = true;
  forget();
  const before = me.name;
  $("app").hidden = true;
  await admitted(t("signed_out"));
  if (me.name !== before) {
    location.hash = ""; // what is drawn is somebody else's
    location.reload();
    return;
  }
  $("app").hidden = false;
  leaving = false;
  showAll();
  sessions.refresh();
}

async function signOut() {
  leaving = true;
  await logout().catch(() => forget());
  location.hash = "";
  location.reload();
}

function go(hash) {
  if (location.hash !== hash && (location.hash || hash !== "#/")) history.pushState(null, "", hash);
  arrive(); // at once, where `hashchange` comes later: what is focused next has to be in the page
}

function fresh() {
  chat.clear();
  sessions.choose(null);
  go("#/");
  chat.focus();
}

function arrive() {
  closePanel();
  toggleSide(false);
  show();
}

/** Puts a view in place. One that is there stays: to put it in anew would take the focus from it. */
function present(view) {
  const before = $("main").firstElementChild;
  if (before === view) return;
  const held = before?.contains(document.activeElement);
  $("main").replaceChildren(view);
  if (held) $("heading").focus();
}

/** Shows what the address asks for. */
async function show() {
  const [, view, name] = location.hash.split("/");
  const administering = view === "admin" && me.role === "admin";
  document.body.classList.toggle("administering", administering);
  admin.leave();
  if (administering) {
    present(admin.element);
    admin.open(name || "releases");
  } else {
    present(chat.element);
    const id = view === "s" ? decodeURIComponent(name ?? "") : null;
    if (id && id !== chat.session) {
      try {
        await chat.open(id);
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        toast(error.message, "warn");
        chat.clear();
      }
    } else if (!id && chat.session && !chat.abort && view !== undefined) chat.clear();
    sessions.choose(chat.session);
  }
  showBar();
}

function showAll() {
  document.querySelector(".skip").textContent = t("skip");
  $("side").setAttribute("aria-label", t("sessions"));
  $("new").replaceChildren(icon("plus"), t("new_chat"));
  $("menu").setAttribute("aria-label", t("menu"));
  $("account").replaceChildren(...account(me, signOut));
  chat.show();
  sessions.show();
  show();
}

function showBar() {
  const administering = document.body.classList.contains("administering");
  $("heading").textContent = t(administering ? "admin" : "chat");
  document.title = `${t(administering ? "admin" : "chat")} – Data Alchemy`;
  // By their ids the focus stays on them, whatever they are called by now.
  keepFocus($("tools"), () => $("tools").replaceChildren(
    badge(),
    me.role === "admin"
      ? h("a", { id: "to-view", class: "button plain", href: administering ? chat.home : "#/admin/releases" }, icon(administering ? "chat" : "gear"), h("span", { class: "wide-only" }, t(administering ? "chat" : "admin")))
      : "",
    h("button", { id: "to-language", type: "button", class: "plain", lang: document.documentElement.lang === "zh" ? "en" : "zh", on: { click: switchLanguage } }, t("language")),
    iconButton("sun", t(`theme_${theme}`), nextTheme, { id: "to-theme" }),
    iconButton("help", t("shortcuts"), help, { id: "to-help", class: "icon keyboard" }),
  ));
}

function badge() {
  if (!ready) return h("span", { class: "badge off" }, t("no_release"));
  const problems = Object.keys(ready.problems ?? {}).length;
  const words = [
    ready.release ? ready.release.slice(0, 8) : ready.loading ? t("loading_release", { id: ready.loading.slice(0, 8) }) : t("no_release"),
    ready.pinned && t("release_pinned"),
    problems && t("release_problem", { n: number(problems) }),
  ].filter(Boolean);
  const title = ready.release ? t("release_title", { id: ready.release }) : "";
  return h("span", { class: `badge ${problems ? "some" : ""} ${ready.release ? "" : "off"}`, title }, h("span", { class: "wide-only" }, `${t("release")} `), words.join(" · "));
}

/** Looks what serves, and whether anything does. */
async function look() {
  try {
    ready = await (await fetch("/readyz")).json(); // 503 has the same body
    $("banner").hidden = true;
  } catch {
    ready = null;
    $("banner").textContent = t("offline");
    $("banner").hidden = false;
  }
  // Of what it said, times among it, only what the badge shows is looked at, and nothing else is drawn anew.
  const before = $("tools").querySelector(".badge");
  const now = badge();
  if (!now.isEqualNode(before)) before?.replaceWith(now);
}

window.addEventListener("online", look);
window.addEventListener("offline", look);

function nextTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  localStorage.setItem("theme", theme);
  showTheme();
  showBar();
}

function showTheme() {
  document.documentElement.dataset.theme = theme;
}

function toggleSide(open = !document.body.classList.contains("listing")) {
  if (open === document.body.classList.contains("listing")) return;
  document.body.classList.toggle("listing", open);
  $("menu").setAttribute("aria-expanded", String(open));
  if (open) $("new").focus();
}

function help() {
  const rows = KEYS.filter(([, name]) => name !== "k_admin" || me.role === "admin");
  ask({
    title: t("shortcuts"),
    text: h("dl", { class: "keys" }, rows.map(([keys, name]) => [h("dt", {}, keys.map((one) => (one === "…" ? " … " : h("kbd", {}, one)))), h("dd", {}, t(name))])),
    yes: t("close"),
  });
}

function key(event) {
  if (event.isComposing) return; // the key is the input method's: its Esc takes back characters
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (document.body.classList.contains("listing")) {
      toggleSide(false);
      $("menu").focus();
    } else if (!closePanel()) chat.stop();
    return;
  }
  if ($("app").hidden || event.target.closest("input, textarea, select, [contenteditable]")) return;
  const action = {
    "/": () => {
      go(chat.home);
      chat.focus();
    },
    n: fresh,
    a: () => me.role === "admin" && go(document.body.classList.contains("administering") ? chat.home : "#/admin/releases"),
    t: nextTheme,
    "?": help,
  }[event.key] ?? (/^[1-9]$/.test(event.key) ? () => chat.last?.cite(Number(event.key)) : null);
  if (!action) return;
  event.preventDefault();
  action();
}

start().catch((error) => {
  $("door").replaceChildren(h("p", { class: "notice warn", role: "alert" }, error instanceof Failure ? error.message : String(error)));
  throw error;
});
