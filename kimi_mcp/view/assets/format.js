// Numbers, money, durations and times as text, in the reader's locale. Pure, but for what locale that is.

let formats = formatsIn(navigator.languages);

/**
 * Use another locale from here on: that of a host around the page.
 * @param {string} locale  As BCP 47 names it; one that is none changes nothing
 * @param {string} [timeZone]  As IANA names it
 */
export function setLocale(locale, timeZone) {
  try {
    formats = formatsIn(locale, timeZone);
  } catch {
    // The browser knows no such locale or zone.
  }
}

function formatsIn(locale, timeZone) {
  const dollars = { style: "currency", currency: "USD", currencyDisplay: "narrowSymbol" };
  const number = (options) => new Intl.NumberFormat(locale, options);
  const time = (options) => new Intl.DateTimeFormat(locale, { timeZone, ...options });
  return {
    whole: number(),
    short: number({ notation: "compact", maximumFractionDigits: 1 }),
    oneDigit: number({ minimumFractionDigits: 1, maximumFractionDigits: 1 }),
    money: number(dollars),
    roundMoney: number({ ...dollars, maximumSignificantDigits: 3 }),
    smallMoney: number({ ...dollars, minimumFractionDigits: 2, maximumSignificantDigits: 2 }),
    clock: time({ hour: "2-digit", minute: "2-digit" }),
    date: time({ month: "short", day: "numeric" }),
    dateYear: time({ year: "numeric", month: "short", day: "numeric" }),
    full: time({ dateStyle: "full", timeStyle: "long" }),
    utcDay: time({ month: "short", day: "numeric", timeZone: "UTC" }),
  };
}

/** What stands where a value is not known. */
export const UNKNOWN = "–";

/** @param {?number} number */
export function count(number) {
  return number == null ? UNKNOWN : formats.whole.format(number);
}

/**
 * A number shortened, such as 12.3K.
 * @param {?number} number
 */
export function shortCount(number) {
  return number == null ? UNKNOWN : formats.short.format(number);
}

/**
 * US dollars: two digits of small sums, cents of others.
 * @param {?number} usd
 */
export function money(usd) {
  if (usd == null) return UNKNOWN;
  return usd > 0 && usd < 0.1 ? formats.smallMoney.format(usd) : formats.money.format(usd);
}

/**
 * A sentence of the server, with its sums and counts of tokens in the reader's locale.
 * @param {string} sentence  Such as "20 running · about 1,628 tokens · 0.0060 USD"
 */
export function localised(sentence) {
  return sentence
    .replace(/(?<![\w.,])(\d[\d,]*(?:\.\d+)?) USD\b/g, (_, usd) => money(Number(usd.replaceAll(",", ""))))
    .replace(/(?<![\w.,])(\d[\d,]*)(?= tokens?\b)/g, (_, tokens) => count(Number(tokens.replaceAll(",", ""))));
}

/**
 * US dollars of an axis: 0, 0.05, 20.
 * @param {number} usd
 */
export function roundMoney(usd) {
  return formats.roundMoney.format(usd);
}

/**
 * A length of time: 0.8 s, 12.3 s, 4 min 05 s, 2 h 03 min.
 * @param {?number} seconds
 */
export function duration(seconds) {
  if (seconds == null) return UNKNOWN;
  if (seconds < 99.95) return `${formats.oneDigit.format(Math.max(0, seconds))} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/**
 * When something was, as briefly as today allows: the clock, with the day if it is another, and the year if that is.
 * @param {?string} iso
 * @param {Date} [now]
 */
export function when(iso, now = new Date()) {
  if (!iso) return UNKNOWN;
  const time = new Date(iso);
  if (time.toDateString() === now.toDateString()) return formats.clock.format(time);
  if (time.getFullYear() === now.getFullYear()) return `${formats.date.format(time)}, ${formats.clock.format(time)}`;
  return formats.dateYear.format(time);
}

/**
 * A time in full, for a title.
 * @param {?string} iso
 */
export function fullTime(iso) {
  return iso ? formats.full.format(new Date(iso)) : "";
}

/**
 * A day of the costs, which are by UTC.
 * @param {string} day  YYYY-MM-DD
 */
export function utcDay(day) {
  return formats.utcDay.format(new Date(`${day}T00:00:00Z`));
}

/**
 * "1 run", "3 runs".
 * @param {number} number
 * @param {string} noun
 */
export function counted(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

function two(number) {
  return String(number).padStart(2, "0");
}
