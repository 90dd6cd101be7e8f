// Requests to the service: tokens, errors in words, and event streams that go on after a break.
//
// The access token lives in memory, the refresh token in the tab's session storage; neither is in a URL.

import { t } from "./i18n.js";

const REFRESH = "refresh_token";
const PATIENCE = [300, 1000, 2000, 4000, 8000]; // ms between attempts to go on with a broken stream

let token = null;
let refreshing = null;

/** What a request failed with; `message` is for people. */
export class Failure extends Error {
  constructor(status, message, after = 0, said = words(status, message, after)) {
    super(said);
    this.status = status;
    this.after = after;
  }
}

function words(status, message, after) {
  if (status === 0) return t("e_network");
  const known = [401, 403, 404, 409, 413, 422, 429, 503].includes(status);
  return t(known ? `e_${status}` : "e_other", { message, after });
}

export const hasToken = () => token !== null || sessionStorage.getItem(REFRESH) !== null;

function keep(row) {
  token = row.access_token;
  sessionStorage.setItem(REFRESH, row.refresh_token);
  return row.user;
}

export function forget() {
  token = null;
  sessionStorage.removeItem(REFRESH);
}

/** Logs in by OAuth2's password flow. Throws Failure. */
export async function login(username, password) {
  const body = new URLSearchParams({ grant_type: "password", username, password });
  const response = await send("POST", "/api/auth/login", { body });
  if (response.status === 401) throw new Failure(401, "", 0, t("e_login"));
  return keep(await (await checked(response)).json());
}

export async function logout() {
  try {
    await request("POST", "/api/auth/logout");
  } finally {
    forget();
  }
}

/** The JSON of a response, or null where there is none. Throws Failure. */
export async function request(method, path, body, options = {}) {
  const response = await open(method, path, body, options);
  return response.status === 204 ? null : response.json();
}

/** A response that succeeded; renews the token once where it has expired. Throws Failure. */
export async function open(method, path, body, { signal, headers = {} } = {}) {
  const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const attempt = () => send(method, path, { ...json, signal, headers: { ...json.headers, ...headers } });
  if (token === null && sessionStorage.getItem(REFRESH)) await renewed();
  let response = await attempt();
  if (response.status === 401 && (await renewed())) response = await attempt();
  if (response.status === 401) document.dispatchEvent(new Event("signedout"));
  return checked(response);
}

async function send(method, path, { headers = {}, ...rest }) {
  const authorization = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    return await fetch(path, { method, headers: { ...headers, ...authorization }, ...rest });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, error.message);
  }
}

async function checked(response) {
  if (response.ok) return response;
  let message = response.statusText;
  try {
    message = (await response.json()).error.message;
  } catch {
    // a proxy's page; its status says enough
  }
  throw new Failure(response.status, message, Number(response.headers.get("Retry-After") ?? 0));
}

/** Whether there is a new access token. Several requests at once share one renewal: refresh tokens rotate. */
function renewed() {
  refreshing ??= renew().finally(() => {
    refreshing = null;
  });
  return refreshing;
}

async function renew() {
  const refresh_token = sessionStorage.getItem(REFRESH);
  if (!refresh_token) return false;
  const response = await send("POST", "/api/auth/refresh", {
    body: JSON.stringify({ refresh_token }),
    headers: { "Content-Type": "application/json" },
  });
  if (response.status === 401) {
    forget();
    return false;
  }
  await checked(response); // a service that is away for a moment ends no login
  keep(await response.json());
  return true;
}

/** The events of one answer; after a break it goes on with those that were missed, and yields {event: "broken"}. */
export async function* askStream(body, signal) {
  let response = await open("POST", "/api/chat", { ...body, stream: true }, { signal });
  let last = 0;
  let id = null;
  let ended = false;
  for (let breaks = 0; ; ) {
    try {
      for await (const event of parse(response.body)) {
        last = event.id || last;
        breaks = 0;
        if (event.event === "started") id = event.data.id;
        ended ||= ["done", "error", "stopped"].includes(event.event);
        yield event;
      }
      if (ended) return;
      throw new Failure(0, "the stream ended early");
    } catch (error) {
      if (ended) return;
      if (error.name === "AbortError" || id === null) throw error;
      for (;;) {
        if (breaks >= PATIENCE.length) throw error;
        yield { event: "broken" };
        await pause(PATIENCE[breaks], signal);
        breaks += 1;
        try {
          response = await open("GET", `/api/answers/${id}/events`, undefined, { signal, headers: { "Last-Event-ID": last } });
          break;
        } catch (again) {
          if (again.name === "AbortError" || again.status) throw again; // an answer that is not made any more
        }
      }
    }
  }
}

/** Server-sent events of a body: {id, event, data}, with the data parsed. */
async function* parse(body) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) {
        const fields = {};
        for (const line of frame.split("\n")) {
          const colon = line.indexOf(": ");
          if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
        }
        if (fields.data) yield { id: Number(fields.id), event: fields.event, data: JSON.parse(fields.data) };
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, error.message);
  } finally {
    reader.cancel().catch(() => {});
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    }, { once: true });
  });
}
