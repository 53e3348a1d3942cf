// Asks before an order is given, and gives it. The admin key is typed in here and lives in this module's memory only.

import { byId, make, say } from "./dom.js";
import { refusal } from "./stream.js";
import { plain } from "./words.js";

let key = "";
let submit = null;
let hide = 0;

export const hasKey = () => key !== "";

/** The headers that show the key, if there is one. */
export const credentials = () => (key ? { authorization: `Bearer ${key}` } : {});

/** Says something for a few seconds. */
export function toast(text) {
  const place = byId("toast");
  say(place, text);
  place.classList.add("shown");
  clearTimeout(hide);
  hide = setTimeout(() => {
    place.classList.remove("shown");
    say(place, "");
  }, 6000);
}

/**
 * Opens the dialog. `act(fields)` does what is confirmed and returns what to say then; what it throws is shown, and the
 * dialog stays.
 */
function confirm({ title, words, yes, fields = [], needsKey = true, danger = false, act }) {
  const dialog = byId("dialog");
  say(byId("dialog-title"), title);
  say(byId("dialog-words"), words);
  say(byId("dialog-yes"), yes);
  byId("dialog-yes").classList.toggle("danger", danger);
  say(byId("dialog-problem"), "");
  byId("dialog-fields").replaceChildren(...fields);
  byId("dialog-key").hidden = !needsKey || hasKey();
  byId("key").value = "";
  submit = act;
  if (!dialog.open) dialog.showModal();
  const first = fields.length ? byId("dialog-fields").querySelector("select, input") : null;
  (first ?? (byId("dialog-key").hidden ? byId("dialog-no") : byId("key"))).focus();
}

function close() {
  byId("key").value = "";
  submit = null;
  byId("dialog").close();
}

/** Sends an order; throws what the gateway says against it. */
async function give(path, parameters) {
  const query = new URLSearchParams(parameters).toString().replaceAll("+", "%20");
  const answer = await fetch(`${path}?${query}`, { method: "POST", headers: credentials(), cache: "no-store" });
  if (answer.ok) {
    await answer.text();
    return;
  }
  const problem = await refusal(answer);
  if (problem.status === 401) {
    key = "";
    byId("dialog-key").hidden = false;
    byId("key").focus();
    throw new Error("This is not the admin key.");
  }
  throw problem;
}

function field(id, label, input) {
  input.id = id;
  return make("p", { class: "field" }, [make("label", { for: id, text: label }), input]);
}

const option = (value, text) => make("option", { value, text });

/** Asks whether to pause or resume one caller. */
export function pauseCaller(org, caller) {
  const pause = !caller.paused;
  confirm({
    title: pause ? `Pause ${caller.name}?` : `Resume ${caller.name}?`,
    words: pause
      ? `No call of ${caller.name} is sent to ${org} until it is resumed; each is refused and says so. A restart changes nothing about it.`
      : `Calls of ${caller.name} are sent to ${org} again.`,
    yes: pause ? `Pause ${caller.name}` : `Resume ${caller.name}`,
    danger: pause,
    act: async () => {
      await give(pause ? "/api/v1/pause" : "/api/v1/resume", { org, caller: caller.name });
      return `${caller.name} is ${pause ? "paused" : "resumed"}.`;
    },
  });
}

/** Asks whom to pause or resume. */
export function pauseOther(org) {
  const what = make("select", {}, [option("pause", "Pause"), option("resume", "Resume")]);
  const whom = make("select", {}, [option("", "the caller named below"), ...["batch", "standard", "interactive"].map((name) => option(name, `all ${name} calls`))]);
  const name = make("input", { type: "text", autocomplete: "off", spellcheck: "false" });
  whom.addEventListener("change", () => {
    name.closest("p").hidden = whom.value !== "";
  });
  confirm({
    title: "Pause or resume",
    words: `What is paused is refused and says so, until it is resumed; a restart changes nothing about it. Org: ${org}.`,
    yes: "Do it",
    danger: true,
    fields: [field("order-what", "Order", what), field("order-whom", "Whose calls", whom), field("order-name", "Caller's name", name)],
    act: async () => {
      const caller = name.value.trim();
      if (!whom.value && !caller) throw new Error("Write the caller's name.");
      await give(`/api/v1/${what.value}`, whom.value ? { org, class: whom.value } : { org, caller });
      return `${whom.value ? `All ${whom.value} calls are` : `${caller} is`} ${what.value === "pause" ? "paused" : "resumed"}.`;
    },
  });
}

