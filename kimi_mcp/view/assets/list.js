// The list of runs: what it costs by day, filters, rows that follow what happens.

import { CostsCard } from "./costs.js";
import { FilterBar, clearFilters } from "./filters.js";
import { counted } from "./format.js";
import { html, useCallback, useEffect, useLayoutEffect, useRef, useState } from "./library.js";
import { FailureNotice, Notice } from "./parts.js";
import { filterQuery, isFiltered } from "./routes.js";
import { Rows } from "./rows.js";
import { NOTHING, withChange, withPage } from "./runs.js";

const NO_FACETS = { tools: [], hosts: [], callers: [] };

/** Pages that are loaded again at once after changes were missed; older ones come again when they are scrolled to. */
const RELOADED = 5;

/** The list as it was left: its runs, how far it was scrolled, and the row that had the focus. */
const kept = { key: null, loaded: NOTHING, scroll: 0, active: undefined };

/**
 * @param {{source: import("./source.js").Source, filters: import("./routes.js").Filters}} props
 */
export function ListPage({ source, filters }) {
  const [costsChanged, setCostsChanged] = useState(0);
  const onCosts = useCallback(() => setCostsChanged((times) => times + 1), []);
  const { loaded, state, failure, offline, more, retry } = useRuns(source, filters, onCosts);
  const facets = useFacets(source, loaded.runs[0]);
  useLayoutEffect(() => {
    document.title = "Runs · kimi-mcp";
    scrollTo({ top: kept.scroll, behavior: "instant" });
    const remember = () => (kept.scroll = scrollY);
    addEventListener("scroll", remember, { passive: true });
    return () => removeEventListener("scroll", remember);
  }, []);
  return html`
    <div class="head">
      <h1>Runs</h1>
      <p class="muted" role="status">${state === "ready" && loaded.runs.length > 0 && summary(loaded, filters)}</p>
    </div>
    <${CostsCard} source=${source} filters=${filters} changed=${costsChanged} />
    <${FilterBar} filters=${filters} facets=${facets} />
    ${offline && !failure && html`<${Notice} kind="warn" title="The server can't be reached.">
      These runs are as they were when it last answered. The page tries again by itself.
    <//>`}
    ${failure && html`<${FailureNotice} failure=${failure} onRetry=${retry} />`}
    ${state === "loading" && html`<${Loading} />`}
    ${state === "ready" && !loaded.runs.length && !failure && html`<${Empty} filtered=${isFiltered(filters)} />`}
    ${loaded.runs.length > 0 && html`<${Rows} runs=${loaded.runs} more=${loaded.next !== null} onMore=${more}
      kept=${kept} />`}
  `;
}

function summary({ runs, next }, filters) {
  const shown = counted(runs.length, "run") + (isFiltered(filters) ? " with these filters" : "");
  return next === null ? shown : `${shown} loaded, older ones follow`;
}

/** The runs that the filters show: loaded page by page, and changed as it happens. */
function useRuns(source, filters, onCosts) {
  const key = filterQuery(filters).toString();
  const [shown, setShown] = useState(kept.key === key ? { key, loaded: kept.loaded, state: "ready" } : blank(key));
  const busy = useRef(false);
  if (shown.key === key) Object.assign(kept, { key, loaded: shown.loaded });

  /** Change what is shown, unless other filters are chosen by now. */
  const change = (next) => setShown((before) => (before.key === key ? { ...before, ...next(before) } : before));
  const failed = (failure) => change(() => ({ failure, state: "ready" }));

  const reload = async (pages) => {
    busy.current = true;
    try {
      let loaded = withPage(NOTHING, await source.list(filters, null));
      for (let page = 1; page < pages && loaded.next !== null; page += 1) {
        loaded = withPage(loaded, await source.list(filters, loaded.next));
      }
      change(() => ({ loaded, state: "ready", failure: null }));
    } catch (failure) {
      failed(failure);
    }
    busy.current = false;
  };

  useEffect(() => {
    const start = kept.key === key ? kept.loaded : NOTHING;
    if (shown.key !== key) {
      setShown(blank(key));
      kept.active = undefined;
    }
    const pages = () => Math.min(RELOADED, Math.ceil(kept.loaded.runs.length / 200));
    reload(Math.min(RELOADED, Math.ceil(start.runs.length / 200)));
    return source.onList(filters, (news) => {
      if (news.offline !== undefined) change(() => ({ offline: news.offline }));
      if (news.reset) reload(pages());
      if (news.costs) onCosts();
      if (news.changed || news.gone) change(({ loaded }) => ({ loaded: withChange(loaded, news, filters) }));
    });
  }, [source, key]);

  const more = async () => {
    const { next } = shown.loaded;
    if (busy.current || next === null) return;
    busy.current = true;
    try {
      const page = await source.list(filters, next);
      change(({ loaded }) => (loaded.next === next ? { loaded: withPage(loaded, page), failure: null } : {}));
    } catch (failure) {
      failed(failure);
    }
    busy.current = false;
  };
  return { ...(shown.key === key ? shown : blank(key)), more, retry: () => reload(1) };
}

function blank(key) {
  return { key, loaded: NOTHING, state: "loading", failure: null, offline: false };
}

/** What the list can be filtered by; requested again when the newest run has something new. */
function useFacets(source, newest) {
  const [facets, setFacets] = useState(NO_FACETS);
  const isKnown = !newest || (facets.tools.includes(newest.tool) && facets.hosts.includes(newest.host ?? "")
    && facets.callers.includes(newest.caller));
  useEffect(() => {
    // Without them the list can still be filtered by status, day and text.
    if (!isKnown || facets === NO_FACETS) source.facets().then(setFacets, () => {});
  }, [source, isKnown]);
  return facets;
}

function Loading() {
  const rows = Array.from({ length: 6 }, () => html`<div class="row" />`);
  return html`<div class="table loading" aria-hidden="true">${rows}</div>
    <p class="hidden" role="status">Loading the runs</p>`;
}

function Empty({ filtered }) {
  return html`<div class="card empty">
    <strong>${filtered ? "No run has all of these." : "No runs yet"}</strong>
    ${filtered
      ? html`<button type="button" onClick=${clearFilters}>Show all runs</button>`
      : html`<p>
          A run appears here as soon as a host calls a tool. To see one now: <code>kimi-mcp ask "Hello"</code>
        </p>`}
  </div>`;
}
