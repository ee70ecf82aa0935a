// Who worked when: a lane an agent, a bar a step, and what the run waited for. Only the lanes in sight are elements, so
// that 100 agents of 100 steps scroll smoothly. While a run goes on, what is still to come is covered by one element
// that moves with the clock: a running bar grows without being drawn again.

import { count, counted, duration, money } from "./format.js";
import { Component, html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./library.js";
import { Icon, uncoded } from "./parts.js";
import { agentStates, axisLength, endOf, markEvery, waitedFor, waitedLongest } from "./timeline.js";

/** Heights of a lane in pixels: beside its name, or below it where the page is narrow. */
const ROW = { wide: 42, narrow: 62 };

/** Height of the axis in pixels. */
const AXIS = 32;

/** Pixels of the box of lanes below which it is narrow. */
const NARROW = 620;

/** Lanes above and below those in sight that are elements too. */
const SPARE = 4;

/** Milliseconds between two looks at the clock. */
const TICK_MS = 1000;

/** Seconds that a step waited for its turn, from which on they are shown. */
const WAITED_S = 0.2;

/** Milliseconds after which the page says anew what a running run waits for. */
const WAITED_MS = 2000;

/** Share of a run in which no agent of the critical path worked, from which on it is worth a sentence. */
const REST = 0.1;

/** Lanes that a key for a page moves by. */
const PAGE = 10;

const HINT = "Point at a bar, or move with the arrow keys. Enter opens it.";

/**
 * A state by its shape and colour, and for screen readers its word.
 * @param {{status: string}} props
 */
export function Glyph({ status }) {
  return html`<span class="glyph" data-status=${status}><${Icon} name=${status} />
    <span class="hidden">${status}</span></span>`;
}

/**
 * The name of a lane: the agent's, and which of its tasks.
 * @param {object} lane Lane
 * @returns {string} the name
 */
export function laneName(lane) {
  return lane.id === "main" && lane.name === "main" ? "main agent" : lane.name + (lane.task_number ?? "");
}

/**
 * What there is to know of a step, in a line.
 * @param {object} step Step
 * @param {number} seconds the run's seconds
 * @param {boolean} running whether the run goes on
 * @returns {string} such as `step 3, 2.1 s, done, 1,203 tokens`
 */
export function stepName(step, seconds, running) {
  const unfinished = step.state === "unfinished";
  return [
    step.kind === "tool" ? `tool ${step.label}` : step.label,
    unfinished && running ? `since ${duration(step.start_s)}` : duration(endOf(step, seconds) - step.start_s),
    unfinished ? (running ? "running" : "not finished") : step.state,
    waited(step) && `waited ${duration(step.waited_s)} for its turn`,
    step.tokens != null && counted(step.tokens, "token"),
    step.cost_usd != null && step.cost_usd > 0 && money(step.cost_usd),
    uncoded(step.why),
  ].filter(Boolean).join(", ");
}

/**
 * How the bar of a step looks: one that a run left unfinished is still, and has no stripes.
 * @param {object} step Step
 * @param {boolean} running whether the run goes on
 * @returns {string} classes
 */
export function barState(step, running) {
  return step.state === "unfinished" && !running ? "unfinished stopped" : step.state;
}

/** Whether a step waited for its turn so long that it is worth a mark. */
function waited(step) {
  return step.waited_s >= WAITED_S;
}

/**
 * The lanes of a run.
 * @param {object} props
 * @param {object} props.view RunView
 * @param {() => number} props.clock the run's seconds by now; always the same function
 * @param {{lane: ?string, step: ?string}} props.open what is open beside the lanes
 * @param {(lane: string, step: ?string) => void} props.onOpen opens an agent, or a step of it
 */
export function Lanes({ view, clock, open, onOpen }) {
  const running = view.run.status === "running";
  const [only, setOnly] = useState("all");
  const length = useAxis(view.seconds, running, clock);
  const filters = useMemo(() => laneFilters(view.lanes), [view.lanes]);
  const chosen = filters.find(([name]) => name === only) ?? filters[0];
  const lanes = useMemo(() => view.lanes.filter(chosen[2]), [view.lanes, chosen[0]]);
  return html`<section class="who-worked" aria-labelledby="lanes-title">
    <div class="bar-of-title">
      <h2 id="lanes-title">Who worked when</h2>
      ${filters.length > 2 && html`<div class="chips" role="group" aria-label="Which agents">
        ${filters.map(([name, label, , number]) => html`<button type="button" key=${name} class="chip ${name}"
          aria-pressed=${name === chosen[0]} onClick=${() => setOnly(name)}>${label} ${count(number)}</button>`)}
      </div>`}
    </div>
    ${view.lanes.length > 1 && html`<${Waited} lanes=${view.lanes} length=${length} running=${running} clock=${clock}
      onOpen=${onOpen} />`}
    <${Grid} lanes=${lanes} length=${length} running=${running} clock=${clock} seconds=${view.seconds}
      open=${open} onOpen=${onOpen} />
    <${Legend} lanes=${view.lanes} running=${running} />
  </section>`;
}

function laneFilters(lanes) {
  const filters = [
    ["all", "All", () => true],
    ["critical", "◆ Critical path", (lane) => lane.critical],
    ["running", "● Running", (lane) => lane.status === "running"],
    ["failed", "✕ Failed", (lane) => lane.status === "failed"],
  ];
  return filters
    .map(([name, label, keep]) => [name, label, keep, lanes.filter(keep).length])
    .filter(([name, , , number]) => name === "all" || (number && number < lanes.length));
}

/** The axis's length, which grows while the run goes on. */
function useAxis(seconds, running, clock) {
  const length = useRef(0);
  const [, again] = useState(0);
  length.current = axisLength(running ? Math.max(seconds, clock()) : seconds, running, length.current);
  useEffect(() => {
    if (!running) return undefined;
    const timer = setInterval(() => clock() > length.current && again((times) => times + 1), TICK_MS);
    return () => clearInterval(timer);
  }, [running, clock]);
  return length.current;
}

/** What the run waited for: the critical path on one line, and its longest part in a sentence. */
function Waited({ lanes, length, running, clock, onOpen }) {
  const [, again] = useState(0);
  useEffect(() => {
    if (!running) return undefined;
    const timer = setInterval(() => document.hidden || again((times) => times + 1), WAITED_MS);
    return () => clearInterval(timer);
  }, [running]);
  const seconds = clock();
  const path = waitedFor(lanes, seconds);
  const longest = waitedLongest(path);
  const first = longest[0];
  if (!first) return null;
  const now = lanes.filter((lane) => lane.id !== "main" && lane.status === "running");
  const waits = now.find((lane) => lane.critical) ?? now[0] ?? lanes[0];
  const turns = lanes.filter((lane) => lane.critical).flatMap((lane) => lane.steps)
    .reduce((sum, step) => sum + (step.waited_s ?? 0), 0);
  const rest = seconds - path.reduce((sum, each) => sum + each.end - each.start, 0);
  const percent = (part) => `${Math.round((100 * part) / Math.max(seconds, 0.001))} %`;
  const agent = (lane) => html`<button type="button" class="link" onClick=${() => onOpen(lane.id, null)}>
    ${laneName(lane)}${lane.id !== laneName(lane) && lane.id !== "main" ? ` (${lane.id})` : ""}</button>`;
  return html`<div class="waited">
    <p>
      ${running
        ? html`It waits for ${agent(waits)}${now.length > 1 && ` and ${counted(now.length - 1, "other agent")}`}. Longest so far: `
        : html`Of ${duration(seconds)} the run waited longest for `}
      ${agent(first.lane)}: <b>${duration(first.seconds)}</b> (${percent(first.seconds)})${running ? "." : ""}
      ${!running && longest[1] && html`, then ${agent(longest[1].lane)}: ${duration(longest[1].seconds)}${" "}
        (${percent(longest[1].seconds)}).`}
      ${!running && !longest[1] && "."}
      ${!running && rest > REST * seconds && html`${" "}For ${duration(rest)} (${percent(rest)}) nobody on its
        critical path was at work.`}
      ${turns > REST * seconds && html`${" "}On the critical path steps waited ${duration(turns)} for their turn: more at
        once were not allowed, by <code>KIMI_MAX_CONCURRENCY</code> or by the provider's rate.`}
    </p>
    <div class="path"><div class="name">◆ Critical path</div><div class="track" aria-hidden="true">
      ${path.map(({ lane, start, end, turn }) => html`<span key=${`${lane.id} ${start}`}
        class="stretch ${turn ? "turn" : lane.id === "main" ? "main" : ""} ${lane === first.lane && !turn ? "longest" : ""}"
        style=${place(start, end, length)} title="${laneName(lane)}${turn ? " waited for its turn" : ""}: ${duration(end - start)}"
        onClick=${() => onOpen(lane.id, null)}>${turn ? "waited for its turn" : laneName(lane)}</span>`)}
    </div></div>
  </div>`;
}

function place(start, end, length) {
  const left = Math.min(100, (100 * start) / length);
  return { left: `${left.toFixed(3)}%`, width: `${Math.max(0, Math.min(100 - left, (100 * (end - start)) / length)).toFixed(3)}%` };
}

function Legend({ lanes, running }) {
  const steps = lanes.flatMap((lane) => lane.steps);
  const kinds = [
    ["request", "request", true],
    ["tool", "tool call", steps.some((step) => step.kind === "tool")],
    ["failed", "failed", steps.some((step) => step.state === "failed")],
    ["waits", "waited for its turn", steps.some(waited)],
    [running ? "unfinished" : "unfinished stopped", running ? "running, or waiting for its turn" : "not finished", steps.some((step) => step.state === "unfinished")],
    ["critical", "◆ critical path: what the run waited for", lanes.length > 1],
  ];
  return html`<p class="legend">${kinds.filter(([, , used]) => used).map(([kind, text]) => html`<span key=${kind}>
    <i class="bar ${kind}"></i>${text}</span>`)}</p>`;
}

/** The lanes in sight, with the axis above them. */
function Grid({ lanes, length, running, clock, seconds, open, onOpen }) {
  const box = useRef(null);
  const note = useRef(null);
  const moved = useRef(false);
  const [frame, setFrame] = useState({ first: 0, rows: 24, narrow: false });
  const [active, setActive] = useState({ id: "main", at: -1 });
  const row = frame.narrow ? ROW.narrow : ROW.wide;
  const activeRow = Math.max(0, lanes.findIndex((lane) => lane.id === active.id));

  const measure = () => {
    const { scrollTop, clientHeight, clientWidth } = box.current;
    const narrow = clientWidth < NARROW;
    const height = narrow ? ROW.narrow : ROW.wide;
    const next = { first: Math.floor(scrollTop / height), rows: Math.ceil(clientHeight / height) + 1, narrow };
    setFrame((was) => (was.first === next.first && was.rows === next.rows && was.narrow === narrow ? was : next));
  };
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => requestAnimationFrame(() => box.current && measure()));
    measure();
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);

  const reveal = (at) => {
    const { scrollTop, clientHeight } = box.current;
    if (at * row < scrollTop) box.current.scrollTop = at * row;
    else if ((at + 1) * row + AXIS > scrollTop + clientHeight) box.current.scrollTop = (at + 1) * row + AXIS - clientHeight;
  };
  useLayoutEffect(() => {
    if (!moved.current) return;
    moved.current = false;
    reveal(activeRow);
    box.current.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  }, [active, activeRow, row]);
  useEffect(() => {
    const at = lanes.findIndex((lane) => lane.id === open.lane);
    if (at < 0) return;
    reveal(at);
    setActive({ id: open.lane, at: lanes[at].steps.findIndex((step) => step.key === open.step) });
  }, [open.lane, open.step, row]);

  const press = (event) => {
    if (event.key === "Escape" && open.lane) return onOpen(null, null);
    const next = keyTarget(event, lanes, activeRow, active.at);
    if (next === null) return;
    event.preventDefault();
    if (next === "open") return onOpen(lanes[activeRow].id, lanes[activeRow].steps[active.at]?.key ?? null);
    moved.current = true;
    setActive(next);
  };
  const target = (event) => {
    const cell = event.target.closest("[data-at]");
    const lane = cell && lanes.find((each) => each.id === cell.dataset.lane);
    return lane ? { lane, at: Number(cell.dataset.at) } : null;
  };
  const click = (event) => {
    const found = target(event);
    if (!found) return;
    setActive({ id: found.lane.id, at: found.at });
    onOpen(found.lane.id, found.lane.steps[found.at]?.key ?? null);
  };
  const show = (event) => {
    const found = target(event);
    const step = found?.lane.steps[found.at];
    note.current.textContent = !found ? HINT
      : `${laneName(found.lane)}: ${step ? stepName(step, seconds, running) : found.lane.task || found.lane.status}`;
  };

  const [from, to] = [Math.max(0, frame.first - SPARE), Math.min(lanes.length, frame.first + frame.rows + SPARE)];
  const shown = lanes.slice(from, to).map((lane, place) => [lane, from + place]);
  if (lanes.length && (activeRow < from || activeRow >= to)) shown.push([lanes[activeRow], activeRow]);
  return html`<div class="lanes ${frame.narrow ? "narrow" : ""}">
    <div class="box" ref=${box} onScroll=${measure} role="grid" aria-labelledby="lanes-title" aria-rowcount=${lanes.length + 1}
      aria-readonly="true" onKeyDown=${press} onClick=${click} onMouseOver=${show} onFocusIn=${show}>
      <${Axis} length=${length} />
      <div class="rows" role="rowgroup" style=${{ height: `${lanes.length * row}px`,
        "--tick": `${((100 * markEvery(length)) / length).toFixed(4)}%` }}>
        ${shown.map(([lane, at]) => html`<${LaneRow} key=${lane.id} lane=${lane} at=${at} top=${at * row} length=${length}
          running=${running} seconds=${running ? 0 : seconds} active=${at === activeRow ? active.at : null}
          open=${open.lane === lane.id ? open.step ?? "" : null} />`)}
      </div>
      ${running && html`<${Future} clock=${clock} length=${length} height=${lanes.length * row} />`}
    </div>
    <p class="note" ref=${note} aria-hidden="true">${HINT}</p>
  </div>`;
}

/** Where a key leads: another cell, "open", or null where the key means nothing here. */
function keyTarget(event, lanes, row, at) {
  if (event.altKey || event.metaKey || !lanes.length) return null;
  const lane = lanes[row];
  const last = lane.steps.length - 1;
  const to = (other) => {
    const next = lanes[Math.max(0, Math.min(lanes.length - 1, other))];
    return { id: next.id, at: at < 0 || !lane.steps[at] ? -1 : nearest(next.steps, lane.steps[at].start_s) };
  };
  switch (event.key) {
    case "ArrowRight": return { id: lane.id, at: Math.min(last, at + 1) };
    case "ArrowLeft": return { id: lane.id, at: Math.max(-1, at - 1) };
    case "ArrowDown": return to(row + 1);
    case "ArrowUp": return to(row - 1);
    case "PageDown": return to(row + PAGE);
    case "PageUp": return to(row - PAGE);
    case "Home": return event.ctrlKey ? { id: lanes[0].id, at: -1 } : { id: lane.id, at: -1 };
    case "End": return event.ctrlKey ? { id: lanes.at(-1).id, at: -1 } : { id: lane.id, at: last };
    case "Enter":
    case " ": return "open";
    default: return null;
  }
}

/** Which of an agent's steps is nearest to a time; -1 where it has none. */
function nearest(steps, seconds) {
  let best = -1;
  for (const [at, step] of steps.entries()) {
    if (best < 0 || Math.abs(step.start_s - seconds) < Math.abs(steps[best].start_s - seconds)) best = at;
  }
  return best;
}

function markLabel(mark, every) {
  return every >= 60 ? `${count(mark / 60)} min` : `${count(mark)} s`;
}

function Axis({ length }) {
  const every = markEvery(length);
  const marks = Array.from({ length: Math.floor(length / every + 1e-9) + 1 }, (_, number) => number * every);
  return html`<div class="axis" role="row" aria-rowindex="1">
    <div class="who" role="columnheader">Agent</div>
    <div class="track" role="columnheader" aria-label="Steps, by time">
      ${marks.map((mark) => html`<span key=${mark} class=${mark > 0.93 * length ? "tick end" : "tick"}
        style=${{ left: `${((100 * mark) / length).toFixed(3)}%` }}>${markLabel(mark, every)}</span>`)}
    </div>
  </div>`;
}

/** One lane; drawn again where one of its properties changed. */
class LaneRow extends Component {
  shouldComponentUpdate(next) {
    return Object.keys(next).some((name) => next[name] !== this.props[name]);
  }

  render({ lane, at, top, length, running, seconds, active, open }) {
    const requests = lane.steps.filter((step) => step.kind === "request").length;
    const tools = lane.steps.length - requests;
    const name = laneName(lane);
    const end = Math.max(...lane.steps.map((step) => endOf(step, seconds)));
    const facts = [
      lane.status !== "completed" && lane.status,
      lane.status !== "running" && lane.steps.length > 0 && duration(end - lane.steps[0].start_s),
      counted(requests, "step"),
      tools > 0 && counted(tools, "tool"),
      lane.id !== name && lane.id !== "main" && lane.id,
    ];
    return html`<div class="lane ${lane.critical ? "critical" : ""} ${open === null ? "" : "open"}" role="row"
      aria-rowindex=${at + 2} aria-selected=${open !== null} style=${{ top: `${top}px` }}>
      <div class="who" role="rowheader" data-lane=${lane.id} data-at="-1" tabindex=${active === -1 ? 0 : -1}>
        <span class="name"><${Glyph} status=${lane.status} /><b>${name}</b>
          ${lane.critical && html`<span class="diamond"><span aria-hidden="true">◆</span>
            <span class="hidden">critical path</span></span>`}</span>
        <small>${facts.filter(Boolean).join(" · ")}</small>
      </div>
      <div class="track" role="none">
        ${lane.steps.filter(waited).map((step) => html`<span key=${`w ${step.key}`} class="waits" aria-hidden="true"
          style=${place(step.start_s - step.waited_s, step.start_s, length)}></span>`)}
        ${lane.steps.map((step, at) => stepBar(lane, step, at, this.props))}
      </div>
    </div>`;
  }
}

/** One step. It is no component: a lane of a hundred is made as quickly as it is scrolled to. */
function stepBar(lane, step, at, { length, running, seconds, active, open }) {
  // A running step reaches to the end of the axis: what is still to come of it is covered.
  const end = step.end_s ?? (running ? length : seconds);
  return html`<span key=${step.key} class="bar ${step.kind} ${barState(step, running)} ${open === step.key ? "chosen" : ""}" role="gridcell"
    data-lane=${lane.id} data-at=${at} tabindex=${active === at ? 0 : -1} aria-label=${stepName(step, seconds, running)}
    style=${place(step.start_s, end, length)}></span>`;
}

/** Covers what is still to come, and shows where now is. */
function Future({ clock, length, height }) {
  const cover = useRef(null);
  useLayoutEffect(() => {
    const move = () => {
      if (!document.hidden) cover.current.style.transform = `translateX(${Math.min(100, (100 * clock()) / length).toFixed(2)}%)`;
    };
    move();
    const timer = setInterval(move, TICK_MS);
    return () => clearInterval(timer);
  }, [clock, length]);
  return html`<div class="future" aria-hidden="true" style=${{ height: `${height}px` }}><div ref=${cover}></div></div>`;
}

/**
 * A swarm's agents by their state: a bar, and words.
 * @param {{lanes: object[]}} props Lanes
 */
export function AgentStates({ lanes }) {
  const states = agentStates(lanes);
  const all = states.reduce((sum, [, number]) => sum + number, 0);
  if (!all) return null;
  return html`<div class="states">
    <div class="shares" aria-hidden="true">${states.map(([state, number]) => html`<i key=${state} class=${state}
      style=${{ flexGrow: number }}></i>`)}</div>
    <p>${counted(all, "agent")}: ${states.map(([state, number], at) => html`<span key=${state}>${at ? ", " : ""}
      <${Glyph} status=${state} /> ${count(number)} ${state}</span>`)}</p>
  </div>`;
}
