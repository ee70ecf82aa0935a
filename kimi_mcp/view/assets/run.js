// The page of one run: its prompt, how it goes, who works on it, and what came of it.

import { Agent } from "./agent.js";
import { Conversation } from "./conversation.js";
import { count, counted, duration, fullTime, localised, money, shortCount, UNKNOWN, when } from "./format.js";
import { AgentStates, Lanes } from "./lanes.js";
import { html, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./library.js";
import { leadsTo, OutLink } from "./markdown.js";
import { Coded, FailureNotice, Icon, Notice, Status } from "./parts.js";
import { runHref } from "./routes.js";
import { CutNote, Markdown, Plain } from "./texts.js";

/** Characters of a prompt that are shown before the reader asks for all of it. */
const PROMPT_CHARS = 600;

/** Milliseconds between two changes of a running time. */
const CLOCK_MS = 1000;

/** Seconds by which what the server sends may differ from the clock here before that is set. */
const LATE_S = 1.5;

const BUDGETS = [
  ["usd", "Cost", money],
  ["tokens", "Tokens", shortCount],
  ["tool_calls", "Tool calls", count],
  ["steps", "Steps of the main agent", count],
];

/**
 * One run, followed while it goes on.
 * @param {object} props
 * @param {import("./source.js").Source} props.source
 * @param {string} props.id  The run
 * @param {string} props.agent  The agent that is open beside the lanes, or ""
 * @param {string} props.step  The step of it that is open, or ""
 * @param {(run: object) => void} props.onCancel  Asks the reader before it cancels
 */
export function RunPage({ source, id, agent, step, onCancel }) {
  const [news, setNews] = useState({});
  useEffect(() => source.onRun(id, (change) => setNews((before) => ({ ...before, ...change }))), [source, id]);
  useEffect(() => source.onAgent?.(agent), [source, id, agent]);
  const { view, error, offline } = news;
  if (!view) return error ? html`<h1>Run</h1><${FailureNotice} failure=${error} />` : html`<p class="muted">Loading…</p>`;
  return html`
    ${error && html`<${FailureNotice} failure=${error} />`}
    ${offline && html`<${Notice} kind="warn" title="The server can't be reached.">This is how the run was when it last
      could. The page follows it again as soon as it can.<//>`}
    <${Run} view=${view} source=${source} agent=${agent} step=${step} onCancel=${onCancel} />`;
}

function Run({ view, source, agent, step, onCancel }) {
  const running = view.run.status === "running";
  const clock = useClock(view, running);
  const opened = useRef(false);
  const closed = useRef(false);
  const onOpen = useCallback((lane, key) => {
    opened.current = lane !== null;
    closed.current = lane === null;
    location.hash = runHref(view.run.run_id, lane ?? "", key ?? "");
  }, [view.run.run_id]);
  useLayoutEffect(() => {
    // Who closes the agent is back among the lanes, once the element that had the focus is gone.
    if (!agent && closed.current) document.querySelector(".lanes [tabindex='0']")?.focus();
    closed.current = false;
  }, [agent]);
  const open = useMemo(() => ({ lane: agent || null, step: step || null }), [agent, step]);
  const lane = agent ? view.lanes.find((each) => each.id === agent) : null;
  const isSwarm = view.lanes.length > 1 || view.lanes.some((each) => each.steps.length > 1) || view.run.tool === "kimi_swarm";
  useEffect(() => {
    document.title = `${view.run.status} · ${view.run.tool} · kimi-mcp`;
  }, [view.run.status, view.run.tool]);
  const answer = html`<${Answer} view=${view} running=${running} />`;
  const reasoning = html`<${Reasoning} view=${view} running=${running} />`;
  return html`<article class="run">
    <${Head} view=${view} clock=${clock} running=${running} cancels=${source.can.cancel} onCancel=${onCancel} />
    ${view.error && html`<${Problem} error=${view.error} />`}
    ${running && html`<${Progress} view=${view} />`}
    ${isSwarm && html`<${Budget} budget=${view.budget} />`}
    ${isSwarm && html`<div class="work ${lane ? "with-agent" : ""}">
      <${Lanes} view=${view} clock=${clock} open=${open} onOpen=${onOpen} />
      ${lane && html`<${Agent} view=${view} source=${source} lane=${lane} step=${step || null} onOpen=${onOpen}
        focus=${opened.current} />`}
    </div>`}
    <div class="columns">
      <div class="column">${answer}${reasoning}</div>
      <div class="column side">
        <${Policy} findings=${view.policy} />
        <${Sources} sources=${view.sources} />
        <${Conversation} view=${view} linked=${source.can.list} />
        <${Details} view=${view} />
      </div>
    </div>
  </article>`;
}

/**
 * The run's seconds by now: those that the server sent last, and what has passed since. Always the same function. What
 * comes late does not set it back.
 */
function useClock(view, running) {
  const base = useRef({ seconds: -1, at: 0, running: false, sent: -1 });
  const { seconds: before, at, running: ran, sent } = base.current;
  if (sent !== view.seconds || ran !== running) {
    const now = performance.now();
    const shown = before + (now - at) / 1000;
    const isLate = ran && running && Math.abs(shown - view.seconds) < LATE_S;
    base.current = { seconds: isLate ? shown : view.seconds, at: now, running, sent: view.seconds };
  }
  return useCallback(() => {
    const { seconds, at, running: goesOn } = base.current;
    return goesOn ? seconds + (performance.now() - at) / 1000 : seconds;
  }, []);
}

/** A time that goes on, written without drawing anything else again. */
function Elapsed({ clock, running }) {
  const shown = useRef(null);
  useLayoutEffect(() => {
    const write = () => {
      const seconds = running ? Math.floor(clock()) : clock();
      shown.current.textContent = running && seconds < 99 ? `${count(seconds)} s` : duration(seconds);
    };
    write();
    const timer = running ? setInterval(write, CLOCK_MS) : 0;
    return () => clearInterval(timer);
  });
  return html`<span class="number" ref=${shown}></span>`;
}

function Head({ view, clock, running, cancels, onCancel }) {
  const { run, timing, swarm } = view;
  const model = run.model?.answered ?? run.model?.sent ?? run.model?.asked;
  const sub = view.lanes.filter((lane) => lane.id !== "main");
  const facts = [
    [running ? "Runs for" : "Took", html`<${Elapsed} clock=${clock} running=${running} />`],
    ["Cost", money(run.usage?.cost_usd)],
    ["Tokens", count(run.usage?.total_tokens)],
    swarm && ["Speed-up", swarm.speedup == null ? UNKNOWN : `${count(swarm.speedup)} ×`],
    swarm && ["Steps", `${count(swarm.steps)} main, ${count(swarm.critical_steps)} critical`],
    !swarm && timing?.first_token_s != null && ["First token after", duration(timing.first_token_s)],
    ["Model", model ?? UNKNOWN],
    ["Provider", run.provider ?? UNKNOWN],
    run.mode && ["Mode", run.mode],
  ];
  return html`<header class="run-head">
    <div class="bar-of-title">
      <h1>${run.tool} <${Status} status=${run.status} live /></h1>
      ${view.cancellable && cancels && html`<button type="button" class="danger" onClick=${() => onCancel(run)}>
        <${Icon} name="stop" />Cancel…</button>`}
    </div>
    <p class="muted meta"><code>${run.run_id}</code> · <time datetime=${run.started_at} title=${fullTime(run.started_at)}>
      ${when(run.started_at)}</time>${run.host && ` · ${run.host}`}${run.caller && ` · ${run.caller}`}</p>
    <${Prompt} text=${view.prompt || run.prompt} total=${view.cut?.prompt} id=${run.run_id} />
    <dl class="facts">${facts.filter(Boolean).map(([name, value]) => html`<div key=${name}><dt>${name}</dt>
      <dd>${value}</dd></div>`)}</dl>
    ${sub.length > 0 && html`<${AgentStates} lanes=${sub} />`}
  </header>`;
}

function Prompt({ text, total, id }) {
  const [all, setAll] = useState(false);
  const long = text.length > PROMPT_CHARS;
  return html`<div class="prompt"><span class="hidden">Prompt: </span>${long && !all ? `${text.slice(0, PROMPT_CHARS)}…` : text}
    ${long && html`${" "}<button type="button" class="link" aria-expanded=${all} onClick=${() => setAll(!all)}>
      ${all ? "Show less" : `Show all ${count(text.length)} characters`}</button>`}
    ${(all || !long) && html`<${CutNote} total=${total} id=${id} />`}</div>`;
}

function Problem({ error }) {
  return html`<${Notice} kind="bad" title=${error.message}>
    ${error.fix && html`<p><b>What to do:</b> <${Coded} text=${error.fix} /></p>`}
    <p class="muted">${error.code}${error.rule ? `, rule ${error.rule}` : ""}${error.retryable ? "; the same call may succeed later" : ""}</p>
  <//>`;
}

function Progress({ view }) {
  const { phase, run } = view;
  const doing = phase?.doing ?? run.doing;
  if (!doing) return null;
  const lines = phase?.lines ?? [];
  return html`<section class="progress" aria-label="What it does now">
    <p><span class="pulse" aria-hidden="true"></span>${localised(doing)}</p>
    ${lines.length > 0 && html`<details><summary>${counted(lines.length, "line")} that it reported last</summary>
      <ol class="lines">${lines.map((line, at) => html`<li key=${at}>${localised(line)}</li>`)}</ol></details>`}
  </section>`;
}

function Budget({ budget }) {
  if (!budget) return null;
  const meters = BUDGETS.filter(([name]) => budget[name]?.[0] != null);
  if (!meters.length) return null;
  return html`<section class="budget" aria-label="Budget">
    ${meters.map(([name, label, shown]) => html`<${Meter} key=${name} label=${label} used=${budget[name][0]} limit=${budget[name][1]}
      shown=${shown} />`)}
  </section>`;
}

function Meter({ label, used, limit, shown }) {
  if (limit == null) return html`<div class="meter"><p><b>${label}</b> ${shown(used)} <span class="muted">· no limit</span></p></div>`;
  const share = limit > 0 ? Math.min(1, used / limit) : 1;
  const left = `${shown(Math.max(0, limit - used))} left`;
  return html`<div class="meter ${share >= 1 ? "full" : share >= 0.8 ? "high" : ""}">
    <p><b>${label}</b> ${shown(used)} of ${shown(limit)} <span class="muted">· ${share >= 1 ? "used up" : left}</span></p>
    <div class="gauge" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax=${limit} aria-valuenow=${Math.min(used, limit)}
      aria-valuetext=${`${shown(used)} of ${shown(limit)}, ${left}`}><i style=${{ width: `${(100 * share).toFixed(1)}%` }}></i></div>
  </div>`;
}

function Answer({ view, running }) {
  const [plain, setPlain] = useState(false);
  const { answer, parsed, run, cut } = view;
  const none = running ? "Nothing of it has arrived yet." : "There is none.";
  return html`<section class="card" aria-labelledby="answer-title" aria-busy=${running}>
    <div class="bar-of-title"><h2 id="answer-title">Answer</h2>
      ${answer && html`<div><button type="button" class="quiet" aria-pressed=${plain} onClick=${() => setPlain(!plain)}>As text</button>
        <${Copy} text=${answer} /></div>`}
    </div>
    ${parsed != null && html`<${Plain} text=${JSON.stringify(parsed, null, 2)} label="Answer, parsed" />`}
    ${answer ? (plain ? html`<${Plain} text=${answer} grows=${running} label="Answer" />` : html`<${Markdown} text=${answer} />`)
      : html`<p class="muted">${none}</p>`}
    <${CutNote} total=${cut?.answer} id=${run.run_id} />
    ${run.finish_reason === "length" && html`<p class="cut">It was cut by its length.</p>`}
  </section>`;
}

function Copy({ text }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = setTimeout(() => setDone(false), 2000);
    return () => clearTimeout(timer);
  }, [done]);
  if (!navigator.clipboard) return null;
  const copy = () => navigator.clipboard.writeText(text).then(() => setDone(true), () => setDone(false));
  return html`<button type="button" class="quiet" onClick=${copy}><span role="status">${done ? "Copied" : "Copy"}</span></button>`;
}

