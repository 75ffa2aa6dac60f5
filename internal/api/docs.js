'use strict';
const doc = JSON.parse(document.getElementById('document').textContent);
const methods = ['get', 'post', 'put', 'patch', 'delete'];

// el makes an element: properties first, then children, which are nodes or text.
function el(tag, props, ...children) {
  const e = Object.assign(document.createElement(tag), props);
  e.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== ''));
  return e;
}

const operations = [];
for (const [path, item] of Object.entries(doc.paths)) {
  for (const method of methods) {
    if (item[method]) operations.push({ path, method, ...item[method] });
  }
}

function resolve(schema) {
  if (!schema || !schema.$ref) return [schema || {}, ''];
  const name = schema.$ref.split('/').pop();
  return [doc.components.schemas[name], name];
}

// typeText says in a few words what a value is.
function typeText(schema) {
  const [s, name] = resolve(schema);
  if (name) return name;
  if (s.oneOf && !s.discriminator) return s.oneOf.map(typeText).join(' or ');
  if (s.oneOf) return 'one of ' + s.oneOf.map(typeText).join(', ');
  const type = Array.isArray(s.type) ? s.type.join(' or ') : s.type;
  if (s.type === 'array') return 'array of ' + typeText(s.items);
  if (type && type.startsWith('object') && s.additionalProperties && s.additionalProperties !== true) return 'object of ' + typeText(s.additionalProperties);
  if (s.enum) return s.enum.map((v) => JSON.stringify(v)).join(' | ');
  const limits = [];
  if (s.format) limits.push(s.format);
  if (s.pattern) limits.push(s.pattern);
  for (const [key, sign] of [['minLength', '≥'], ['maxLength', '≤'], ['minimum', '≥'], ['maximum', '≤'], ['minItems', '≥'], ['maxItems', '≤']]) {
    if (s[key] !== undefined) limits.push(sign + ' ' + s[key]);
  }
  return (type || 'any') + (limits.length ? ' (' + limits.join(', ') + ')' : '');
}

// inner finds the object whose members are worth showing below a value.
function inner(schema) {
  const [s] = resolve(schema);
  if (s.properties || s.discriminator) return s;
  if (s.items) return inner(s.items);
  if (s.oneOf) return s.oneOf.map(inner).find(Boolean);
  if (s.additionalProperties && s.additionalProperties !== true) return inner(s.additionalProperties);
  return null;
}

// tree draws the members of a value. In an answer those that may be missing are
// marked, in a request those that must not.
function tree(schema, answer) {
  const s = inner(schema);
  if (!s) return el('p', { className: 'faint' }, typeText(schema));
  if (s.discriminator) {
    return el('ul', { className: 'tree' }, Object.entries(s.discriminator.mapping).map(([name, ref]) =>
      el('li', {}, branch(s.discriminator.propertyName + ': ' + JSON.stringify(name), { $ref: ref }, answer))));
  }
  const required = new Set(s.required || []);
  return el('ul', { className: 'tree' }, Object.entries(s.properties || {}).map(([name, p]) => el('li', {},
    el('code', {}, name), ' ', el('span', { className: 'faint' }, typeText(p)), ' ',
    required.has(name) === !answer ? el('span', { className: answer ? 'faint' : 'must' }, answer ? 'optional' : 'required') : '',
    p.description ? el('div', { className: 'faint' }, p.description) : '',
    inner(p) ? branch('members', p, answer) : '')));
}

// branch is a part of a tree that is drawn when it is opened: schemas may be endless.
function branch(label, schema, answer) {
  const d = el('details', {}, el('summary', { className: 'type' }, label));
  d.addEventListener('toggle', () => { if (d.open && d.children.length === 1) d.append(tree(schema, answer)); });
  return d;
}

function parameters(op) {
  const list = op.parameters || [];
  if (!list.length) return [];
  return [el('h3', {}, 'Parameters'), el('table', {}, list.map((p) => el('tr', {},
    el('td', {}, p.name), el('td', { className: 'faint' }, p.in), el('td', {}, typeText(p.schema)),
    el('td', {}, p.required ? el('span', { className: 'must' }, 'required ') : '', p.description || ''))))];
}

// example makes a value that fits: required members only.
function example(schema, depth = 0) {
  const [s] = resolve(schema);
  if (s.oneOf) return example(s.oneOf[0], depth);
  if (s.enum) return s.enum[0];
  const type = Array.isArray(s.type) ? s.type[0] : s.type;
  switch (type) {
    case 'object': {
      const value = {};
      if (depth < 5) for (const name of s.required || []) value[name] = example(s.properties[name], depth + 1);
      return value;
    }
    case 'array': return s.minItems ? [example(s.items, depth + 1)] : [];
    case 'integer': case 'number': return s.minimum ?? 1;
    case 'boolean': return true;
    case 'string': return s.format === 'date-time' ? '2026-11-20T12:05:00.000Z' : s.format === 'uri' ? 'https://example.com/' : s.format === 'id' ? 'ID' : 'text';
  }
  return {};
}

