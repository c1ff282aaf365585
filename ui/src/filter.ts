// The filter language, as far as the page needs it: cutting a filter into its
// terms and adding or removing one. What a term means is the server's to say.

export interface Term {
  text: string;
  negated: boolean;
  field: string; // empty for a bare word
  op: string; // : > >= < <=
  value: string;
}

/** Cuts a filter at the blanks outside of quotes. */
export function split(filter: string): string[] {
  const out: string[] = [];
  let word = '';
  let quoted = false;
  for (const c of filter) {
    if (c === '"') quoted = !quoted;
    if (!quoted && /\s/.test(c)) {
      if (word) out.push(word);
      word = '';
    } else {
      word += c;
    }
  }
  if (word) out.push(word);
  return out;
}

export function parse(text: string): Term {
  const m = /^(-?)([A-Za-z_][\w.]*)(:|>=|<=|>|<)([\s\S]*)$/.exec(text);
  if (!m) return { text, negated: text.startsWith('-') && text.length > 1, field: '', op: '', value: text.replace(/^-/, '') };
  return { text, negated: m[1] === '-', field: m[2]!, op: m[3]!, value: unquote(m[4]!) };
}

export const terms = (filter: string): Term[] => split(filter).map(parse);
export const join = (list: readonly string[]): string => list.filter(Boolean).join(' ');

const unquote = (v: string) => v.replace(/^"([\s\S]*)"$/, '$1');

/** Quotes a value that would be cut, or read as a list. */
export const quote = (value: string): string => (/[\s,"]/.test(value) || value === '' ? `"${value.replaceAll('"', '')}"` : value);

export const has = (filter: string, field: string): boolean =>
  terms(filter).some((t) => t.field === field && !t.negated && t.op === ':');

/** Narrows the filter to one value of the field. */
export function only(filter: string, field: string, value: string): string {
  const rest = terms(filter).filter((t) => !(t.field === field && !t.negated && t.op === ':'));
  return add(join(rest.map((t) => t.text)), `${field}:${quote(value)}`);
}

/** Leaves one value of the field out. */
export function not(filter: string, field: string, value: string): string {
  const term = `${field}:${quote(value)}`;
  return add(remove(filter, term), `-${term}`);
}

/** Adds a term; terms of the same field widen each other. */
export function add(filter: string, term: string): string {
  const list = split(filter);
  return list.includes(term) ? filter : join([...list, term]);
}

export const remove = (filter: string, term: string): string => join(split(filter).filter((t) => t !== term));
