// Numbers and times as people say them, in the reader's own time zone.

const NUMBER = new Intl.NumberFormat("en-US");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { weekday: "short", hour: "2-digit", minute: "2-digit" });

export const number = (value) => (value === null || value === undefined ? "–" : NUMBER.format(Math.round(value)));

/** "1 call", "1,200 calls". */
export const counted = (value, one, many) => `${number(value)} ${value === 1 ? one : many}`;

/** "16:40", or "Tue 16:40" if that is not within half a day. */
export function time(seconds, now) {
  const date = new Date(seconds * 1000);
  return Math.abs(seconds - now) < 43200 ? CLOCK.format(date) : DAY.format(date);
}

/** "just now", "4 minutes ago". */
export function ago(seconds, now) {
  const age = Math.max(0, now - seconds);
  if (age < 10) return "just now";
  if (age < 90) return `${Math.round(age)} s ago`;
  if (age < 5400) return `${Math.round(age / 60)} min ago`;
  if (age < 129600) return `${Math.round(age / 3600)} h ago`;
  return `${Math.round(age / 86400)} days ago`;
}

/** "12 s", "3 min 20 s", "2 h 5 min", "3 days 4 h". */
export function span(seconds) {
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s % 60 ? ` ${s % 60} s` : ""}`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${counted(Math.floor(s / 86400), "day", "days")} ${Math.floor((s % 86400) / 3600)} h`;
}

export function percent(part, whole) {
  if (!whole || !part) return "0 %";
  const share = (part / whole) * 100;
  return share < 1 ? "< 1 %" : `${Math.round(share)} %`;
}

export function bytes(value) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** A word of the API as words: `caller_ceiling` is "caller ceiling". */
export const plain = (word) => word.replaceAll("_", " ");

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const LEVELS = {
  normal: "Plenty: nobody is held back",
  lean: "Getting scarce: shared by weight",
  pace_batch: "Scarce: batch is slowed down",
  stop_batch: "Scarce: batch is stopped",
  stop_standard: "Very scarce: only interactive goes on",
};
export const level = (word) => LEVELS[word] ?? capital(plain(word));

const FOOTINGS = {
  awaiting: "Salesforce has not said it yet",
  read: "as Salesforce says",
  assumed: "assumed, Salesforce does not say it",
  blind: "unknown, Salesforce does not say it",
};
export const footing = (word) => FOOTINGS[word] ?? plain(word);

/** What a trouble is, in words. */
export function trouble(line) {
  const code = line.code && line.code !== "none" ? ` (${line.code})` : "";
  switch (line.what) {
    case "refused": return `Refused: ${plain(line.reason)}`;
    case "would_refuse": return `Would be refused: ${plain(line.reason)}`;
    case "failed": return `Failed at Salesforce: ${plain(line.kind)}${code}`;
    case "partial": return `${line.object} records failed inside${code}`;
    default: return "Nobody knows whether it was done";
  }
}
