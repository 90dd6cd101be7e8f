// The administration: releases, cycles, health, cache and users, each a section with its own address.

import { CyclePage } from "./admin-cycle.js";
import { CachePage, HealthPage } from "./admin-health.js";
import { ReleasesPage } from "./admin-releases.js";
import { UsersPage } from "./admin-users.js";
import { Failure } from "./api.js";
import { h, icon, keepFocus } from "./dom.js";
import { t } from "./i18n.js";

const PAGES = { releases: ReleasesPage, cycle: CyclePage, health: HealthPage, cache: CachePage, users: UsersPage };

export class Admin {
  constructor() {
    this.element = h("div", { class: "admin" });
    this.body = h("div", { class: "section" });
    this.pages = Object.fromEntries(Object.entries(PAGES).map(([name, Page]) => [name, new Page((work) => this.show(work))]));
    this.showing = 0;
  }

  /** Shows one section. */
  open(name) {
    this.page = this.pages[name] ?? this.pages.releases;
    const draw = () => {
      this.element.replaceChildren(
        h("nav", { class: "tabs", "aria-label": t("admin") }, Object.keys(PAGES).map((one) =>
          h("a", { id: `to-${one}`, href: `#/admin/${one}`, "aria-current": this.pages[one] === this.page ? "page" : null }, t(one)))),
        this.body,
      );
      this.body.replaceChildren(h("p", { class: "quiet" }, t("loading")));
    };
    keepFocus(this.element, draw, () => this.element.querySelector("[aria-current]"));
    this.show(() => this.page.load());
  }

  /** Called when another view is shown: nothing goes on in the background. */
  leave() {
    this.showing += 1;
    this.page?.leave?.();
    this.page = null;
  }

  /** Puts in place what `work` gives: elements. What it failed with is said in words. */
  async show(work) {
    const turn = (this.showing += 1);
    this.body.setAttribute("aria-busy", "true");
    let elements;
    try {
      elements = await work();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      elements = [h("p", { class: "notice warn", role: "alert" }, icon("warn"), error.message)];
    } finally {
      this.body.removeAttribute("aria-busy");
    }
    if (turn !== this.showing) return;
    const draw = () => this.body.replaceChildren(...elements.flat(Infinity).filter(Boolean));
    keepFocus(this.body, draw, () => this.body.querySelector("h2"));
  }
}
