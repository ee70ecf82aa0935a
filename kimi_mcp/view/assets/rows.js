// The rows of the list. Only those near the window are in the document; the list scrolls with the page.

import { count, counted, duration, fullTime, localised, money, shortCount, when } from "./format.js";
import { Component, html, useEffect, useLayoutEffect, useRef, useState } from "./library.js";
import { Status } from "./parts.js";
import { runHref } from "./routes.js";
import { secondsOf } from "./runs.js";

/** Rows beyond each edge of the window, and by how many the first and the last one move. */
const BEYOND = 12;
const STEP = 6;

/** Rows before the end from which on the next page is loaded. */
const AHEAD = 60;


const COLUMNS = ["Status", "Prompt", "Tool", "Caller", "Model", "Started", "Time", "Tokens", "Cost"];

/**
 * @param {{runs: object[], more: boolean, onMore: () => void, kept: {active?: string}}} props
 *   `more`: older ones follow; `onMore` is called near the end. `kept`: which row had the focus.
 */
export function Rows({ runs, more, onMore, kept }) {
  const box = useRef(null);
  const [range, setRange] = useState({ first: 0, last: 3 * BEYOND, height: 0 });
  const [active, setActiveState] = useState(kept.active);
  const focus = useRef(kept.active !== undefined); // who comes back is on the row that they left
  const length = runs.length;
  const setActive = (id) => {
    kept.active = id; // at once: the click that follows may lead away
    setActiveState(id);
  };

  useLayoutEffect(() => {
    let frame = 0;
    const look = () => {
      frame = 0;
      setRange((before) => rangeOf(box.current, length, before));
    };
    const soon = () => (frame ||= requestAnimationFrame(look));
    look();
    const sized = new ResizeObserver(soon);
    sized.observe(box.current);
    addEventListener("scroll", soon, { passive: true });
    addEventListener("resize", soon);
    return () => {
      cancelAnimationFrame(frame);
      sized.disconnect();
      removeEventListener("scroll", soon);
      removeEventListener("resize", soon);
    };
  }, [length]);

  const before = useRef(runs);
  useLayoutEffect(() => {
    keepPlace(box.current, before.current, runs);
    before.current = runs;
  }, [runs]);

  useEffect(() => {
    if (more && range.last > length - AHEAD) onMore();
  }, [more, range.last, length]);

  const shown = runs.slice(range.first, range.last);
  const tabStop = (shown.find((run) => run.run_id === active) ?? shown[0])?.run_id;

  useLayoutEffect(() => {
    if (!focus.current) return;
    focus.current = false;
    box.current.querySelector('a[tabindex="0"]')?.focus({ preventScroll: true });
  });

  const move = (event) => {
    const at = runs.findIndex((run) => run.run_id === tabStop);
    const page = Math.max(1, Math.floor(innerHeight / range.height) - 2);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: length - 1 };
    if (!(event.key in to) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const index = Math.min(length - 1, Math.max(0, to[event.key]));
    showRow(box.current, index, range.height);
    focus.current = true;
    setActive(runs[index].run_id);
    setRange((before) => rangeOf(box.current, length, before));
  };

  return html`<div class="table" role="table" aria-label="Runs" aria-rowcount=${more ? -1 : length + 1}>
    <div role="rowgroup">
      <div class="row names" role="row">
        ${COLUMNS.map((name) => html`<span role="columnheader" class=${`c-${name.toLowerCase()}`}>${name}</span>`)}
      </div>
    </div>
    <div class="rows" role="rowgroup" ref=${box} style=${{ height: `calc(var(--row) * ${length})` }} onKeyDown=${move}>
      <div style=${{ transform: `translateY(calc(var(--row) * ${range.first}))` }}>
        ${shown.map((run, index) => html`<${RunRow}
          key=${run.run_id}
          run=${run}
          index=${range.first + index}
          tabStop=${run.run_id === tabStop}
          onFocus=${setActive}
        />`)}
      </div>
    </div>
  </div>`;
}

