// Markdown of models, read into elements: CommonMark and GitHub's tables, tasks and bare links, as far as answers have
// them. There is no HTML in it and none comes out: the reader knows no tag, makes elements of the few kinds named here
// one by one, and every text in them is text. No image is loaded; a link leads to a web page or a mailbox, and shows to
// which. A library that makes HTML, with one that sanitises it, would be half of the page's weight.

import { html } from "./library.js";

/** Nested deeper than this, a text is shown as it is. */
const DEPTH = 16;

/** Characters of a piece of a long text: pieces are read one by one, and only the last changes while more arrives. */
const PIECE_CHARS = 8000;

/** Characters between the brackets of a link, and marks of emphasis in a paragraph, at most: beyond it they are text. */
const LABEL_CHARS = 400;
const EMPHASES = 500;

/** Characters of a paragraph, and cells of a table, at most: what is beyond them is shown as it was written. */
const SPAN_CHARS = 20_000;
const CELLS = 5000;

/** Entities that models write; others are shown as they are. */
const ENTITIES = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", hellip: "…", mdash: "—", ndash: "–", times: "×",
  rarr: "→", larr: "←", bull: "•", copy: "©", deg: "°", euro: "€", middot: "·", le: "≤", ge: "≥", ne: "≠",
};

const FENCE = /^( {0,3})(`{3,}(?=[^`]*$)|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)/;
const UNDERLINE = /^ {0,3}(=+|-{2,})[ \t]*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( +)(?=\S)|[ \t]*$)/;
const DEFINITION = /^ {0,3}\[([^\]\n]{1,200})\]:[ \t]*<?([^\s>]+)>?(?:[ \t].*)?$/;
const PLAIN = /[^\\`*_~[\]!<&\nhw]+|./suy;
const BARE = /(?:https?:\/\/|www\.)[^\s<>"]+/iuy;
const ANGLED = /<((?:https?:\/\/|mailto:)[^\s<>]*|[\w.+-]+@[\w.-]+)>/iy;
const ENTITY = /&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w{2,8}));/iy;
const TARGET = /\([ \t\n]{0,100}(?:<([^<>\n]*)>|((?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.)*\))*))(?:[ \t\n]{1,100}(?:"[^"]*"|'[^']*'|\([^()]*\)))?[ \t\n]{0,100}\)/sy;
const PUNCTUATION = /[!-/:-@[-`{-~]/;

/**
 * A Markdown text as elements.
 * @param {{text: string}} props
 */
export function MarkdownText({ text }) {
  const lines = text.replace(/\r\n?|[\u2028\u2029]/g, "\n").replace(/\t/g, "    ").split("\n");
  const links = new Map();
  for (const [, name, address] of lines.map((line) => DEFINITION.exec(line)).filter(Boolean)) {
    if (!links.has(linkName(name))) links.set(linkName(name), address);
  }
  return blocks(lines, { links, depth: 0, tight: false, linked: false });
}

/**
 * The pieces of a long Markdown text, cut at blank lines between blocks. A text that grows keeps its first pieces.
 * @param {string} text
 * @returns {string[]} In order
 */
export function markdownPieces(text) {
  if (text.length <= PIECE_CHARS) return [text];
  const pieces = [];
  let [begin, at, fence] = [0, 0, ""];
  for (const line of text.split("\n")) {
    const mark = FENCE.exec(line)?.[2] ?? "";
    if (fence ? mark.startsWith(fence) : mark) fence = fence ? "" : mark;
    // A line that goes on with a list is indented or has its mark; a piece begins with another one.
    const isBehindBlank = text[at - 1] === "\n" && text[at - 2] === "\n";
    if (isBehindBlank && !fence && !mark && at - begin >= PIECE_CHARS && /^[^\s*+\-\d]/.test(line)) {
      pieces.push(text.slice(begin, at));
      begin = at;
    }
    at += line.length + 1;
  }
  pieces.push(text.slice(begin));
  const definitions = text.match(new RegExp(DEFINITION, "gm"))?.join("\n");
  return definitions ? pieces.map((piece) => `${piece}\n\n${definitions}`) : pieces;
}

/**
 * An address that leads out of the page, and where to.
 * @param {string} address
 * @returns {?{href: string, where: string}} null: it is none of a web page or a mailbox
 */
export function leadsTo(address) {
  try {
    const url = new URL(address);
    if (url.protocol === "mailto:") return { href: url.href, where: url.pathname };
    return url.protocol === "https:" || url.protocol === "http:" ? { href: url.href, where: url.host } : null;
  } catch {
    return null;
  }
}

/**
 * A link out of the page. The page that it leads to does not learn where from.
 * @param {{href: string, children: any}} props  `href`: of `leadsTo`
 */
export function OutLink({ href, children }) {
  return html`<a href=${href} target="_blank" rel="noopener noreferrer nofollow">${children}</a>`;
}

function made(name, ...children) {
  return html`<${name}>${children}<//>`;
}

/** Lines as blocks. `within.tight`: paragraphs are the text of a list's item, without space around them. */
function blocks(lines, within) {
  if (within.depth > DEPTH) return [made("pre", lines.join("\n"))];
  const found = [];
  let at = 0;
  while (at < lines.length) {
    const [block, next] = readBlock(lines, at, { ...within, depth: within.depth + 1 });
    if (block !== null) found.push(block);
    at = next;
  }
  return found;
}

/** The block that begins at a line, and the line behind it. */
function readBlock(lines, at, within) {
  const line = lines[at];
  if (!line.trim() || DEFINITION.test(line)) return [null, at + 1];
  if (FENCE.test(line)) return readFence(lines, at);
  const heading = HEADING.exec(line);
  if (heading) return [headingOf(heading[1].length, headingText(line.slice(heading[0].length)), within), at + 1];
  if (RULE.test(line)) return [html`<hr />`, at + 1];
  if (QUOTE.test(line)) return readQuote(lines, at, within);
  if (ITEM.test(line)) return readList(lines, at, within);
  if (isTable(lines, at)) return readTable(lines, at, within);
  if (/^ {4}/.test(line)) return readIndented(lines, at);
  return readParagraph(lines, at, within);
}

function codeOf(lines) {
  return html`<pre tabindex="0"><code>${lines.join("\n")}</code></pre>`;
}

function readFence(lines, at) {
  const [, indent, mark] = FENCE.exec(lines[at]);
  let end = at + 1;
  const closes = (line) => line.trim().startsWith(mark) && !line.trim().replaceAll(mark[0], "");
  while (end < lines.length && !closes(lines[end])) end += 1;
  const inside = lines.slice(at + 1, end);
  return [codeOf(inside.map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line))), end + 1];
}