function curl(op) {
  const server = (doc.servers && doc.servers[0].url) || location.origin;
  const path = op.path.replace(/\{(\w+)\}/g, (_, name) => '$' + name.replace(/[A-Z]/g, (c) => '_' + c).toUpperCase());
  const lines = ['curl ' + (op.method === 'get' ? '' : '-X ' + op.method.toUpperCase() + ' ') + '"' + server + path + '"'];
  for (const s of op.security || []) {
    if ('bearer' in s) lines.push('-H "authorization: Bearer $BP_TOKEN"');
    if ('userKey' in s) lines.push('-H "x-user-key: $USER_KEY"');
  }
  for (const p of op.parameters || []) {
    if (p.in === 'header' && p.required) lines.push('-H "' + p.name + ': $' + p.name.replace(/^x-/, 'BP_').replace(/-/g, '_').toUpperCase() + '"');
  }
  if (op.requestBody) {
    lines.push("-H 'content-type: application/json'");
    lines.push("-d '" + JSON.stringify(example(op.requestBody.content['application/json'].schema)) + "'");
  }
  return lines.join(' \\\n  ');
}

function copyable(text) {
  const button = el('button', { type: 'button' }, 'copy');
  button.addEventListener('click', () => navigator.clipboard.writeText(text).then(() => { button.textContent = 'copied'; }));
  return el('pre', {}, el('code', {}, text), button);
}

function answers(op) {
  const out = [];
  const failures = [];
  for (const [status, r] of Object.entries(op.responses)) {
    if (status >= 400) { failures.push([status, r.description]); continue; }
    out.push(el('h3', {}, 'Answer ' + status));
    for (const [media, c] of Object.entries(r.content || {})) {
      out.push(media === 'application/json' ? tree(c.schema, true) : el('p', { className: 'faint' }, media));
    }
  }
  out.push(el('h3', {}, 'Errors'), el('table', {}, failures.map(([status, types]) => el('tr', {}, el('td', {}, status), el('td', {}, types)))));
  return out;
}

function draw(op) {
  const body = op.requestBody ? [el('h3', {}, 'Body'), tree(op.requestBody.content['application/json'].schema)] : [];
  return el('div', { className: 'body' }, el('h3', {}, 'Example'), copyable(curl(op)), parameters(op), body, answers(op));
}

const main = document.getElementById('main');
const nav = document.getElementById('nav');
const groups = new Map((doc.tags || []).map((t) => [t.name, []]));
for (const op of operations) groups.get(op.tags[0]).push(op);

for (const [name, ops] of groups) {
  const title = el('h2', {}, name);
  const links = el('h2', {}, name);
  main.append(title);
  nav.append(links);
  for (const op of ops) {
    op.words = [op.operationId, op.method, op.path, op.summary, JSON.stringify(op.parameters || ''), JSON.stringify(op.requestBody || '')].join(' ').toLowerCase();
    op.box = el('details', { className: 'op', id: op.operationId }, el('summary', {},
      el('span', { className: 'method ' + op.method }, op.method.toUpperCase()), el('span', { className: 'path' }, op.path),
      el('span', { className: 'name' }, op.operationId), op.summary ? el('span', { className: 'says' }, op.summary) : ''));
    op.box.addEventListener('toggle', () => { if (op.box.open && op.box.children.length === 1) op.box.append(draw(op)); });
    op.link = el('a', { href: '#' + op.operationId, title: op.method.toUpperCase() + ' ' + op.path }, op.operationId);
    main.append(op.box);
    nav.append(op.link);
  }
  ops.heads = [title, links];
}

const find = document.getElementById('find');
function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const ops of groups.values()) {
    let any = false;
    for (const op of ops) {
      const hit = words.every((w) => op.words.includes(w));
      op.box.hidden = op.link.hidden = !hit;
      any = any || hit;
    }
    for (const h of ops.heads) h.hidden = !any;
  }
}
find.addEventListener('input', filter);
addEventListener('keydown', (e) => {
  if (e.key === '/' && document.activeElement !== find) { e.preventDefault(); find.focus(); }
  if (e.key === 'Escape') { find.value = ''; filter(); }
});

function follow() {
  const box = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (box && box.tagName === 'DETAILS') { box.open = true; box.scrollIntoView(); }
}
addEventListener('hashchange', follow);
follow();
