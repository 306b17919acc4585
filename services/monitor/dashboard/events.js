// What the fleet did and suffered, and why; newest first.

const MOST_EVENTS = 300;
const ALARMING = /^(lost|held-off|failed|refused|broken)/;
const DECIDED = /^(ratio|scale|upgrade|canary|explain|plan|flip)/; // by a controller or an operator

class Events {
  constructor() {
    this.list = byId("events");
    this.filter = byId("filter");
    this.rows = new Map(); // by id, oldest first
    this.filter.addEventListener("change", () => this.sift());
  }

  add(happening) {
    if (this.rows.has(happening.id)) return;
    const node = el("li", { class: ALARMING.test(happening.kind) ? "alarm" : DECIDED.test(happening.kind) ? "decided" : null },
      el("time", { datetime: new Date(happening.at).toISOString() }, clock(happening.at)),
      el("span", { class: "badge" }, happening.kind),
      happening.scenario ? el("span", { class: "of" }, happening.scenario) : null,
      el("p", {}, happening.text));
    node.scenario = happening.scenario;
    node.hidden = this.hides(node);
    this.rows.set(happening.id, node);
    this.list.prepend(node);
    while (this.rows.size > MOST_EVENTS) {
      const [id, oldest] = this.rows.entries().next().value;
      oldest.remove();
      this.rows.delete(id);
    }
    this.note();
  }

  scenarios(names) {
    const known = [...this.filter.options].slice(1).map((option) => option.value);
    if (known.join(" ") === names.join(" ")) return;
    const chosen = names.includes(this.filter.value) ? this.filter.value : "";
    this.filter.replaceChildren(this.filter.options[0], ...names.map((name) => el("option", { value: name }, name)));
    this.filter.value = chosen;
    this.sift();
  }

  hides(node) {
    return this.filter.value !== "" && node.scenario !== "" && node.scenario !== this.filter.value;
  }

  sift() {
    for (const node of this.rows.values()) show(node, !this.hides(node));
    this.note();
  }

  note() {
    show(byId("no-events"), ![...this.rows.values()].some((node) => !node.hidden));
  }
}