function readIndented(lines, at) {
  let end = at;
  while (end < lines.length && (/^ {4}/.test(lines[end]) || !lines[end].trim())) end += 1;
  while (!lines[end - 1].trim()) end -= 1;
  return [codeOf(lines.slice(at, end).map((line) => line.slice(4))), end];
}

function headingOf(level, text, within) {
  return made(level === 1 ? "h3" : level === 2 ? "h4" : "h5", spans(text, within)); // those of the page are above
}

/** The text of a heading, without the marks that may close it. */
function headingText(written) {
  const text = written.trim();
  let end = text.length;
  while (text[end - 1] === "#") end -= 1;
  return end === 0 || text[end - 1] === " " ? text.slice(0, end).trimEnd() : text;
}

/** Whether a line begins a block that ends a paragraph before it. */
function interrupts(lines, at) {
  const line = lines[at];
  const item = ITEM.exec(line);
  return !line.trim() || FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) ||
    (item?.[3] && (item[2].length === 1 || /^1[.)]/.test(item[2]))) || isTable(lines, at);
}

function readQuote(lines, at, within) {
  let end = at;
  while (end < lines.length && (QUOTE.test(lines[end]) || (end > at && lines[end - 1].trim() !== ">" && !interrupts(lines, end)))) end += 1;
  const inside = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  return [made("blockquote", blocks(inside, { ...within, tight: false })), end];
}

