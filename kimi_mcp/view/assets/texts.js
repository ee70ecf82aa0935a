// Texts of models, tools and callers: as Markdown, as they are, or as JSON. None of them is ever markup.

import { count } from "./format.js";
import { Component, html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./library.js";
import { MarkdownText, markdownPieces } from "./markdown.js";

/** Characters of a text that are shown at once; a button shows the rest. */
const SHOWN_CHARS = 40000;

/** Pixels from its end within which a reader follows a growing text. */
const FOLLOW = 40;

/**
 * A Markdown text. A long one is shown piece by piece.
 * @param {{text: string}} props
 */
export function Markdown({ text }) {
  const pieces = useMemo(() => markdownPieces(text), [text]);
  const [shown, setShown] = useState(2);
  useEffect(() => {
    if (shown >= pieces.length) return undefined;
    const timer = setTimeout(() => setShown(shown + 1), 20);
    return () => clearTimeout(timer);
  }, [shown, pieces.length]);
  return html`<div class="markdown">${pieces.slice(0, shown).map((piece, at) => html`<${Piece} key=${at} text=${piece} />`)}</div>`;
}

class Piece extends Component {
  shouldComponentUpdate(next) {
    return next.text !== this.props.text;
  }

  render({ text }) {
    return html`<div><${MarkdownText} text=${text} /></div>`;
  }
}

/**
 * Keeps a box at its end while what it holds grows, as long as its reader is there.
 * @param {{current: HTMLElement}} box
 * @param {?string} text  What grows in it
 * @param {boolean} grows  Whether it does
 * @param {boolean} follows  Whether its end is shown before the reader has scrolled
 * @returns {() => void}  For its `onScroll`
 */
export function useEnd(box, text, grows, follows) {
  const isAtEnd = useRef(follows);
  useLayoutEffect(() => {
    if (grows && isAtEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text, grows]);
  return () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    isAtEnd.current = scrollHeight - scrollTop - clientHeight < FOLLOW;
  };
}

/**
 * A text as it is; the rest of a long one on a button.
 * @param {{text: string, grows?: boolean, label: string}} props  `grows`: its end is shown, and followed
 */
export function Plain({ text, grows = false, label }) {
  const [all, setAll] = useState(false);
  const box = useRef(null);
  const scrolled = useEnd(box, text, grows, true);
  const cut = !all && text.length > SHOWN_CHARS;
  const shown = !cut ? text : grows ? text.slice(-SHOWN_CHARS) : text.slice(0, SHOWN_CHARS);
  return html`<pre class="text" tabindex="0" role="region" aria-label=${label} ref=${box} onScroll=${scrolled}>${shown}</pre>
    ${cut && html`<p class="cut">${grows ? "The end" : "The beginning"} of ${count(text.length)} characters.
      ${" "}<button type="button" class="link" onClick=${() => setAll(true)}>Show all of it</button></p>`}`;
}

/**
 * A text that may be JSON, laid out if it is.
 * @param {string} text
 * @returns {string}
 */
export function laidOut(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" ? JSON.stringify(value, null, 2) : text;
  } catch {
    return text;
  }
}

/**
 * What says how much of a text the page has, where it is not all of it.
 * @param {{total: ?number, id: string}} props  `total`: characters of all of it
 */
export function CutNote({ total, id }) {
  return total ? html`<p class="cut">Cut here, of ${count(total)} characters in all.
    ${" "}<code>kimi-mcp runs show ${id}</code> has them.</p>` : null;
}
