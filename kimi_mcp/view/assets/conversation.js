// The conversation that a run is part of: what came before it, the run itself, and what followed.

import { duration, when } from "./format.js";
import { Glyph } from "./lanes.js";
import { html } from "./library.js";
import { runHref } from "./routes.js";

/**
 * The runs of a conversation as a tree: each below the one that it follows.
 * @param {{view: object, linked: boolean}} props  `linked`: whether the place can show the other runs
 */
export function Conversation({ view, linked }) {
  const { before = [], after = [] } = view.conversation ?? {};
  if (!before.length && !after.length) return null;
  return html`<section class="card" aria-labelledby="conversation-title">
    <h2 id="conversation-title">Conversation</h2>
    <ol class="conversation">
      ${before.map((run) => html`<li key=${run.run_id}><${Turn} run=${run} linked=${linked} /></li>`)}
      <li aria-current="true"><${Turn} run=${view.run} linked=${false} />
        ${after.length > 0 && html`<ol>${followers(after, view.run.run_id, linked)}</ol>`}
      </li>
    </ol>
  </section>`;
}

/** The runs that follow a run, with those that follow them; one that follows a run unknown here stands at the top. */
function followers(runs, id, linked) {
  const known = new Set(runs.map((run) => run.run_id));
  const below = (of) => runs.filter((run) => run.follows === of);
  const branch = (run) => html`<li key=${run.run_id}><${Turn} run=${run} linked=${linked} />
    ${below(run.run_id).length > 0 && html`<ol>${below(run.run_id).map(branch)}</ol>`}</li>`;
  return runs.filter((run) => run.follows === id || !known.has(run.follows)).map(branch);
}

function Turn({ run, linked }) {
  const text = run.prompt || run.run_id;
  return html`<div class="turn"><${Glyph} status=${run.status} />
    ${linked ? html`<a href=${runHref(run.run_id)}>${text}</a>` : html`<span class="prompt-head">${text}</span>`}
    <small class="muted">${run.tool} · ${when(run.started_at)} · ${duration(run.seconds)}</small></div>`;
}