function readList(lines, at, within) {
  const kind = (item) => item[2].at(-1);
  const first = ITEM.exec(lines[at]);
  const items = [];
  let loose = false;
  let end = at;
  let item = first;
  while (item && kind(item) === kind(first) && !RULE.test(lines[end])) {
    const width = item[1].length + item[2].length + Math.min(item[3]?.length ?? 1, 4);
    // Models indent what belongs to "1." by two or three: both are meant.
    const least = Math.min(width, item[1].length + 2);
    const inside = [lines[end].slice(width)];
    end += 1;
    for (; end < lines.length; end += 1) {
      const line = lines[end];
      const indent = /^ */.exec(line)[0].length;
      if (!line.trim()) inside.push("");
      else if (indent >= least) inside.push(line.slice(Math.min(indent, width)));
      else if (inside.at(-1) === "" || ITEM.test(line) || interrupts(lines, end)) break;
      else inside.push(line.trimStart());
    }
    while (inside.length > 1 && inside.at(-1) === "") inside.pop();
    const separated = lines[end - 1]?.trim() === "";
    item = end < lines.length ? ITEM.exec(lines[end]) : null;
    const goesOn = item && kind(item) === kind(first);
    loose ||= (separated && goesOn) || inside.some((line, place) => !line && place + 1 < inside.length && !/^ |^[-*+] |^\d+[.)] /.test(inside[place + 1]) && !FENCE.test(inside[place + 1]));
    items.push(inside);
  }
  const entries = items.map((inside) => html`<li>${blocks(withTask(inside), { ...within, tight: !loose })}</li>`);
  return [/\d/.test(first[2]) ? html`<ol start=${parseInt(first[2], 10)}>${entries}</ol>` : made("ul", entries), end];
}

function withTask([first, ...others]) {
  return [first.replace(/^\[([ xX])\] /, (_, done) => (done === " " ? "☐ " : "☑ ")), ...others];
}

