// Draws bars, stacked. Sizes are pixels of the place there is, so that text keeps its size on a phone.

import { draw } from "./dom.js";
import { number } from "./words.js";

const TOP = 8;
const BOTTOM = 20;
/** Pixels that a time below the chart takes. */
const LABEL = 52;

/** Minutes between two times below the chart. */
const NICE = [1, 5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 720];

/** The least round number that is not below `value`, and how many steps it has. */
function scale(value) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  const [times, steps] = [[1, 2], [1.2, 3], [1.5, 3], [2, 2], [3, 3], [4, 2], [5, 5], [6, 3], [8, 4], [10, 2]]
    .find(([most]) => most * unit >= value);
  // Calls are whole.
  return times * unit < 10 ? { top: 10, steps: 2 } : { top: times * unit, steps };
}

/**
 * Draws into `figure`: `series` is a list of `{ kind, values }` from the bottom up, of which `kind` is the class that colours
 * it; `labels` has a time for each step, `titles` what is said of a step when it is pointed at; `summary` says it all to who
 * does not see it. With `begins` and `minutes` of a step, times are written where the clock is round.
 */
export function bars(figure, { series, labels, titles, summary, begins = 0, minutes = 0 }) {
  const width = Math.max(figure.clientWidth, 200);
  const height = Math.max(figure.clientHeight, 80);
  const seen = JSON.stringify([width, height, series, labels, summary]);
  if (figure.seen === seen) return;
  figure.seen = seen;

  const sums = labels.map((_, step) => series.reduce((sum, one) => sum + one.values[step], 0));
  const { top, steps } = scale(Math.max(...sums, 0));
  const left = 12 + 7 * number(top).length;
  const inner = { width: width - left - 4, height: height - TOP - BOTTOM };
  const y = (value) => TOP + inner.height * (1 - value / top);
  const pitch = inner.width / labels.length;
  const gap = pitch > 6 ? 2 : pitch > 3 ? 1 : 0;
  const x = (step) => left + step * pitch;

  const parts = [];
  for (let step = 0; step <= steps; step += 1) {
    const value = (top * step) / steps;
    parts.push(draw("path", { class: "grid", d: `M${left} ${y(value).toFixed(1)}H${width - 4}` }));
    parts.push(draw("text", { class: "axis", x: left - 6, y: (y(value) + 4).toFixed(1), "text-anchor": "end",
      text: number(value) }));
  }
  const base = labels.map(() => 0);
  for (const { kind, values } of series) {
    let path = "";
    values.forEach((value, step) => {
      if (!value) return;
      const [from, to] = [y(base[step]), y(base[step] + value)];
      base[step] += value;
      path += `M${(x(step) + gap / 2).toFixed(1)} ${from.toFixed(1)}V${to.toFixed(1)}h${(pitch - gap).toFixed(1)}V${from.toFixed(1)}z`;
    });
    parts.push(draw("path", { class: `series ${kind}`, d: path }));
  }
  const every = Math.ceil(LABEL / pitch);
  const round = NICE.find((between) => between >= every * minutes) ?? 720;
  const told = (step) => (minutes ? (begins + step * minutes) % round === 0 : step % every === 0);
  labels.forEach((label, step) => {
    // The last ones would leave the drawing.
    if (told(step) && x(step) < width - 34) {
      parts.push(draw("text", { class: "axis", x: x(step).toFixed(1), y: height - 4, text: label }));
    }
    parts.push(draw("rect", { class: "touch", x: x(step).toFixed(1), y: TOP, width: pitch.toFixed(1), height: inner.height },
      [draw("title", { text: titles[step] })]));
  });
  figure.replaceChildren(draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": summary }, parts));
}