/** Runs have come or gone above the first row that the window shows: scroll on by as much, so that it stays there. */
function keepPlace(box, before, runs) {
  const height = rowHeight(box, runs.length);
  const index = Math.floor(-box.getBoundingClientRect().top / height);
  const first = before[index];
  if (index <= 0 || !first || runs[index]?.run_id === first.run_id) return;
  const moved = runs.findIndex((run) => run.run_id === first.run_id);
  if (moved >= 0) scrollBy({ top: (moved - index) * height, behavior: "instant" });
}

function rowHeight(box, length) {
  return parseFloat(getComputedStyle(box).height) / Math.max(1, length) || 1;
}

/** Which rows are near the window; the same object where nothing has changed. */
function rangeOf(box, length, before) {
  const height = rowHeight(box, length);
  const top = -box.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor((top / height - BEYOND) / STEP) * STEP);
  const last = Math.min(length, Math.ceil(((top + innerHeight) / height + BEYOND) / STEP) * STEP);
  const same = before.first === first && before.last === last && before.height === height;
  return same ? before : { first, last, height };
}

/** Scroll as little as needed to see a row. */
function showRow(box, index, height) {
  const top = box.getBoundingClientRect().top + index * height;
  const least = height; // of the names above
  if (top < least) scrollBy({ top: top - least, behavior: "instant" });
  else if (top + 2 * height > innerHeight) scrollBy({ top: top + 2 * height - innerHeight, behavior: "instant" });
}

class RunRow extends Component {
  shouldComponentUpdate(next) {
    const { run, index, tabStop } = this.props;
    return next.run !== run || next.index !== index || next.tabStop !== tabStop;
  }

  render({ run, index, tabStop, onFocus }) {
    const { run_id: id, status, usage } = run;
    const tool = run.tool.replace(/^kimi_/, "");
    const model = run.model.answered ?? run.model.sent ?? run.model.asked;
    return html`<div class="row" role="row" aria-rowindex=${index + 2} data-status=${status}>
      <span role="cell" class="c-status"><${Status} status=${status} /></span>
      <span role="cell" class="c-prompt">
        <a href=${runHref(id)} tabindex=${tabStop ? 0 : -1} onFocus=${() => onFocus(id)} dir="auto" title=${run.prompt}>
          ${run.prompt || "(no prompt)"}
        </a>
        ${note(run) && html`<small>${note(run)}</small>`}
      </span>
      <span role="cell" class="c-tool">
        <span>${tool}</span>${run.agents > 0 && html`<small>${counted(run.agents, "agent")}</small>`}
      </span>
      <span role="cell" class="c-caller" title=${run.caller}><span>${run.host ?? run.caller}</span>
        ${run.host && run.caller !== "local" && html`<small>${run.caller}</small>`}</span>
      <span role="cell" class="c-model" title=${run.provider}>${model}</span>
      <span role="cell" class="c-started"><time datetime=${run.started_at} title=${fullTime(run.started_at)}>
        ${when(run.started_at)}</time></span>
      <span role="cell" class="c-time"><${Took} run=${run} /></span>
      <span role="cell" class="c-tokens" title=${count(usage?.total_tokens)}>${shortCount(usage?.total_tokens)}</span>
      <span role="cell" class="c-cost">${money(usage?.cost_usd)}</span>
    </div>`;
  }
}

/** What a running run does, or why another one is incomplete. */
function note(run) {
  return run.status === "running" ? run.doing && localised(run.doing) : run.error;
}

/** How long a run has taken, counted on while it runs. */
function Took({ run }) {
  const [now, setNow] = useState(performance.now());
  useEffect(() => {
    if (run.status !== "running") return undefined;
    const timer = setInterval(() => setNow(performance.now()), 1000);
    return () => clearInterval(timer);
  }, [run.status]);
  return duration(secondsOf(run, now));
}
