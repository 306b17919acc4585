// Elements without markup: text stays text, whatever an instance calls itself. Nothing is touched that has not changed.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function put(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value === true ? "" : value);
  }
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else put(node, name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const shape = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function paint(node, name, value) {
  if (node.style.getPropertyValue(name) !== String(value)) node.style.setProperty(name, value);
}

function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

// The children of one element, one for each key, in order; what is made once is updated after that.
class Keyed {
  constructor(parent, make) {
    this.parent = parent;
    this.make = make;
    this.known = new Map();
  }

  update(entries) {
    const keys = new Set(entries.map(([key]) => key));
    for (const [key, one] of this.known) {
      if (!keys.has(key)) {
        one.node.remove();
        this.known.delete(key);
      }
    }
    let place = this.parent.firstElementChild;
    for (const [key, value] of entries) {
      let one = this.known.get(key);
      if (!one) {
        one = this.make(key, value);
        this.known.set(key, one);
      }
      if (one.node === place) place = place.nextElementSibling;
      else this.parent.insertBefore(one.node, place);
      one.update(value);
    }
  }
}
