// What runs cost by day: today's sums, and a chart of the last days, which is a table too.

import { count, counted, money, roundMoney, shortCount, utcDay } from "./format.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./library.js";
import { listHref } from "./routes.js";

const DAYS = 30;
const HEIGHT = 132;
const SIDE = 52;
const FOOT = 20;
const MEASURES = {
  cost_usd: { name: "Cost", text: money, tick: roundMoney },
  tokens: { name: "Tokens", text: count, tick: shortCount },
  calls: { name: "Runs", text: count, tick: shortCount },
};

/**
 * @param {{source: import("./source.js").Source, filters: import("./routes.js").Filters, changed: number}} props
 *   `changed` is another number each time when today's sums are others
 */
export function CostsCard({ source, filters, changed }) {
  const [days, setDays] = useState([]);
  const [measure, setMeasure] = useState("cost_usd");
  const [asTable, setAsTable] = useState(false);
  useEffect(() => {
    let current = true;
    // The chart keeps what it has; the list says why the server does not answer.
    source.costs(DAYS).then((found) => current && setDays(found.days), () => {});
    return () => (current = false);
  }, [source, changed]);
  const today = days.at(-1);
  return html`<section class="card costs" aria-labelledby="costs-title">
    <h2 id="costs-title" class="hidden">Costs by day</h2>
    <dl class="sums">
      <div data-running=${today?.running > 0}><dt>Running</dt><dd>${count(today?.running)}</dd></div>
      <div><dt>Runs today</dt><dd>${count(today?.calls)}</dd></div>
      <div><dt>Cost today</dt><dd>${money(sum(today, "cost_usd"))}</dd></div>
      <div><dt>Tokens today</dt><dd>${shortCount(sum(today, "tokens"))}</dd></div>
    </dl>
    <figure>
      <figcaption>
        <div class="choices" role="group" aria-label="What the chart shows">
          ${Object.entries(MEASURES).map(([key, { name }]) => html`<button
            type="button"
            aria-pressed=${measure === key}
            onClick=${() => setMeasure(key)}
          >${name}</button>`)}
        </div>
        <button type="button" class="quiet" aria-pressed=${asTable} onClick=${() => setAsTable(!asTable)}>Table</button>
      </figcaption>
      ${asTable ? null : html`<${Chart} days=${days} measure=${measure} filters=${filters} />`}
      <${Table} days=${days} filters=${filters} shown=${asTable} />
    </figure>
  </section>`;
}

/** A sum of a day: 0 where no run has ended, null where it is known of none that has. */
function sum(day, name) {
  return day && (day[name] ?? (day.calls > day.running ? null : 0));
}

function Chart({ days, measure, filters }) {
  const box = useRef(null);
  const width = useWidth(box);
  const [pointed, setPointed] = useState(null);
  const { name, text, tick } = MEASURES[measure];
  const values = days.map((day) => day[measure] ?? 0);
  const most = Math.max(...values, 0);
  const step = niceStep(most || 3, measure === "cost_usd" ? 0.0001 : 1);
  const top = step * Math.max(1, Math.ceil(most / step));
  const wide = Math.max(0, width - SIDE) / Math.max(1, days.length);
  const y = (value) => 6 + (HEIGHT - 6) * (1 - value / top);
  const ticks = Array.from({ length: Math.round(top / step) + 1 }, (_, number) => number * step);
  const every = Math.ceil(64 / Math.max(1, wide));
  const day = pointed === null ? null : days[pointed];
  return html`<div class="chart" ref=${box} onPointerLeave=${() => setPointed(null)}>
    <p class="pointed" aria-hidden="true">${day ? about(day) : `${name} by day, the last ${DAYS} days (UTC)`}</p>
    <svg width=${width} height=${HEIGHT + FOOT} role="img" aria-label=${spoken(days, name, values, text)}>
      ${ticks.map((value) => html`<g class="tick" key=${value}>
        <line x1=${SIDE} x2=${width} y1=${y(value)} y2=${y(value)} />
        <text x=${SIDE - 8} y=${y(value)} dy="0.32em">${tick(value)}</text>
      </g>`)}
      ${days.map((each, index) => html`<g
        key=${each.day}
        class="day"
        data-pointed=${index === pointed}
        data-chosen=${filters.day === each.day}
        onPointerEnter=${() => setPointed(index)}
        onClick=${() => location.assign(listHref({ ...filters, day: filters.day === each.day ? "" : each.day }))}
      >
        <rect class="area" x=${SIDE + index * wide} y="0" width=${wide} height=${HEIGHT} />
        <path d=${bar(SIDE + (index + 0.14) * wide, wide * 0.72, y(values[index]))} />
        ${(days.length - 1 - index) % every === 0 && html`<text
          x=${index === days.length - 1 ? width : SIDE + (index + 0.5) * wide}
          y=${HEIGHT + 15}
        >${utcDay(each.day)}</text>`}
      </g>`)}
    </svg>
  </div>`;
}

/** The same numbers, for who reads rather than looks; a day's name leads to its runs. */
function Table({ days, filters, shown }) {
  return html`<div class=${shown ? "numbers" : "hidden"}><table>
    <caption class="hidden">Costs by day, in UTC, the newest first</caption>
    <thead><tr>${["Day", "Runs", "Tokens", "Cost"].map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
    <tbody>${[...days].reverse().map((day) => html`<tr key=${day.day}>
      <th scope="row">${shown
        ? html`<a href=${listHref({ ...filters, day: day.day })}>${utcDay(day.day)}</a>`
        : utcDay(day.day)}</th>
      <td>${count(day.calls)}</td><td>${count(day.tokens)}</td>
      <td>${money(day.cost_usd)}${day.cost_unknown > 0 && ` + ${count(day.cost_unknown)} unknown`}</td>
    </tr>`)}</tbody>
  </table></div>`;
}

function about(day) {
  const parts = [money(day.cost_usd ?? 0), counted(day.calls, "run"), `${shortCount(day.tokens ?? 0)} tokens`];
  if (day.cost_unknown) parts.push(`cost of ${count(day.cost_unknown)} unknown`);
  return `${utcDay(day.day)} · ${parts.join(" · ")}`;
}

function spoken(days, name, values, text) {
  if (!days.length) return `${name} by day`;
  const most = values.indexOf(Math.max(...values));
  return `${name} of the last ${days.length} days; the most on ${utcDay(days[most].day)}: ${text(values[most])}`;
}

/** A bar with rounded upper corners, as the path of an SVG. */
function bar(x, width, y) {
  const height = HEIGHT - y;
  if (height < 0.5) return "";
  const round = Math.min(3, width / 2, height);
  const [left, right] = [`q0 ${-round} ${round} ${-round}`, `q${round} 0 ${round} ${round}`];
  return `M${x} ${HEIGHT}V${y + round}${left}h${width - 2 * round}${right}V${HEIGHT}z`;
}

/** The distance of the lines: 1, 2 or 5 of a power of ten, so that there are three of them or so. */
function niceStep(most, least) {
  const rough = Math.max(most / 3, least);
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
}

function useWidth(box) {
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const look = () => setWidth(Math.floor(box.current.clientWidth));
    look();
    const sized = new ResizeObserver(look);
    sized.observe(box.current);
    return () => sized.disconnect();
  }, []);
  return width;
}
