// Puts what was received where it belongs. Each function owns one part of the page.

import { bars } from "./charts.js";
import { byId, cells, each, facts, make, mark, say } from "./dom.js";
import { ago, bytes, counted, footing, level, number, percent, plain, span, time, trouble } from "./words.js";

const SEVERITIES = { urgent: "Act now", warning: "Look at it", note: "Good to know" };
const clock = (minutes) => time(minutes * 60, minutes * 60);

export function title(view) {
  const { org } = view;
  const left = org && org.headroom !== null ? `${number(org.headroom)} left · ${org.name} · ` : "";
  document.title = `${left}Weirkeeper`;
}

export function orgs(view, chosen) {
  const select = byId("org");
  byId("choose").hidden = view.orgs.length < 2;
  each(select, view.orgs, (org) => org.name, (org) => make("option", { value: org.name }), (option, org) => {
    const state = org.worst === "urgent" ? " – act now" : org.worst === "warning" ? " – look at it" : "";
    say(option, org.headroom === null ? org.name + state : `${org.name}: ${number(org.headroom)} left${state}`);
  });
  const name = view.org?.name;
  if (name && document.activeElement !== select) select.value = chosen || name;
}

export function concerns(view) {
  const list = byId("concerns");
  const fine = [{ severity: "fine", what: "Nothing. Calls go through and nobody is held back.", remedy: "" }];
  const shown = view.concerns.length ? view.concerns : fine;
  each(list, shown, (one) => one.org + one.what.replace(/\d/g, "") + one.remedy, () => {
    const words = make("div", {}, [make("strong"), make("span", { class: "remedy" })]);
    return make("li", {}, [make("span", { class: "badge" }), words]);
  }, (item, one) => {
    mark(item, "class", `concern ${one.severity}`);
    const at = one.at_seconds ? time(one.at_seconds, view.now_seconds) : "";
    say(item.firstElementChild, SEVERITIES[one.severity] ?? "All is well");
    const words = item.lastElementChild;
    say(words.firstElementChild, one.what.replace("{at}", at));
    say(words.lastElementChild, one.remedy);
  });
  // Figures change all the time; who listens hears only when there is more or less to do.
  const count = (severity) => view.concerns.filter((one) => one.severity === severity).length;
  say(byId("told"), `What is wrong now: ${number(count("urgent"))} to act on, ${number(count("warning"))} to look at.`);
}

export function left(view) {
  const { org } = view;
  if (!org) return;
  const { forecast } = org;
  const known = org.headroom !== null && org.ceiling !== null;
  say(byId("left"), known ? number(org.headroom) : number(org.used));
  say(byId("left-of"), known ? `of ${number(org.ceiling)} left` : "used; what is left is not known");
  const whole = org.limit || org.used || 1;
  const outside = Math.max(0, org.used - org.own);
  const kept = known ? org.limit - org.ceiling : 0;
  const parts = [["own", org.own, "through the gateway"], ["dark", outside, "past the gateway"],
    ["reserved", org.reserved, "being sent"], ["free", known ? org.headroom : 0, "left"], ["kept", kept, "kept free"]]
    .filter(([, calls]) => calls > 0);
  const meter = byId("meter");
  each(meter, parts, ([kind]) => kind, ([kind]) => make("span", { class: kind }), (part, [, calls]) => {
    part.style.width = `${Math.min(100, (calls / whole) * 100)}%`;
  });
  mark(meter, "aria-label", parts.map(([, calls, words]) => `${number(calls)} ${words}`).join(", ") || "Not known yet");
  each(byId("meter-key"), parts, ([kind]) => kind,
    ([kind]) => make("li", {}, [make("span", { class: `swatch ${kind}` }), make("span")]),
    (item, [, calls, words]) => say(item.lastElementChild, `${number(calls)} ${words}`));
  const pace = `${number(forecast.pace_per_hour)} calls an hour`;
  const at = forecast.runs_out === null ? "" : time(forecast.runs_out * 60, view.now_seconds);
  facts(byId("left-facts"), [
    ["Runs out", at ? `about ${at}, at ${pace}` : `not in the next 24 hours, at ${pace}`],
    ["Level", level(org.level)],
    ["Limit", org.limit === null ? footing(org.footing) : `${number(org.limit)} in 24 hours, ${footing(org.footing)}`],
    ["Last said", org.read_at === null ? "never" : view.now_seconds - org.read_at * 60 < 120 ? "just now" : ago(org.read_at * 60, view.now_seconds)],
    ["Held for callers", org.held ? counted(org.held, "guaranteed call", "guaranteed calls") : ""],
    ["Bulk batches", org.bulk_batches.used ? `${number(org.bulk_batches.used)} of ${number(org.bulk_batches.limit)}` : ""],
  ]);
}

