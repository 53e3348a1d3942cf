// What begins when the page is loaded: wires the parts together.

import { byId, mark, say } from "./dom.js";
import * as orders from "./orders.js";
import * as panels from "./panels.js";
import { listen } from "./stream.js";
import { span } from "./words.js";

/** Milliseconds between two looks at what is not in the stream. */
const LOOK = 5000;
/** The last hour is shown by itself as long as there is not much more than that. */
const MUCH = 3;

let view = null;
let range = null;
let link = { state: "waiting", failures: 0 };
let received = 0;
let again = () => {};

const chosen = () => new URLSearchParams(location.hash.slice(1)).get("org") ?? "";

function show() {
  if (!view) return;
  panels.title(view);
  panels.orgs(view, chosen());
  panels.concerns(view);
  panels.left(view);
  panels.returns(view);
  const shown = range ?? usual(view);
  for (const name of ["day", "hour"]) mark(byId(`range-${name}`), "aria-pressed", String(name === shown));
  panels.spending(view, shown);
  panels.callers(view, (caller) => orders.pauseCaller(view.org.name, caller));
  panels.slots(view);
  panels.upstream(view, (family) => orders.closeBreaker(view.org.name, family));
  panels.cache(view);
  panels.recent(view);
  panels.replicas(view);
  panels.configuration(view);
}

/** The stretch that shows more: the last hour while hardly anything is older. */
function usual({ org }) {
  const day = org?.spending?.day;
  if (!day) return "day";
  const spent = day.others.map((calls, step) => day.callers.reduce((sum, caller) => sum + caller[step], calls));
  const first = spent.findIndex((calls) => calls > 0);
  return first < 0 || first >= spent.length - MUCH ? "hour" : "day";
}

function state() {
  const words = byId("link-words");
  const age = view ? (Date.now() - received) / 1000 : 0;
  if (link.state === "live") say(words, age < 6 ? "Live" : `Last heard ${span(age)} ago`);
  else if (link.state === "locked") say(words, "Needs the admin key");
  else {
    const wait = Math.max(0, Math.ceil((link.next - Date.now()) / 1000));
    const old = view ? ` Figures are ${span(age)} old.` : "";
    say(words, link.failures ? `Not connected. Next try ${wait ? `in ${wait} s` : "now"}.${old}` : "Connecting");
  }
  mark(byId("link"), "class", `link ${link.state}`);
  document.body.classList.toggle("stale", view !== null && link.state !== "live");
}

async function look() {
  const get = async (path) => {
    const answer = await fetch(path, { headers: orders.credentials(), cache: "no-store" }).catch(() => null);
    return answer?.ok ? answer.json().catch(() => null) : null;
  };
  if (link.state !== "live" || document.hidden || !byId("config-details").open) return;
  const config = await get("/api/v1/config");
  if (config) say(byId("config-text"), panels.yaml(config));
}

function locked(problem) {
  if (problem.code === "no_key_configured") {
    say(byId("concerns"), problem.message);
    return;
  }
  const words = orders.hasKey() ? "That was not the admin key. " : "";
  if (!byId("dialog").open) orders.askForKey(`${words}From afar the gateway shows its figures only to who has its admin key.`, again);
}

byId("range-day").addEventListener("click", () => { range = "day"; show(); });
byId("range-hour").addEventListener("click", () => { range = "hour"; show(); });
byId("pause-other").addEventListener("click", () => view?.org && orders.pauseOther(view.org.name));
byId("breaker").addEventListener("click", () => {
  const of = view?.org?.breakers;
  if (of) orders.switchBreakers(view.org.name, of.families.map((one) => one.family));
});
byId("purge").addEventListener("click", () => view?.org && orders.purge(view.org.name));
byId("config-details").addEventListener("toggle", look);
byId("org").addEventListener("change", (event) => {
  location.hash = new URLSearchParams({ org: event.target.value });
});
byId("key-button").addEventListener("click", () => {
  if (orders.hasKey()) {
    orders.forgetKey();
    orders.toast("The key is forgotten.");
    keyed();
  } else orders.askForKey("Orders need it. It is sent with each order to this gateway, and to nobody else.", () => {});
});
addEventListener("hashchange", () => again());
new ResizeObserver(show).observe(byId("main"));

function keyed() {
  say(byId("key-button"), orders.hasKey() ? "Forget admin key" : "Enter admin key");
}

orders.begin(keyed);
again = listen({
  ask: () => {
    const org = chosen();
    const query = org ? `?${new URLSearchParams({ org }).toString().replaceAll("+", "%20")}` : "";
    return { address: `/api/v1/live${query}`, headers: orders.credentials() };
  },
  heard: (data) => {
    view = data;
    received = Date.now();
    show();
  },
  told: (next) => {
    link = next;
    state();
    if (next.state === "locked") locked(next.problem);
  },
});
setInterval(state, 1000);
setInterval(look, LOOK);
