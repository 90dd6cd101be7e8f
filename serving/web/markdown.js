// The Markdown of answers and reports as elements, safe by construction: text becomes text nodes, a picture
// becomes a link, a link shows its host and goes nowhere but to http, https and mail. Nothing is ever loaded.
//
// Every piece of text knows its place in the source, so that spans of the answer can be marked.

import { h } from "./dom.js";
import { t } from "./i18n.js";

const INLINE = new RegExp(
  [
    /\\([!-/:-@[-`{-~])/, // 1 escaped
    /(`+)(.+?)\2(?!`)/, // 2, 3 code
    /(!?)\[([^\]\n]*)\]\((?:<([^>\n]*)>|([^\s()]*(?:\([^\s()]*\)[^\s()]*)*))(?:\s+"[^"\n]*")?\)/, // 4-7 picture, link
    /\[(\d{1,3}(?:\s*[,;，、]\s*\d{1,3})*)\]/, // 8 citation
    /(\*\*|__)(?=\S)(.+?)(?<=\S)\9/, // 9, 10 strong
    /(?<![\w*])(\*|_)(?=[^\s*_])([^*_\n]+?)(?<=\S)\11(?!\w)/, // 11, 12 emphasis
    /(https?:\/\/[^\s<>"'“”‘’`）)\]，。；]+[^\s<>"'“”‘’`）)\]，。；.,;:!?])/, // 13 a bare address
  ]
    .map((part) => part.source)
    .join("|"),
  "g",
);
const FENCE = /^\s*(```|~~~)\s*(\S*)/;
const HEADING = /^(#{1,6})\s+/;
const RULE = /^\s*([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+/;
const QUOTE = /^\s*>\s?/;
const ROW = /^\s*\|.*\|\s*$/;
const DEEPEST = 20; // quotes and lists in each other; what lies deeper is text, for the stack has an end
const DELIMITER = /^\s*\|(?:\s*:?-+:?\s*\|)+\s*$/;

/**
 * The elements of a Markdown text.
 *
 * options.cite(number): the element of a citation mark; options.marked: spans {start, end} of the text that
 * no passage supports; options.level: of the highest heading.
 */
export function render(text, options = {}) {
  const lines = [];
  let at = 0;
  for (const line of text.split("\n")) {
    lines.push({ text: line, at });
    at += line.length + 1;
  }
  return blocks(lines, { level: 3, marked: [], ...options, depth: 0 });
}

function blocks(lines, options) {
  const out = [];
  const deeper = { ...options, depth: options.depth + 1 };
  const nests = deeper.depth <= DEEPEST;
  for (let n = 0; n < lines.length; ) {
    const { text } = lines[n];
    let match;
    if (!text.trim()) {
      n += 1;
    } else if ((match = FENCE.exec(text))) {
      const end = lines.findIndex((line, m) => m > n && line.text.trim().startsWith(match[1]));
      const inside = lines.slice(n + 1, end < 0 ? lines.length : end);
      out.push(h("pre", { tabindex: "0" }, h("code", {}, inside.map((line) => line.text).join("\n"))));
      n = end < 0 ? lines.length : end + 1;
    } else if ((match = HEADING.exec(text))) {
      const tag = `h${Math.min(6, options.level + match[1].length - 1)}`;
      out.push(h(tag, {}, inline(unclosed(text.slice(match[0].length)), lines[n].at + match[0].length, options)));
      n += 1;
    } else if (RULE.test(text)) {
      out.push(h("hr"));
      n += 1;
    } else if (nests && QUOTE.test(text)) {
      const end = until(lines, n, (line) => !QUOTE.test(line.text));
      out.push(h("blockquote", {}, blocks(lines.slice(n, end).map((line) => cut(line, QUOTE.exec(line.text)[0].length)), deeper)));
      n = end;
    } else if (ROW.test(text) && n + 1 < lines.length && DELIMITER.test(lines[n + 1].text)) {
      const end = until(lines, n, (line) => !ROW.test(line.text));
      out.push(table(lines[n], lines.slice(n + 2, end), options));
      n = end;
    } else if (nests && (match = ITEM.exec(text))) {
      const end = listEnd(lines, n, match[1].length);
      out.push(list(lines.slice(n, end), match, deeper));
      n = end;
    } else {
      const end = until(lines, n, (line, m) => m > n && (!line.text.trim() || starts(line.text)));
      out.push(h("p", {}, lines.slice(n, end).flatMap((line, m) => [m ? h("br") : null, inline(line.text, line.at, options)])));
      n = end;
    }
  }
  return out;
}

const starts = (text) => [FENCE, HEADING, RULE, QUOTE, ITEM].some((pattern) => pattern.test(text));

/** A heading's words without the #s that may close it. By hand: a pattern would try every # for the end. */
function unclosed(text) {
  const words = text.trimEnd();
  let end = words.length;
  while (words[end - 1] === "#") end -= 1;
  return end === 0 || /\s/.test(words[end - 1]) ? words.slice(0, end).trimEnd() : words; // "C#" ends in its own
}

function until(lines, from, ends) {
  const end = lines.findIndex((line, n) => n >= from && ends(line, n));
  return end < 0 ? lines.length : end;
}

const cut = (line, length) => ({ text: line.text.slice(length), at: line.at + length });

function listEnd(lines, from, indent) {
  return until(lines, from + 1, ({ text }, n) => {
    const item = ITEM.exec(text);
    if (item) return item[1].length < indent;
    return !text.trim() ? !/^\s+\S/.test(lines[n + 1]?.text ?? "") && !ITEM.test(lines[n + 1]?.text ?? "") : !/^\s/.test(text);
  });
}

function list(lines, first, options) {
  const ordered = /\d/.test(first[2]);
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line.text);
    if (item && item[1].length <= first[1].length) items.push([cut(line, item[0].length)]);
    else items.at(-1).push(cut(line, Math.min(first[0].length, line.text.length - line.text.trimStart().length)));
  }
  const start = ordered && first[2] !== "1." ? { start: parseInt(first[2], 10) } : {};
  return h(
    ordered ? "ol" : "ul",
    start,
    items.map(([head, ...rest]) => h("li", {}, inline(head.text, head.at, options), blocks(rest, options))),
  );
}

function table(head, rows, options) {
  const cells = (line, tag) => {
    const out = [];
    const first = line.text.indexOf("|") + 1;
    let at = first;
    for (const cell of line.text.slice(first, line.text.lastIndexOf("|")).split("|")) {
      const lead = cell.length - cell.trimStart().length;
      out.push(h(tag, tag === "th" ? { scope: "col" } : {}, inline(cell.trim(), line.at + at + lead, options)));
      at += cell.length + 1;
    }
    return h("tr", {}, out);
  };
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": head.text.replaceAll("|", " ").trim() },
    h("table", {}, h("thead", {}, cells(head, "th")), h("tbody", {}, rows.map((row) => cells(row, "td")))),
  );
}

function inline(text, at, options) {
  const out = [];
  let done = 0;
  for (const match of text.matchAll(INLINE)) {
    out.push(plain(text.slice(done, match.index), at + done, options));
    done = match.index + match[0].length;
    const place = (piece) => at + match.index + match[0].indexOf(piece);
    if (match[1]) out.push(plain(match[1], at + match.index + 1, options));
    else if (match[2]) out.push(h("code", {}, match[3]));
    else if (match[5] !== undefined) {
      const address = match[6] ?? match[7] ?? "";
      const words = match[4] ? `${t("picture")}: ${match[5] || address}` : inline(match[5], place(match[5]), { ...options, marked: options.marked });
      out.push(link(address, words));
    } else if (match[8]) out.push(match[8].split(/\D+/).map((n) => (options.cite ? options.cite(Number(n)) : `[${n}]`)));
    else if (match[9]) out.push(h("strong", {}, inline(match[10], at + match.index + 2, options)));
    else if (match[11]) out.push(h("em", {}, inline(match[12], at + match.index + 1, options)));
    else out.push(link(match[13], match[13], true));
  }
  out.push(plain(text.slice(done), at + done, options));
  return out;
}

/** A link that shows where it goes; what is no such address stays text. */
export function link(address, words, bare = false) {
  let url = null;
  try {
    url = new URL(address);
  } catch {
    // a path or a fragment: it would lead into this page
  }
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) return h("span", {}, words, address ? ` (${address})` : "");
  const host = url.host || url.pathname;
  return h(
    "a",
    { href: url.href, rel: "noopener noreferrer", referrerpolicy: "no-referrer", target: "_blank", title: url.href },
    words,
    bare ? null : h("span", { class: "host" }, ` (${host})`),
  );
}

function plain(text, at, options) {
  const out = [];
  let done = 0;
  for (const { start, end } of options.marked) {
    const from = Math.max(start - at, done);
    const to = Math.min(end - at, text.length);
    if (from >= to) continue;
    out.push(text.slice(done, from), h("span", { class: "unsupported", title: t("unsupported") }, text.slice(from, to)));
    done = to;
  }
  return [...out, text.slice(done)].filter(Boolean);
}