export function returns(view) {
  const { org } = view;
  if (!org) return;
  const hours = org.returning_by_hour;
  const now = view.now_seconds;
  const until = (hour) => time(now + hour * 3600, now);
  const sum = (count) => hours.slice(0, count).reduce((all, calls) => all + calls, 0);
  const all = sum(24);
  const words = all === 0
    ? "Nothing was spent in the last 24 hours, so nothing comes back."
    : [1, 6, 12, 24].map((count) => [count, sum(count)]).filter(([, calls]) => calls > 0)
      .map(([count, calls]) => `${number(calls)} by ${until(count)}`).join(" · ");
  say(byId("returns-words"), words);
  bars(byId("returns"), {
    series: [{ kind: "back", values: hours }],
    labels: hours.map((_, hour) => time(now + hour * 3600, now + hour * 3600)),
    titles: hours.map((calls, hour) => `${until(hour)} to ${until(hour + 1)}: ${counted(calls, "call comes", "calls come")} back`),
    summary: `Calls that come back: ${words}`,
  });
}

export function spending(view, range) {
  const { org } = view;
  const table = org?.spending;
  if (!table) return;
  const steps = table[range];
  const labels = steps.others.map((_, step) => clock(steps.begins + step * steps.minutes));
  const series = table.callers.map((name, place) => ({ name, kind: `s${place}`, values: steps.callers[place] }));
  if (steps.others.some((calls) => calls > 0)) series.push({ name: "all others", kind: "sx", values: steps.others });
  const total = (one) => one.values.reduce((sum, calls) => sum + calls, 0);
  const largest = series.filter((one) => total(one) > 0).sort((one, other) => total(other) - total(one));
  const sum = largest.reduce((all, one) => all + total(one), 0);
  const where = range === "day" ? "the last 24 hours" : "the last hour";
  const words = sum === 0 ? `No calls were spent in ${where}.`
    : `${counted(sum, "call", "calls")} in ${where}: ${largest.slice(0, 3).map((one) => `${one.name} ${percent(total(one), sum)}`).join(", ")}.`;
  say(byId("spending-words"), words);
  bars(byId("spending"), {
    series, labels, minutes: steps.minutes, begins: steps.begins - new Date(steps.begins * 60000).getTimezoneOffset(),
    titles: labels.map((label, step) => {
      const said = largest.filter((one) => one.values[step] > 0).map((one) => `${one.name}: ${number(one.values[step])}`);
      return [`From ${label}`, ...said].join("\n");
    }),
    summary: `Calls spent by caller. ${words}`,
  });
}