function Reasoning({ view, running }) {
  const { reasoning, answer, cut, run } = view;
  const [open, setOpen] = useState(running && !answer);
  if (!reasoning) return null;
  return html`<details class="card" open=${open} onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary><h2>Reasoning</h2><span class="muted">${count(reasoning.length)} characters</span></summary>
    ${open && html`<${Plain} text=${reasoning} grows=${running} label="Reasoning" />
      <${CutNote} total=${cut?.reasoning} id=${run.run_id} />`}
  </details>`;
}

function Policy({ findings }) {
  if (!findings?.length) return null;
  const value = (it) => (it == null ? "nothing" : typeof it === "string" ? it : JSON.stringify(it));
  return html`<section class="card" aria-labelledby="policy-title"><h2 id="policy-title">Policy</h2>
    <ul class="findings">${findings.map((each, at) => html`<li key=${at}>
      <p><b>${each.rule}</b> <span class="tag">${each.action}</span></p>
      ${each.action === "adjusted" && html`<p><code>${each.field}</code>: ${value(each.asked)} → ${each.sent == null ? "left out" : value(each.sent)}</p>`}
      <p class="muted">${each.why}</p></li>`)}</ul></section>`;
}

function Sources({ sources }) {
  if (!sources?.length) return null;
  return html`<section class="card" aria-labelledby="sources-title"><h2 id="sources-title">Sources</h2>
    <ol class="sources">${sources.map(({ title, url }, at) => {
      const out = leadsTo(url);
      const text = title || url;
      return html`<li key=${at}>${out ? html`<${OutLink} href=${out.href}>${text}<//>` : text}
        ${" "}<small class="muted">${out ? out.where : title && url}</small></li>`;
    })}</ol></section>`;
}

function Details({ view }) {
  const { run, timing } = view;
  const { usage = {} } = run;
  const rows = [
    ["Requested", run.model?.asked], ["Sent to", run.model?.sent], ["Answered by", run.model?.answered],
    ["Prompt tokens", usage?.prompt_tokens], ["of these cached", usage?.cached_tokens],
    ["Completion tokens", usage?.completion_tokens], ["of these reasoning", usage?.reasoning_tokens],
    ["First token after", timing?.first_token_s == null ? null : duration(timing.first_token_s)],
    ["Attempts", timing?.attempts || null],
    ["Ended", run.ended_at && fullTime(run.ended_at)], ["Finish reason", run.finish_reason],
    ["Conversation", run.conversation_id],
  ].filter(([, value]) => value != null);
  return html`<details class="card"><summary><h2>Details</h2></summary>
    <dl class="rows-of">${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt>
      <dd>${typeof value === "number" ? count(value) : value}</dd></div>`)}</dl></details>`;
}
