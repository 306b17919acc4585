// Who stands outside of the groups: the pool, the gateways, the monitors, and workers that are nowhere.

const MOST_CHIPS = 24;
const NO_ONE = { standby: "none: a lost worker is not replaced", gateways: "none", monitors: "none" };

class Pool {
  constructor(name, title, open) {
    this.name = name;
    this.count = el("span", { class: "count" });
    this.list = el("div", { class: "chips" });
    this.none = el("p", { class: "sub" }, NO_ONE[name] ?? "");
    this.chips = new Keyed(this.list, () => new Chip(open));
    this.rest = el("p", { class: "sub" });
    this.node = el("div", { class: `pool ${name}` }, el("h2", {}, title, this.count), this.list, this.rest, this.none);
  }

  update(list, leader) {
    write(this.count, String(list.length));
    show(this.node, list.length > 0 || this.name in NO_ONE);
    show(this.none, list.length === 0);
    show(this.rest, list.length > MOST_CHIPS);
    write(this.rest, `and ${list.length - MOST_CHIPS} more`);
    this.chips.update(list.slice(0, MOST_CHIPS).map((one) => [one.id, { one, leads: one.id === leader }]));
  }
}

class Chip {
  constructor(open) {
    this.id = el("span", { class: "id" });
    this.note = el("span", { class: "note" });
    this.node = el("button", { type: "button", class: "chip", onclick: () => open(this.one) }, el("i", { class: "mark" }), this.id, this.note);
  }

  update({ one, leads }) {
    this.one = one;
    write(this.id, tail(one.id, 22));
    const load = one.slots ? `${one.used}/${one.slots}` : one.used ? counted(one.used, "stream") : "";
    const state = one.state === "ready" ? (one.health === "ok" ? load : one.health) : one.state;
    write(this.note, leads ? "leads" : state);
    put(this.node, "class", `chip ${one.role} ${one.state} health-${one.health}${leads ? " leads" : ""}`);
    put(this.node, "aria-label", `${one.id}, ${one.role}, ${one.state}${leads ? ", leads" : ""}. Details`);
    put(this.node, "title", one.reason || null);
  }
}

class FleetRow {
  constructor(parent, open) {
    this.pools = [["gateways", "Gateways"], ["standby", "Standby"], ["monitors", "Monitors"], ["astray", "In no group"]]
      .map(([name, title]) => new Pool(name, title, open));
    parent.append(...this.pools.map((pool) => pool.node));
  }

  update(part) {
    for (const pool of this.pools) pool.update(part[pool.name], part.leading ? part.monitor : "");
    const leads = part.leading ? `${part.monitor} leads` : `seen by ${part.monitor}, which does not lead`;
    write(byId("sum"), `${part.ready} of ${counted(part.total, "instance")} ready · ${leads}`);
    document.title = `Baton: ${part.ready} of ${part.total} ready`;
    show(byId("read-only"), !part.orders);
    show(byId("lock"), part.orders);
  }
}