/** `order` is called with a caller and whether it is to be paused. */
export function callers(view, order) {
  const { org } = view;
  if (!org) return;
  const colours = new Map((org.spending?.callers ?? []).map((name, place) => [name, `s${place}`]));
  const rows = org.callers.map((caller) => ({ ...caller, kind: colours.get(caller.name) ?? "sx" }));
  if (org.others.callers) {
    rows.push({ name: `All ${number(org.others.callers)} others`, kind: "sx", rest: true, ...org.others });
  }
  const refused = (caller) => caller.denied?.reduce((sum, [, count]) => sum + count, 0) ?? 0;
  // A column in which nobody has anything takes no room.
  const used = { floors: (one) => one.floor, ceilings: (one) => one.ceiling, refusals: refused };
  for (const [name, has] of Object.entries(used)) byId("callers").classList.toggle(`no-${name}`, !rows.some(has));
  const key = (row) => (row.rest ? " rest" : row.name);
  const body = byId("callers").tBodies[0];
  // Rows do not change places under a pointer, nor while one of their buttons has the focus.
  if (body.matches(":hover, :focus-within")) {
    const places = new Map([...body.children].map((row, place) => [row.dataset.key, place]));
    const place = (row) => places.get(key(row)) ?? places.size;
    rows.sort((one, other) => place(one) - place(other));
  }
  each(body, rows, key, (caller) => {
    const name = make("th", { scope: "row" }, [make("span", { class: "swatch" }), make("span"), make("em", { class: "tag" })]);
    const row = make("tr", {}, [name, ...Array.from({ length: 6 }, () => make("td", { class: "num" })), make("td")]);
    if (!caller.rest && !caller.retired && caller.name !== "lost leases") {
      row.lastElementChild.append(make("button", { type: "button", class: "quiet small", on: () => order(row.caller) }));
    }
    return row;
  }, (row, caller) => {
    row.caller = caller;
    mark(row.cells[0].children[0], "class", `swatch ${caller.kind}`);
    say(row.cells[0].children[1], caller.name);
    say(row.cells[0].children[2], caller.paused ? "paused" : "");
    const texts = [number(caller.used), percent(caller.used, org.own), number(caller.pace_per_hour),
      caller.floor ? number(caller.floor) : "–", number(caller.ceiling ?? null), refused(caller) ? number(refused(caller)) : "–"];
    texts.forEach((text, place) => say(row.cells[place + 1], text));
    const button = row.lastElementChild.firstElementChild;
    if (button) {
      say(button, caller.paused ? "Resume" : "Pause");
      mark(button, "aria-label", `${caller.paused ? "Resume" : "Pause"} ${caller.name}`);
    }
  });
  const unnamed = org.unnamed.filter((client) => client.name !== "none");
  say(byId("unnamed"), unnamed.length
    ? `Callers that nobody named: ${unnamed.map((client) => `${client.name} about ${number(client.calls)}`).join(", ")}.` : "");
}

export function slots(view) {
  const of = view.org?.slots;
  if (!of) return;
  const elsewhere = of.shared?.used_elsewhere ?? 0;
  const held = of.live + of.predicted + of.ghost + of.overdraft + elsewhere;
  say(byId("slots-held"), number(held));
  say(byId("slots-of"), `of ${number(of.effective)} places for calls of ${span(of.after_seconds)} or longer are taken`);
  const kinds = [["live", of.live], ["predicted", of.predicted], ["ghost", of.ghost], ["overdraft", of.overdraft],
    ["elsewhere", elsewhere]];
  const places = kinds.flatMap(([kind, count]) => Array.from({ length: Math.min(count, 100) }, () => kind));
  while (places.length < Math.min(of.slots, 100)) places.push("empty");
  each(byId("places"), places.map((kind, place) => ({ kind, place })), (one) => String(one.place), () => make("span"),
    (element, one) => mark(element, "class", one.kind));
  const words = { live: "waited for", predicted: "expected to run long", ghost: "whose caller has left", overdraft: "without a place",
    elsewhere: "by other replicas" };
  const said = kinds.filter(([, count]) => count > 0).map(([kind, count]) => `${number(count)} ${words[kind]}`);
  mark(byId("places"), "aria-label", said.length ? said.join(", ") : "All places are free");
  const waiting = of.queue.filter((one) => one.waiting > 0)
    .map((one) => `${number(one.waiting)} ${one.class}, the first for ${span(one.longest_seconds)}`);
  facts(byId("slots-facts"), [
    ["Taken by", said.join(", ") || "nobody"],
    ["Waiting", waiting.join("; ") || "nobody"],
    ["This replica may use", of.shared ? `${number(of.shared.granted)}, others ${number(of.shared.elsewhere)}` : ""],
    ["Under way", counted(of.in_the_air, "call", "calls")],
    ["Refused by Salesforce", of.refusals ? `${counted(of.refusals, "long call", "long calls")} since the start` : ""],
  ]);
  const none = [{ none: true }];
  each(byId("calls").tBodies[0], of.calls.length ? of.calls : none,
    (call) => (call.none ? " none" : `${call.fingerprint}${call.caller}${Math.round(view.now_seconds - call.age_seconds)}`),
    (call) => (call.none ? make("tr", {}, [make("td", { colspan: 4, class: "none", text: "No call runs long." })])
      : make("tr", {}, [make("td", { class: "num" }), make("th", { scope: "row" }), make("td"), make("td", { class: "route" })])),
    (row, call) => {
      if (call.none) return;
      const state = call.ghost ? " (its caller has left)" : "";
      cells(row, [span(call.age_seconds), call.caller, call.class + state, call.template || plain(call.family)]);
    });
}

