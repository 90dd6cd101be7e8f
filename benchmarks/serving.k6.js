// Load on a running service with k6 (https://k6.io), for those who have it; `alchemy bench` needs nothing.
//
//   k6 run -e URL=http://127.0.0.1:8000 -e USERS=5 -e SECONDS=30 -e KEY=$ALCHEMY_API_KEY benchmarks/serving.k6.js
//   k6 run -e RATE=20 ... : questions arrive at that rate, whatever has been answered
//
// k6 reads a response as a whole: time to first byte (http_req_waiting) is that of the first event.
import http from "k6/http";
import { check } from "k6";
import { Counter, Rate } from "k6/metrics";

const URL = __ENV.URL || "http://127.0.0.1:8000";
const USERS = Number(__ENV.USERS || 5);
const DURATION = `${__ENV.SECONDS || 30}s`;
const ZIPF = Number(__ENV.ZIPF || 1);
const QUESTIONS = [
  "How often does the gateway retry a failed delivery?",
  "Which alert is raised when a battery is low?",
  "Who approves a change of the temperature threshold?",
  "What has changed in the last release?",
  "How is a lost connection to the broker handled?",
  "How many days of vacation does an employee have?",
  "网关重试几次？",
];

const goodput = new Rate("goodput");
const degraded = new Counter("answers_degraded");

const closed = { executor: "constant-vus", vus: USERS, duration: DURATION };
const open = {
  executor: "constant-arrival-rate",
  rate: Number(__ENV.RATE),
  timeUnit: "1s",
  duration: DURATION,
  preAllocatedVUs: USERS,
  maxVUs: 50 * USERS,
};

export const options = {
  scenarios: { chat: __ENV.RATE ? open : closed },
  insecureSkipTLSVerify: __ENV.INSECURE === "1",
  summaryTrendStats: ["med", "p(95)", "p(99)", "max"],
  thresholds: { http_req_failed: ["rate<0.01"] },
};

const weights = QUESTIONS.map((_, rank) => 1 / Math.pow(rank + 1, ZIPF));
const total = weights.reduce((sum, weight) => sum + weight, 0);

function pick() {
  let left = Math.random() * total;
  return QUESTIONS[weights.findIndex((weight) => (left -= weight) <= 0)] || QUESTIONS[0];
}

export default function () {
  const headers = { "Content-Type": "application/json" };
  if (__ENV.KEY) headers.Authorization = `Bearer ${__ENV.KEY}`;
  const body = JSON.stringify({ question: pick(), stream: true });
  const response = http.post(`${URL}/api/chat`, body, { headers, timeout: "120s" });
  const text = response.body || "";
  const whole = check(response, {
    "status is 200": (r) => r.status === 200,
    "the stream ends with the answer": () => text.includes("event: done"),
  });
  goodput.add(whole && response.timings.duration <= 1000 * Number(__ENV.SLO || 2));
  if (whole && !text.includes('"degraded":[]')) degraded.add(1);
}
