// The panel beside the conversation: a citation in its text, and where an answer comes from.

import { Failure, request } from "./api.js";
import { $, announce, h, icon, iconButton, unitsAt } from "./dom.js";
import { t, when } from "./i18n.js";
import { link } from "./markdown.js";

let opener = null;
let again = null; // shows the same in another language
let asked = 0; // of two citations that are opened fast, the last one stays

/** Opens the passage of citation `number`. `report` marks the citation as wrong. */
export async function openPassage(answerId, number, report) {
  again = () => openPassage(answerId, number, report);
  await fill(t("passage_of", { n: number }), async () => {
    const row = await request("GET", `/v1/answers/${encodeURIComponent(answerId)}/citations/${number}`);
    return [
      h("h3", {}, row.document.title || row.document.id),
      h("p", { class: "tags" }, tag(row.document.source), row.document.project && tag(row.document.project)),
      row.notice && h("p", { class: "notice" }, icon("warn"), `${row.notice} ${t("quote_only")}`),
      h("blockquote", { class: "text", tabindex: "0" }, highlighted(row)),
      h(
        "div",
        { class: "row" },
        row.document.url && h("span", { class: "outward" }, link(row.document.url, t("open_source"))),
        wrongButton(report),
      ),
      h("h4", {}, t("came_from")),
      facts([
        [t("document"), h("code", {}, row.document.id)],
        [t("raw_object"), [h("code", {}, row.lineage.raw_key || "–"), row.lineage.raw_present ? null : ` (${t("raw_gone")})`]],
        [t("sha256"), h("code", {}, row.lineage.raw_sha256)],
        [t("locator"), h("code", {}, row.lineage.locator || "–")],
        [t("span"), `${row.lineage.span.start}–${row.lineage.span.end}`],
        [t("chunk"), h("code", {}, row.lineage.chunk_id)],
      ]),
      h("button", { type: "button", class: "plain", on: { click: () => openLineage(answerId) } }, icon("tree"), t("full_lineage")),
    ];
  });
}

/** Opens the lineage of a whole answer. */
export async function openLineage(answerId) {
  again = () => openLineage(answerId);
  await fill(t("lineage"), async () => {
    const row = await request("GET", `/v1/answers/${encodeURIComponent(answerId)}/lineage`);
    return [
      h(
        "ul",
        { class: "tree" },
        row.citations.map((one) =>
          h("li", {}, h("b", {}, `[${one.number}] ${one.document.title || one.document.id}`), h("ul", {},
            h("li", {}, t("span"), " ", h("code", {}, `${one.chunk.start}–${one.chunk.end}`)),
            h("li", {}, t("raw_object"), " ", h("code", {}, one.raw.key || "–"), one.raw.present ? null : ` (${t("raw_gone")})`,
              h("ul", {}, h("li", {}, h("code", { class: "long" }, one.raw.sha256)))),
          )),
        ),
        row.release && h("li", {}, h("b", {}, `${t("release")} `, h("code", {}, row.release.id)),
          row.release.missing ? ` ${t("missing", { why: row.release.missing })}` : h("ul", {}, row.release.artifacts.map(artifact))),
      ),
    ];
  });
}

/** Whether something was open. Focus that was in it goes back to what opened it. */
export function closePanel() {
  const panel = $("passage");
  if (panel.hidden) return false;
  const held = panel.contains(document.activeElement) || document.activeElement === document.body;
  panel.hidden = true;
  again = null;
  document.body.classList.remove("reading");
  if (held) (opener?.isConnected ? opener : $("main")).focus();
  return true;
}

document.addEventListener("language", () => {
  const before = document.activeElement; // the button that changes the language, pressed again to change it back
  again?.();
  if (before.isConnected) before.focus();
});

async function fill(title, content) {
  const panel = $("passage");
  const turn = (asked += 1);
  if (panel.hidden) opener = document.activeElement;
  const heading = h("h2", { tabindex: "-1", id: "passage-title" }, title);
  const body = h("div", { class: "content", "aria-busy": "true" }, h("p", {}, t("loading")));
  panel.setAttribute("aria-labelledby", "passage-title");
  panel.replaceChildren(h("header", {}, heading, iconButton("close", t("close"), closePanel)), body);
  panel.hidden = false;
  document.body.classList.add("reading");
  heading.focus();
  try {
    const elements = await content();
    if (turn !== asked) return;
    body.replaceChildren(...elements.filter(Boolean));
    body.querySelector("mark")?.scrollIntoView({ block: "center" });
    announce(`${title}. ${body.querySelector("mark")?.textContent ?? ""}`);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (turn === asked) body.replaceChildren(h("p", { class: "notice", role: "alert" }, icon("warn"), error.message));
  } finally {
    body.removeAttribute("aria-busy");
  }
}

function highlighted(row) {
  const out = [row.before ? h("span", { class: "on", title: t("more_before") }, "… ") : null];
  let done = 0;
  for (const quote of [...row.quotes].sort((a, b) => a.start - b.start)) {
    const from = Math.max(done, unitsAt(row.text, quote.start));
    const to = unitsAt(row.text, quote.end);
    if (from >= to) continue;
    out.push(row.text.slice(done, from), h("mark", {}, row.text.slice(from, to)));
    done = to;
  }
  out.push(row.text.slice(done), row.after ? h("span", { class: "on", title: t("more_after") }, " …") : null);
  return out;
}

function wrongButton(report) {
  const button = h("button", { type: "button", class: "plain", on: {
    click: async () => {
      if (await report()) {
        button.disabled = true;
        button.replaceChildren(icon("check"), t("reported"));
      }
    },
  } }, icon("flag"), t("wrong_citation"));
  return button;
}

function artifact(node) {
  const detail = node.missing ? t("missing", { why: node.missing }) : t("made_at", { at: when(node.created_at) });
  return h("li", {}, h("b", {}, node.asset), " ", h("code", {}, node.version), " ", h("small", {}, detail),
    node.inputs?.length ? h("ul", {}, node.inputs.map(artifact)) : null);
}

const tag = (text) => h("span", { class: "tag" }, text);

const facts = (rows) => h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