/** `order` is called with the API whose breaker is to be closed. */
export function upstream(view, order) {
  breakers(view.org?.breakers, order);
  const of = view.org?.upstream;
  if (!of) return;
  const lately = view.recent.filter((line) => line.what === "failed" && line.lately).reduce((sum, line) => sum + line.lately, 0);
  const failed = of.connects_failed.map(([kind, count]) => `${number(count)} ${kind}`).join(", ");
  facts(byId("upstream-facts"), [
    ["Connections", `${number(of.busy)} busy, ${number(of.idle)} idle`],
    ["Failed lately", lately ? counted(lately, "call", "calls") : "none"],
    ["Could not connect", failed ? `${failed} since the start` : "never"],
    ["May be repeated", repeated(view.org.breakers?.retries ?? [])],
    ["Sent again unsent", of.resent ? counted(of.resent, "message", "messages") : ""],
    ["Caller left", of.abandoned ? `${counted(of.abandoned, "call goes", "calls go")} on without one` : ""],
  ]);
  const { identities } = view.org;
  byId("identities").hidden = identities.length === 0;
  each(byId("identities-list"), identities, (one) => one.identity, () => make("li", { class: "chip" }), (chip, one) => {
    mark(chip, "class", `chip ${one.trouble ? "bad" : "good"}`);
    say(chip, `${one.identity}: ${plain(one.trouble ?? one.state)}`);
  });
}

/** How many failed calls may still be made once more. */
function repeated(retries) {
  const of = { usual: "failed calls", lock: "locked records" };
  const said = retries.map((one) => `${number(one.left)} of ${number(one.allowed)} ${of[one.reason] ?? plain(one.reason)}`);
  return said.length ? `${said.join(", ")} in 10 s` : "";
}

function breakers(of, order) {
  const panel = byId("breakers");
  panel.hidden = !of || of.mode === "off";
  if (panel.hidden) return;
  const shown = of.families.filter((one) => one.state !== "closed" || one.opened > 0);
  const users = of.users_held_back ? ` ${counted(of.users_held_back, "user is", "users are")} held back.` : "";
  const shut = of.families.filter((one) => one.state !== "closed");
  const why = shut.every((one) => one.by_hand) ? "because an operator ordered it" : "while Salesforce is not well";
  const state = shut.length === 0 ? "All APIs are let through."
    : of.mode === "observe" ? "Only watched: calls to some APIs would be held back." : `Calls to some APIs are held back ${why}.`;
  say(byId("breakers-words"), state + users);
  const words = { closed: "let through", open: "held back", half_open: "being tried" };
  each(byId("breakers-list"), shown, (one) => one.family, (one) => {
    const close = make("button", { type: "button", class: "quiet small", text: "Let pass", on: () => order(one.family) });
    mark(close, "aria-label", `Let pass calls to ${plain(one.family)}`);
    return make("li", {}, [make("span"), close]);
  }, (chip, one) => {
    mark(chip, "class", `chip ${one.state === "closed" ? "good" : "bad"}`);
    const next = one.finds_out_in_seconds !== null ? `, next try in ${span(one.finds_out_in_seconds)}`
      : one.by_hand ? " until an operator closes it" : "";
    const often = one.state === "closed" ? `, was open ${counted(one.opened, "time", "times")}` : "";
    say(chip.firstElementChild, `${plain(one.family)}: ${words[one.state] ?? plain(one.state)}${next}${often}`);
    chip.lastElementChild.hidden = one.state === "closed";
  });
}

export function cache(view) {
  const of = view.cache;
  const saved = Object.values(of.saved).reduce((sum, calls) => sum + calls, 0);
  const spent = view.org?.own ?? 0;
  say(byId("saved"), number(saved));
  say(byId("saved-of"), "calls saved since the start");
  const asked = Object.values(of.events).reduce((sum, requests) => sum + requests, 0);
  const hits = (of.events.hit ?? 0) + (of.events.stale ?? 0);
  const by = Object.entries(of.saved).sort(([, one], [, other]) => other - one).map(([why, calls]) => `${number(calls)} ${plain(why)}`);
  facts(byId("cache-facts"), [
    ["From memory", asked ? `${percent(hits, asked)} of ${counted(asked, "request", "requests")} that could be` : "nothing yet"],
    ["Saved by", by.join(", ")],
    ["Without it", saved && spent ? `${number(spent + saved)} calls instead of ${number(spent)}` : ""],
    ["For", of.savers.map(([name, calls]) => `${name} ${number(calls)}`).join(", ")],
    ["Kept", of.limit ? `${counted(of.answers, "answer", "answers")}, ${bytes(of.bytes)} of ${bytes(of.limit)}` : "nothing: there is no cache"],
  ]);
  byId("purge").hidden = of.limit === 0;
}