/** Asks which kept answers to forget. */
export function purge(org) {
  const object = make("input", { type: "text", autocomplete: "off", spellcheck: "false", placeholder: "Account" });
  confirm({
    title: "Forget kept answers?",
    words: `Salesforce is asked again the next time, which costs calls. Org: ${org}.`,
    yes: "Forget them",
    danger: true,
    fields: [field("order-object", "Object (leave empty for all)", object)],
    act: async () => {
      const name = object.value.trim();
      await give("/api/v1/cache/purge", name ? { org, object: name } : { org });
      return name ? `Answers about ${name} are forgotten.` : "All kept answers are forgotten.";
    },
  });
}

/** Asks whether to let the calls to one API pass again. */
export function closeBreaker(org, family) {
  confirm({
    title: `Let calls to ${plain(family)} pass?`,
    words: `They are all sent to ${org} again at once, whatever the breaker found out. If Salesforce is not well it opens again by itself.`,
    yes: "Let them pass",
    act: async () => {
      await give("/api/v1/breakers/close", { org, family });
      return `Calls to ${plain(family)} pass.`;
    },
  });
}

/** Asks which breakers to open or close, of those of `families`. */
export function switchBreakers(org, families) {
  const what = make("select", {}, [option("open", "Hold calls back"), option("close", "Let calls pass")]);
  const which = make("select", {}, [option("", "all APIs"), ...families.map((name) => option(name, plain(name)))]);
  const length = make("select", {}, [["", "until they are let pass"], ["15m", "15 minutes"], ["1h", "an hour"], ["4h", "4 hours"]]
    .map(([value, text]) => option(value, text)));
  what.addEventListener("change", () => {
    length.closest("p").hidden = what.value !== "open";
  });
  confirm({
    title: "Hold calls back or let them pass",
    words: `What is held back is answered from memory where that is allowed, else refused at once with 503. Org: ${org}.`,
    yes: "Do it",
    danger: true,
    fields: [field("order-switch", "Order", what), field("order-family", "Which API", which), field("order-length", "For how long", length)],
    act: async () => {
      const open = what.value === "open";
      const family = which.value ? { family: which.value } : {};
      await give(`/api/v1/breakers/${what.value}`, { org, ...family, ...(open && length.value ? { for: length.value } : {}) });
      return `${which.value ? `Calls to ${plain(which.value)}` : "All calls"} ${open ? "are held back" : "pass"}.`;
    },
  });
}

/** Asks for the key alone; `then` is called once there is one. */
export function askForKey(words, then) {
  key = "";
  confirm({
    title: "Admin key",
    words,
    yes: "Use this key",
    act: async () => {
      if (!hasKey()) throw new Error("Write the key.");
      then();
      return "The key is kept until this tab is closed or reloaded.";
    },
  });
}

export function forgetKey() {
  key = "";
}

/** Wires the dialog. `changed` is called when there is a key, or none any more. */
export function begin(changed) {
  byId("dialog-no").addEventListener("click", close);
  byId("dialog").addEventListener("close", () => {
    // It may be open again already.
    if (byId("dialog").open) return;
    byId("key").value = "";
    submit = null;
  });
  byId("dialog-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!submit) return;
    const typed = byId("key").value.trim();
    if (!byId("dialog-key").hidden && typed) key = typed;
    const button = byId("dialog-yes");
    button.disabled = true;
    try {
      toast(await submit());
      close();
    } catch (problem) {
      say(byId("dialog-problem"), problem.message || "The gateway does not answer.");
    } finally {
      button.disabled = false;
      changed();
    }
  });
}