function cellsOf(line) {
  return line.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function isTable(lines, at) {
  const next = lines[at + 1];
  return lines[at].includes("|") && next !== undefined && next.includes("-") && isTableRule(next) &&
    cellsOf(lines[at]).length === cellsOf(next).length;
}

function isTableRule(line) {
  return /^ {0,3}[^ ]/.test(line) && cellsOf(line).every((cell) => /^:?-+:?$/.test(cell));
}

function readTable(lines, at, within) {
  const head = cellsOf(lines[at]);
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|") && lines[end].trim()) end += 1;
  let left = CELLS - head.length;
  if (left < 0) return [made("pre", lines.slice(at, end).join("\n")), end];
  const row = (cells, name) => made("tr", cells.map((cell) => made(name, spans(cell, within))));
  const rows = [];
  for (const line of lines.slice(at + 2, end)) {
    const cells = cellsOf(line).slice(0, head.length);
    if ((left -= cells.length) < 0) break;
    rows.push(row(cells, "td"));
  }
  end = at + 2 + rows.length; // what is beyond is another block
  return [html`<div class="scroll" tabindex="0"><table><thead>${row(head, "th")}</thead><tbody>${rows}</tbody></table></div>`, end];
}

function readParagraph(lines, at, within) {
  let end = at + 1;
  while (end < lines.length && !UNDERLINE.test(lines[end]) && !interrupts(lines, end)) end += 1;
  const text = lines.slice(at, end).map((line) => line.trimStart()).join("\n").trimEnd();
  if (end < lines.length && UNDERLINE.test(lines[end])) {
    return [headingOf(lines[end].trim()[0] === "=" ? 1 : 2, text, within), end + 1];
  }
  return [within.tight ? spans(text, within) : made("p", spans(text, within)), end];
}

/** The text of a block: words, code, links and emphasis. */
function spans(text, within) {
  if (within.depth > DEPTH || text.length > SPAN_CHARS) return [text];
  const parts = []; // text, elements, and marks of emphasis
  const unclosed = new Set();
  let marks = 0;
  let at = 0;
  const match = (pattern) => {
    pattern.lastIndex = at;
    return pattern.exec(text);
  };
  while (at < text.length) {
    const char = text[at];
    let found;
    if (char === "\\" && text[at + 1] === "\n") parts.push(html`<br />`), (at += 2);
    else if (char === "\\" && PUNCTUATION.test(text[at + 1] ?? "")) parts.push(text[at + 1]), (at += 2);
    else if (char === "`") at = readCode(text, at, parts, unclosed);
    else if ((char === "[" || text.startsWith("![", at)) && (found = readLink(text, at, within))) {
      parts.push(found.part);
      at = found.end;
    } else if (char === "<" && !within.linked && (found = match(ANGLED))) {
      parts.push(link(found[1].includes(":") ? found[1] : `mailto:${found[1]}`, found[1], found[1]));
      at += found[0].length;
    } else if (char === "<" && (found = /^<br ?\/?>/i.exec(text.slice(at, at + 6)))) parts.push(html`<br />`), (at += found[0].length);
    else if (/[hw]/i.test(char) && !within.linked && !/\w/.test(text[at - 1] ?? " ") && (found = match(BARE))) {
      const address = trimmed(found[0]);
      parts.push(link(/^www/i.test(address) ? `https://${address}` : address, address, address));
      at += address.length;
    } else if (char === "&" && (found = match(ENTITY))) parts.push(entity(found)), (at += found[0].length);
    else if (char === "\n") {
      const last = parts.length - 1;
      const hard = typeof parts[last] === "string" && parts[last].endsWith("  ");
      if (hard) parts[last] = parts[last].trimEnd();
      parts.push(hard ? html`<br />` : "\n");
      at += 1;
    } else if (/[*_~]/.test(char)) {
      const run = new RegExp(`\\${char}+`, "y");
      const length = match(run)[0].length;
      const mark = markOf(text, at, length);
      parts.push((char !== "~" || length === 2) && (marks += 1) <= EMPHASES ? mark : mark.written);
      at += length;
    } else {
      found = match(PLAIN)[0];
      parts.push(found);
      at += found.length;
    }
  }
  return emphasised(parts);
}

function readCode(text, at, parts, unclosed) {
  const mark = /^`+/.exec(text.slice(at))[0];
  let end = unclosed.has(mark.length) ? -1 : at + mark.length;
  while (end >= 0) {
    end = text.indexOf(mark, end);
    if (end < 0 || text[end + mark.length] !== "`") break;
    while (text[end] === "`") end += 1;
  }
  if (end < 0) {
    unclosed.add(mark.length);
    parts.push(mark);
    return at + mark.length;
  }
  const inside = text.slice(at + mark.length, end).replaceAll("\n", " ");
  parts.push(made("code", inside[0] === " " && inside.at(-1) === " " && inside.trim() ? inside.slice(1, -1) : inside));
  return end + mark.length;
}