export function recent(view) {
  const rows = view.recent.length ? view.recent : [{ none: true }];
  const key = (line) => (line.none ? " none" : [line.caller, line.what, line.reason, line.kind, line.code, line.object].join(" "));
  each(byId("recent").tBodies[0], rows, key, (line) => {
    if (line.none) return make("tr", {}, [make("td", { colspan: 6, class: "none", text: "Nothing was refused and nothing failed." })]);
    const numbers = [make("td", { class: "num" }), make("td", { class: "num" })];
    return make("tr", {}, [make("td", { class: "when" }), make("th", { scope: "row" }),
      make("td", {}, [make("span"), make("small", { class: "narrow remedy" })]), ...numbers, make("td", { class: "remedy" })]);
  }, (row, line) => {
    if (line.none) return;
    mark(row, "class", line.lately ? "" : "past");
    const [when, caller, what, lately, all, remedy] = row.cells;
    say(when, ago(line.last_seconds, view.now_seconds));
    say(caller, line.caller);
    say(what.firstElementChild, trouble(line));
    say(what.lastElementChild, line.remedy);
    mark(what, "title", line.template || undefined);
    say(lately, number(line.lately));
    say(all, number(line.count));
    say(remedy, line.remedy);
  });
}

export function replicas(view) {
  const of = view.replicas;
  byId("replicas").hidden = !of;
  if (!of) return;
  const store = of.store.up
    ? `The store they share has answered for ${span(of.store.since_seconds)}.`
    : `The store they share has not answered for ${span(of.store.since_seconds)}: each goes on as on_loss says, ${plain(of.store.on_loss)}.`;
  const asks = of.orgs.some((org) => org.asks) ? " This one asks Salesforce what is used." : "";
  say(byId("replicas-words"), `${counted(of.replicas.length, "replica", "replicas")}. ${store}${asks}`);
  mark(byId("replicas-words"), "class", of.store.up ? "sub" : "sub problem");
  each(byId("replicas-list").tBodies[0], of.replicas, (one) => one.replica, () => make("tr", {}, [
    make("th", { scope: "row" }), make("td"), make("td", { class: "num" }), make("td", { class: "num" }),
  ]), (row, one) => cells(row, [
    `${one.name}${one.this ? " (this one)" : ""}`, one.version, span(one.up_seconds), ago(view.now_seconds - one.heard_seconds_ago, view.now_seconds),
  ]));
}

export function configuration(view) {
  const { config } = view;
  const when = time(config.last_reload_timestamp_seconds, view.now_seconds);
  const from = config.path ? ` from ${config.path}` : "";
  const words = config.last_reload_successful
    ? `Loaded at ${when}${from}. ${counted(config.reloads_succeeded, "reload", "reloads")} since the start, ${number(config.reloads_failed)} failed.`
    : `The last reload at ${when} failed and changed nothing: ${config.last_reload_error ?? "the log says why"}`;
  say(byId("config-words"), words);
  mark(byId("config-words"), "class", config.last_reload_successful ? undefined : "problem");
  const ready = view.readiness.ready ? "ready" : "not ready";
  say(byId("about"), `Weirkeeper ${view.version}, up for ${span(view.uptime_seconds)}, ${ready}; ${counted(view.log.lines, "log line", "log lines")}, ${number(view.log.dropped)} lost.`);
}

/** The configuration as YAML, which is how it was written. */
export function yaml(value, indent = "") {
  if (value === null || typeof value !== "object") return scalar(value);
  const entries = Object.entries(value);
  if (entries.length === 0) return Array.isArray(value) ? "[]" : "{}";
  return entries.map(([key, inner]) => {
    const text = yaml(inner, `${indent}  `);
    const nested = inner !== null && typeof inner === "object" && Object.keys(inner).length > 0;
    if (Array.isArray(value)) return `${indent}- ${text.trimStart()}`;
    return `${indent}${key}:${nested ? `\n${text}` : ` ${text}`}`;
  }).join("\n");
}

function scalar(value) {
  if (typeof value !== "string") return String(value);
  return /^[A-Za-z0-9_./][\w ./%-]*$/.test(value) ? value : JSON.stringify(value);
}
