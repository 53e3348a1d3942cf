// Looks at the page in a real browser, step by step as it is told on standard input: one JSON order a line, one JSON answer a
// line. It decides nothing; what must hold stands in tests/page.rs.

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");

const [, , modules, executablePath] = process.argv;
const { chromium } = require(path.join(modules, "node_modules/playwright-core"));
const axe = fs.readFileSync(path.join(modules, "node_modules/axe-core/axe.min.js"), "utf8");

const PATIENCE = 60_000;
/** Everything as it is shown at the end: bars do not grow, dialogs do not fade. */
const LOOKS = {
  light: { viewport: { width: 1360, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 1360, height: 900 }, colorScheme: "dark" },
  phone: { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true },
};

let browser;
let page;
let complaints = [];
let bodies = [];

const orders = {
  /** Opens a tab of one look; what it complains about from now on is kept. */
  async open({ look, url }) {
    await page?.context().close();
    const context = await browser.newContext({ ...LOOKS[look], reducedMotion: "reduce" });
    page = await context.newPage();
    complaints = [];
    bodies = [];
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("requestfailed", (request) => {
      const why = request.failure()?.errorText ?? "";
      // A stream ends like this when its tab is closed or goes elsewhere.
      if (why !== "net::ERR_ABORTED") complaints.push(`${request.url()}: ${why}`);
    });
    page.on("response", (answer) => {
      if (!answer.url().includes("/api/")) bodies.push(answer.body().catch(() => ""));
    });
    await page.goto(url);
  },

  /** Waits until an element says something that matches; returns what it says. */
  async until({ selector, matches }) {
    const see = ([selector, matches]) => {
      const text = document.querySelector(selector)?.textContent ?? "";
      return new RegExp(matches).test(text) ? text || " " : null;
    };
    const handle = await page.waitForFunction(see, [selector, matches], { timeout: PATIENCE });
    return handle.jsonValue();
  },

  /** Milliseconds to the first paint, of `loads` loads one after the other. */
  async paints({ url, loads }) {
    const all = [];
    for (let load = 0; load < loads; load += 1) {
      await page.goto(url);
      const painted = () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
      const handle = await page.waitForFunction(painted, null, { timeout: PATIENCE, polling: 20 });
      all.push(Math.round(await handle.jsonValue()));
    }
    return all;
  },

  /** What axe objects to. */
  async axe() {
    await page.evaluate(axe);
    const found = await page.evaluate(async () => (await globalThis.axe.run()).violations);
    return found.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.any[0]?.message ?? ""}`).join("; ")}`);
  },

  async shot({ file, whole }) {
    await page.evaluate(() => scrollTo(0, 0));
    await page.screenshot({ path: file, fullPage: whole });
  },

  press: ({ keys }) => keys.reduce((before, key) => before.then(() => page.keyboard.press(key)), Promise.resolve()),
  type: ({ text }) => page.keyboard.type(text),
  evaluate: ({ script }) => page.evaluate(script),
  focused: () => page.evaluate(() => {
    const at = document.activeElement;
    return at.getAttribute("aria-label") ?? (at.id || at.textContent);
  }),

  /** What the browser complained about, and the bytes of the page's own files. */
  async seen() {
    const files = await Promise.all(bodies);
    return { complaints, bytes: files.reduce((sum, file) => sum + file.length, 0) };
  },
};

async function main() {
  const args = ["--no-sandbox", "--disable-dev-shm-usage"];
  browser = await chromium.launch({ executablePath, args, timeout: PATIENCE });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { order, ...what } = JSON.parse(line);
    const answer = await Promise.resolve(orders[order](what)).then((said) => ({ said: said ?? null }),
      (error) => ({ error: String(error) }));
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  await browser.close();
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