/** A link or an image: its part, and where it ends; null where the brackets are brackets. */
function readLink(text, at, within) {
  const isImage = text[at] === "!";
  const begin = at + (isImage ? 2 : 1);
  let [depth, end] = [1, begin];
  for (; end < text.length && end - begin < LABEL_CHARS; end += 1) {
    if (text[end] === "\\") end += 1;
    else if (text[end] === "[") depth += 1;
    else if (text[end] === "]" && (depth -= 1) === 0) break;
  }
  if (depth) return null;
  const label = text.slice(begin, end);
  TARGET.lastIndex = end + 1;
  const target = TARGET.exec(text);
  let [address, behind] = target ? [target[1] ?? target[2], TARGET.lastIndex] : [undefined, end + 1];
  if (!target) {
    const reference = /^\[([^\]\n]{0,200})\]/.exec(text.slice(end + 1, end + 204));
    address = within.links.get(linkName(reference?.[1] || label));
    behind += reference && address !== undefined ? reference[0].length : 0;
  }
  if (address === undefined) return null;
  address = address.replace(/\\([!-/:-@[-`{-~])/g, "$1");
  const inside = isImage ? `🖼 ${label || "image"}` : spans(label, { ...within, depth: within.depth + 1, linked: true });
  return { part: within.linked ? made("span", inside) : link(address, inside, isImage ? "" : label), end: behind };
}

function linkName(name) {
  return name.trim().toLowerCase().replace(/\s+/g, " ");
}

/** A link shows where it leads, unless its text is that; one that does not lead out is its text. */
function link(address, content, text) {
  const out = leadsTo(address.replace(new RegExp(ENTITY, "gi"), (...found) => entity(found)));
  if (!out) return made("span", content);
  const written = text === address || address === `https://${text}` || address === `mailto:${text}`;
  // "https://bank.example@evil.example" and letters that look like others don't show where they lead.
  const behind = text.toLowerCase().replace(/^https?:\/\//, "");
  const shown = written && behind.startsWith(out.where) && /^[/?#]?$/.test(behind.charAt(out.where.length));
  return html`<${OutLink} href=${out.href}>${content}${!shown && html`<span class="leads"> (${out.where})</span>`}<//>`;
}

/** A bare address without the punctuation that belongs to its sentence. */
function trimmed(address) {
  let end = address.length;
  let extra = address.split(")").length - address.split("(").length;
  while (/[.,:;!?'"*_~]/.test(address[end - 1]) || (address[end - 1] === ")" && extra > 0)) {
    end -= 1;
    extra -= address[end] === ")" ? 1 : 0;
  }
  return address.slice(0, end);
}

function entity([written, decimal, hex, name]) {
  const code = decimal ? Number(decimal) : hex ? parseInt(hex, 16) : 0;
  if (!code) return Object.hasOwn(ENTITIES, name ?? "") ? ENTITIES[name] : written;
  return code < 0x110000 && (code < 0xd800 || code > 0xdfff) ? String.fromCodePoint(code) : written;
}

/** A run of marks, which may begin or end emphasis by what stands around it. */
function markOf(text, at, length) {
  const [before, after] = [text[at - 1] ?? " ", text[at + length] ?? " "];
  const [spaceBefore, spaceAfter] = [/\s/.test(before), /\s/.test(after)];
  const [signBefore, signAfter] = [/[\p{P}\p{S}]/u.test(before), /[\p{P}\p{S}]/u.test(after)];
  const left = !spaceAfter && (!signAfter || spaceBefore || signBefore);
  const right = !spaceBefore && (!signBefore || spaceAfter || signAfter);
  const inWord = text[at] === "_";
  return {
    written: text.slice(at, at + length), char: text[at], length,
    opens: left && (!inWord || !right || signBefore), closes: right && (!inWord || !left || signAfter),
  };
}

/** Parts with the marks among them made emphasis, by the rules of CommonMark; what is left of the marks is text. */
function emphasised(parts) {
  for (let close = 0; close < parts.length; close += 1) {
    while (parts[close]?.closes && parts[close].length) {
      const closer = parts[close];
      let open = close - 1;
      for (; open >= 0; open -= 1) {
        const opener = parts[open];
        if (!opener?.opens || opener.char !== closer.char || !opener.length) continue;
        const both = opener.closes || closer.opens;
        if (!both || (opener.length + closer.length) % 3 || (opener.length % 3 === 0 && closer.length % 3 === 0)) break;
      }
      if (open < 0) break;
      const used = Math.min(2, closer.length, parts[open].length);
      const inside = parts.splice(open + 1, close - open - 1).map(asText);
      parts.splice(open + 1, 0, made(closer.char === "~" ? "del" : used === 2 ? "strong" : "em", inside));
      parts[open] = { ...parts[open], length: parts[open].length - used };
      close = open + 2;
      parts[close] = { ...closer, length: closer.length - used };
    }
  }
  const joined = [];
  for (const part of parts.map(asText)) {
    if (typeof part === "string" && typeof joined.at(-1) === "string") joined.push(joined.pop() + part);
    else joined.push(part);
  }
  return joined;
}

function asText(part) {
  return part?.written === undefined ? part : part.char.repeat(part.length);
}
