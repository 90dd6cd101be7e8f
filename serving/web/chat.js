// The conversation: questions go out, answers come in, one at a time.

import { Failure, askStream, request } from "./api.js";
import { $, h, icon } from "./dom.js";
import { t } from "./i18n.js";
import { Turn } from "./turn.js";

export class Chat {
  /** `sessions` keeps the conversations. */
  constructor(sessions) {
    this.sessions = sessions;
    this.turns = [];
    this.session = null;
    this.abort = null;
    this.acts = 0; // clearing, opening, asking: what was done last is shown, whatever comes late
    this.log = h("div", { class: "log" });
    this.input = h("textarea", { id: "question", rows: "1", maxlength: "4000", autocomplete: "off" });
    this.button = h("button", { class: "send", type: "submit" });
    this.hint = h("p", { class: "hint" });
    this.form = h("form", { class: "composer" }, h("div", { class: "box" }, this.input, this.button), this.hint);
    this.element = h("div", { class: "chat" }, this.log, this.form);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.abort) this.stop();
      else this.send(this.input.value);
    });
    this.input.addEventListener("keydown", (event) => {
      // While an input method composes, Enter chooses its characters.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        if (!this.abort) this.send(this.input.value);
      }
    });
    this.input.addEventListener("input", () => this.grow());
    this.show();
  }

  /** The address of what is shown. */
  get home() {
    return this.session ? `#/s/${encodeURIComponent(this.session)}` : "#/";
  }

  get last() {
    return this.turns.at(-1);
  }

  focus() {
    this.input.focus();
  }

  /** Everything anew, as after a change of language. */
  show() {
    this.input.placeholder = t("placeholder");
    this.input.setAttribute("aria-label", t("ask"));
    this.hint.textContent = t("hint");
    this.showButton();
    if (this.turns.length) for (const turn of this.turns) turn.show();
    else this.welcome();
  }

  welcome() {
    this.log.replaceChildren(h("div", { class: "welcome" }, h("img", { src: "/static/icon.svg", alt: "", width: "56", height: "56" }), h("h2", {}, t("welcome")), h("p", {}, t("welcome_text"))));
  }

  showButton() {
    const label = t(this.abort ? "stop" : "send");
    this.button.classList.toggle("stopping", Boolean(this.abort));
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
    this.button.replaceChildren(icon(this.abort ? "stop" : "send"));
  }

  /** Begins a new conversation. */
  clear() {
    this.acts += 1;
    this.stop();
    this.turns = [];
    this.session = null;
    this.show();
  }

  /** Shows a stored conversation, unless something else is done meanwhile. Throws Failure. */
  async open(id) {
    const act = (this.acts += 1);
    this.stop();
    let session;
    try {
      session = await request("GET", `/api/sessions/${encodeURIComponent(id)}`);
    } catch (error) {
      if (act !== this.acts) return;
      throw error;
    }
    if (act !== this.acts) return;
    this.clear();
    this.session = id;
    this.log.replaceChildren();
    let question = "";
    for (const message of session.messages) {
      if (message.role === "user") question = message.content;
      else this.add(Turn.stored(question, message, (again) => this.send(again)));
    }
    this.down();
  }

  add(turn) {
    if (!this.turns.length) this.log.replaceChildren();
    this.turns.push(turn);
    this.log.append(turn.element);
  }

  /** Asks; resolves when the answer is through. */
  async send(text) {
    const question = text.trim();
    if (!question || this.abort) return;
    this.acts += 1;
    this.input.value = "";
    this.grow();
    const turn = new Turn(question, (again) => this.send(again));
    const abort = new AbortController();
    this.abort = abort;
    this.running = turn;
    this.add(turn);
    this.showButton();
    this.down();
    try {
      if (this.session === null) {
        const begun = await this.sessions.begin();
        abort.signal.throwIfAborted(); // another conversation may be shown by now
        this.session = begun;
        this.sessions.choose(begun);
      }
      if (this.session && this.element.isConnected) history.replaceState(null, "", this.home);
      const body = this.session ? { question, session: this.session } : { question };
      for await (const event of askStream(body, abort.signal)) {
        const near = this.near();
        turn.take(event);
        if (near) requestAnimationFrame(() => this.down());
      }
    } catch (error) {
      if (error.name === "AbortError") turn.stop();
      else if (error instanceof Failure) turn.fail(turn.id && error.status !== 401 ? t("lost") : error.message);
      else throw error;
    } finally {
      if (this.abort === abort) {
        this.abort = null;
        this.showButton();
      }
      if (this.session) this.sessions.refresh();
    }
  }

  /** Stops the answer that is being made, here and in the service. Whether there was one. */
  stop() {
    if (!this.abort) return false;
    this.abort.abort();
    this.abort = null;
    this.showButton();
    const { id } = this.running;
    if (id) request("DELETE", `/api/answers/${encodeURIComponent(id)}`).catch(() => {}); // it ends without readers, too
    return true;
  }

  grow() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight, 220)}px`;
  }

  near() {
    const main = $("main");
    return main.scrollHeight - main.scrollTop - main.clientHeight < 120;
  }

  down() {
    $("main").scrollTop = $("main").scrollHeight;
  }
}
