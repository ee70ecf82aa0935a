// What is open beside the lanes: one agent, its task, its reasoning and answer, and its steps.

import { count, counted, duration, money } from "./format.js";
import { barState, Glyph, laneName } from "./lanes.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./library.js";
import { Coded, FailureNotice, Icon } from "./parts.js";
import { CutNote, laidOut, Markdown, Plain, useEnd } from "./texts.js";
import { endOf } from "./timeline.js";

/**
 * One agent of a run.
 * @param {object} props
 * @param {object} props.view  RunView
 * @param {import("./source.js").Source} props.source
 * @param {object} props.lane  Lane
 * @param {?string} props.step  The key of the step that is open
 * @param {(lane: ?string, step: ?string) => void} props.onOpen  Opens an agent or a step; null closes
 * @param {boolean} props.focus  Whether the reader opened it, and goes on here
 */
export function Agent({ view, source, lane, step, onOpen, focus }) {
  const box = useRef(null);
  const title = useRef(null);
  const scrolled = useEnd(box, view.arriving?.answer?.text, Boolean(view.arriving), false);
  const running = view.run.status === "running";
  useLayoutEffect(() => {
    if (focus) title.current.focus(); // before the next key can come
  }, [lane.id, focus]);
  const requests = lane.steps.filter((each) => each.kind === "request");
  const last = requests.findLast((each) => each.state !== "unfinished" || arrivingOf(view, each));
  const close = (event) => {
    if (event.key === "Escape") onOpen(null, null);
  };
  return html`<aside class="agent card" aria-labelledby="agent-title" ref=${box} onScroll=${scrolled} onKeyDown=${close}>
    <div class="bar-of-title">
      <h2 id="agent-title" tabindex="-1" ref=${title}><${Glyph} status=${lane.status} /> ${laneName(lane)}</h2>
      <button type="button" class="quiet" aria-label="Close the agent" onClick=${() => onOpen(null, null)}>
        <${Icon} name="close" /></button>
    </div>
    <p class="muted">${[
      lane.id !== laneName(lane) && lane.id !== "main" && lane.id, lane.status, lane.critical && "◆ critical path",
      lane.tokens == null ? "tokens unknown" : counted(lane.tokens, "token"),
      lane.cost_usd == null ? "cost unknown" : money(lane.cost_usd),
    ].filter(Boolean).join(" · ")}</p>
    ${lane.task && html`<h3>Task</h3><${Plain} text=${lane.task} label="Task" />`}
    ${lane.system && html`<details><summary>System prompt</summary><${Plain} text=${lane.system} label="System prompt" /></details>`}
    ${last && !step && html`<${StepTexts} view=${view} source=${source} step=${last} final />`}
    <h3>Steps</h3>
    <ol class="steps">${lane.steps.map((each) => html`<${StepEntry} key=${each.key} view=${view} source=${source} step=${each}
      running=${running} open=${each.key === step} onToggle=${(open) => onOpen(lane.id, open ? each.key : null)} />`)}</ol>
    ${lane.steps.length === 0 && html`<p class="muted">It has made no step yet.</p>`}
  </aside>`;
}

function StepEntry({ view, source, step, running, open, onToggle }) {
  const entry = useRef(null);
  useEffect(() => {
    if (open) entry.current.scrollIntoView({ block: "nearest" });
  }, [open]);
  const unfinished = step.state === "unfinished";
  const facts = [
    unfinished ? `since ${duration(step.start_s)}` : duration(endOf(step, view.seconds) - step.start_s),
    step.tokens != null && counted(step.tokens, "token"),
    step.cost_usd > 0 && money(step.cost_usd),
    step.calls?.length > 0 && `calls ${step.calls.join(", ")}`,
    unfinished ? (running ? "running" : "not finished") : step.state === "failed" && "failed",
  ];
  return html`<li ref=${entry} class="step ${step.kind} ${step.state}">
    <button type="button" aria-expanded=${open} onClick=${() => onToggle(!open)}>
      <i class="bar ${step.kind} ${barState(step, running)}"></i><b>${step.label}</b><span>${facts.filter(Boolean).join(" · ")}</span>
    </button>
    ${open && html`<div class="body"><${StepTexts} view=${view} source=${source} step=${step} /></div>`}
  </li>`;
}

/** The texts of a step; they are requested from the source, and again once the step has ended. */
function StepTexts({ view, source, step, final = false }) {
  const [loaded, setLoaded] = useState({ key: "", ended: false, texts: null, failure: null });
  const grows = step.state === "unfinished" && view.run.status === "running";
  useEffect(() => {
    if (!source.can.step) return undefined;
    let gone = false;
    const set = (texts, failure) => gone || setLoaded({ key: step.key, ended: !grows, texts, failure });
    source.step(view.run.run_id, step.key).then((texts) => set(texts, null), (failure) => set(null, failure));
    return () => {
      gone = true;
    };
  }, [source, view.run.run_id, step.key, step.state]);
  const read = source.can.step ? loaded : { key: step.key, ended: true, texts: step, failure: null };
  const isRead = read.key === step.key;
  if (read.failure && isRead) return html`<${FailureNotice} failure=${read.failure} />`;
  const arriving = isRead && read.ended ? null : arrivingOf(view, step);
  const texts = isRead && read.texts ? read.texts : arriving && {};
  if (!texts) return html`<p class="muted">Loading…</p>`;
  const { arguments: given, cut } = texts;
  const reasoning = texts.reasoning || arriving?.reasoning?.text;
  const result = texts.result || arriving?.answer?.text;
  const why = texts.why || step.why;
  const none = !given && !reasoning && !result && !why;
  const note = (name) => html`<${CutNote} total=${cut?.[name]} id=${view.run.run_id} />`;
  const late = (it) => grows && it?.start > 0 && html`<p class="cut">The end of ${count(it.end)} characters so far.</p>`;
  return html`
    ${why && html`<p class="why"><${Coded} text=${why} /></p>`}
    ${given && html`<h3>Arguments</h3><${Plain} text=${laidOut(given)} label="Arguments" />${note("arguments")}`}
    ${reasoning && html`<h3>Reasoning${final ? ` of its ${grows ? "running" : "last"} step` : ""}</h3>${late(arriving?.reasoning)}
      <${Plain} text=${reasoning} grows=${grows} label="Reasoning" />${note("reasoning")}`}
    ${result && step.kind === "tool" && html`<h3>Result</h3><${Plain} text=${laidOut(result)} label="Result" />`}
    ${result && step.kind !== "tool" && html`<h3>Answer</h3>${late(arriving?.answer)}<${Markdown} text=${result} />`}
    ${result && note("result")}
    ${none && html`<p class="muted">${noText(source, step, grows, "result" in texts)}</p>`}`;
}

/** What has arrived of a step; null: that is not known of this one. */
function arrivingOf(view, step) {
  const { arriving } = view;
  return arriving?.key === step.key && (arriving.reasoning?.text || arriving.answer?.text) ? arriving : null;
}

function noText(source, step, grows, isComplete) {
  if (step.state === "unfinished") {
    return grows && source.onAgent && step.kind === "request" ? "Nothing of it has arrived yet." : "Nothing is recorded before it ends.";
  }
  return isComplete ? "It has no text." : "The texts of steps are not part of this view.";
}
