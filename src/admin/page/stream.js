// Receives the page's data: server-sent events, read with fetch, because the key travels in a header and never in an
// address. A stream that ends, breaks or falls silent is asked for again, sooner or later by how often that failed.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 15000;
/** Events come every two seconds. */
const SILENCE = 9000;
/** The server says how long to wait in seconds; it is not believed beyond this. */
const LONGEST_ADVICE = 60;

/** Why a stream did not begin. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

/** What an answer says went wrong. */
export async function refusal(answer) {
  const said = await answer.json().catch(() => ({}));
  return new Refused(answer.status, said.error ?? "unknown", said.message ?? `The gateway answered ${answer.status}.`);
}

/**
 * `ask()` gives address and headers; `heard(view)` gets the data; `told(state)` hears of "live", "waiting" with the time of
 * the next try, and "locked" when a key is needed. Returns a function that starts over at once.
 */
export function listen({ ask, heard, told }) {
  let current = null;
  let failures = 0;
  let timer = 0;

  async function run() {
    const mine = (current = new AbortController());
    let problem = null;
    let advice = 0;
    try {
      const { address, headers } = ask();
      const answer = await fetch(address, { headers, signal: mine.signal, cache: "no-store" });
      if (!answer.ok) {
        advice = Math.min(Number(answer.headers.get("retry-after")) || 0, LONGEST_ADVICE) * 1000;
        throw await refusal(answer);
      }
      await receive(answer.body, mine, (view) => {
        failures = 0;
        told({ state: "live" });
        heard(view);
      });
    } catch (error) {
      problem = error;
    }
    if (current !== mine) return;
    if (problem instanceof Refused && [401, 403].includes(problem.status)) {
      told({ state: "locked", problem });
      return;
    }
    // A stream that ends by itself was as long as streams are.
    const wait = problem ? Math.max(advice, Math.min(FIRST_WAIT * 2 ** failures, LONGEST_WAIT)) : 0;
    failures += problem ? 1 : 0;
    if (problem) told({ state: "waiting", problem, failures, next: Date.now() + wait });
    // Not all viewers at the same moment.
    timer = setTimeout(run, wait + Math.random() * FIRST_WAIT);
  }

  function again() {
    clearTimeout(timer);
    current?.abort();
    failures = 0;
    run();
  }

  run();
  return again;
}

async function receive(body, control, each) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let alarm = 0;
  const alive = () => {
    clearTimeout(alarm);
    alarm = setTimeout(() => control.abort(), SILENCE);
  };
  try {
    for (;;) {
      alive();
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const data = event.split("\n").filter((line) => line.startsWith("data: "));
        if (data.length) each(JSON.parse(data.map((line) => line.slice(6)).join("\n")));
      }
    }
  } finally {
    clearTimeout(alarm);
  }
}
