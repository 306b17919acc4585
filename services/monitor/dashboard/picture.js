// A group as a picture: prefills at left, decodes at right, and what flows between them.

const ROW = 54;
const SMALL_ROW = 34;
const MANY = 8; // tiles above each other, from which on they are small
const MOST_LINKS = 400; // above it only those are drawn that say something
const PHASES = ["collect", "load", "connect", "open"];
const PHASE_WORDS = {
  collect: "collecting instances", load: "loading the model", connect: "verifying links", open: "open", closing: "closing",
};

class Tile {
  constructor(open, near) {
    this.id = el("span", { class: "id" });
    this.state = el("span", { class: "state" });
    this.bar = el("span", { class: "slots" });
    this.load = el("span");
    this.more = el("span", { class: "more" }, this.state, this.load);
    this.node = el("button", { type: "button", class: "tile", onclick: () => open(this.one) },
      el("span", { class: "line" }, el("i", { class: "mark" }), this.id), this.bar, this.more);
    for (const [event, on] of [["pointerenter", true], ["focus", true], ["pointerleave", false], ["blur", false]]) {
      this.node.addEventListener(event, () => near?.(on && this.one ? this.one.id : null));
    }
  }

  update(one) {
    this.one = one;
    write(this.id, tail(one.id));
    const word = one.place === "joining" ? "joining" : one.state === "ready" ? one.health === "ok" ? "" : one.health : one.state;
    write(this.state, word);
    put(this.node, "class", `tile ${one.role} ${one.state} ${one.place} health-${one.health}`);
    paint(this.bar, "--used", one.slots ? one.used / one.slots : 0);
    paint(this.bar, "--slots", one.slots && one.slots <= 24 ? one.slots : 1);
    show(this.bar, one.slots > 0);
    const load = this.words(one, word);
    write(this.load, load);
    this.state.classList.toggle("alone", load === "");
    show(this.more, word !== "" || load !== "");
    const slots = one.slots ? `, ${one.used} of ${one.slots} slots used` : "";
    put(this.node, "aria-label", `${one.id}, ${one.role}, ${word || "ready"}${slots}. Details`);
    put(this.node, "title", one.reason || null);
  }

  words(one, word) {
    if (one.place === "joining" || one.state === "failed") return "";
    const slots = one.slots ? `${one.used}/${one.slots}` : "";
    if (word) return slots;
    if (one.role === "prefill") return one.waiting >= 0.05 ? `${slots} · ${short(one.waiting)} KV wait` : slots;
    if (one.role === "decode" && one.kv_room > 0) return `${slots} · KV ${Math.round(100 * (1 - one.kv_free / one.kv_room))} %`;
    return slots;
  }
}

const emptyTile = (role) => {
  const node = el("div", { class: `tile ${role} ghost` }, el("span", { class: "line" }, el("span", { class: "id" }, "awaited")));
  return { node, update() {} };
};

class Picture {
  constructor(open) {
    const near = (id) => this.highlight(id);
    const make = (key, one) => (one.ghost ? emptyTile(one.role) : new Tile(open, near));
    this.left = el("div", { class: "column" });
    this.right = el("div", { class: "column" });
    this.prefills = new Keyed(this.left, make);
    this.decodes = new Keyed(this.right, make);
    this.wires = shape("svg", { class: "wires", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.links = new Keyed(this.wires, () => this.wire());
    this.node = el("div", { class: "picture" }, this.left, this.wires, this.right);
  }

  wire() {
    const title = shape("title");
    const node = shape("path", {}, title);
    let link = null;
    node.addEventListener("pointerenter", () => write(title, saidOf(link))); // nobody reads hundreds of them
    return {
      node,
      update: (wire) => {
        link = wire.link;
        put(node, "d", wire.d);
        put(node, "class", wire.kind);
        put(node, "stroke-width", wire.width);
        node.ends = [link.prefill, link.decode];
      },
    };
  }

  highlight(id) {
    this.wires.classList.toggle("some", id !== null);
    for (const path of this.wires.children) path.classList.toggle("near", id !== null && path.ends.includes(id));
  }

  update(group, strongest) {
    const rows = { prefill: this.rows(group, "prefill"), decode: this.rows(group, "decode") };
    const tall = Math.max(rows.prefill.length, rows.decode.length, 1);
    const row = tall > MANY ? SMALL_ROW : ROW;
    const high = tall * row;
    this.node.classList.toggle("small", tall > MANY);
    paint(this.node, "--row", `${row}px`);
    paint(this.node, "--high", `${high}px`);
    put(this.wires, "viewBox", `0 0 100 ${high}`);
    this.prefills.update(rows.prefill);
    this.decodes.update(rows.decode);
    const place = (list) => new Map(list.map(([key], at) => [key, (high - list.length * row) / 2 + (at + 0.5) * row]));
    this.draw(group, place(rows.prefill), place(rows.decode), strongest);
  }

  rows(group, role) {
    const list = group[role].map((one) => [one.id, one]);
    const missing = Math.min(64, group[`${role}s`] - group[role].filter((one) => one.place !== "outside").length);
    if (group.phase !== "closing") {
      for (let at = 0; at < missing; at += 1) list.push([`awaited ${at}`, { ghost: true, role }]);
    }
    return list;
  }

  draw(group, from, to, strongest) {
    const told = new Set(group.links.map((link) => `${link.prefill} ${link.decode}`));
    const thick = told.size > 16 ? 2.5 : 4.5; // pixels more than an idle one
    const many = group.links.length > MOST_LINKS;
    const links = group.links.filter((link) => !many || link.bytes_per_s > 0 || link.problem);
    const wires = links.filter((link) => from.has(link.prefill) && to.has(link.decode)).map((link) => [
      `${link.prefill} ${link.decode}`, wireOf(link, from.get(link.prefill), to.get(link.decode), strongest, thick),
    ]);
    if (!many) {
      for (const prefill of group.prefill) {
        for (const decode of group.decode) {
          const key = `${prefill.id} ${decode.id}`;
          if (told.has(key) || prefill.place === "outside" || decode.place === "outside") continue;
          const silent = { prefill: prefill.id, decode: decode.id, verified: false, problem: "", bytes_per_s: 0, push_ms: 0 };
          wires.push([key, wireOf(silent, from.get(prefill.id), to.get(decode.id), strongest, thick)]);
        }
      }
    }
    this.links.update(wires);
  }
}

function wireOf(link, from, to, strongest, thick) {
  const flows = link.bytes_per_s > 0;
  const width = flows ? 1 + thick * Math.sqrt(link.bytes_per_s / Math.max(strongest, 1)) : 1;
  return {
    link,
    d: `M0 ${from}C45 ${from} 55 ${to} 100 ${to}`,
    kind: link.problem ? "broken" : link.verified ? (flows ? "flows" : "idle") : "unverified",
    width: Math.round(width * 2) / 2, // half a pixel: what is drawn again should be seen to have changed
  };
}

function saidOf(link) {
  const flow = link.bytes_per_s > 0 ? `${bytes(link.bytes_per_s)}/s, ${duration(link.push_ms)} a push` : "nothing flows";
  return `${link.prefill} → ${link.decode}: ${link.problem || (link.verified ? flow : "not verified yet")}`;
}

class GroupCard {
  constructor(open) {
    this.name = el("h4");
    this.phase = el("span", { class: "badge phase" });
    this.steps = el("span", { class: "steps", "aria-hidden": "true" }, ...PHASES.map(() => el("i")));
    this.tags = el("span", { class: "tags" });
    this.tagged = new Keyed(this.tags, () => {
      const node = el("span", { class: "badge" });
      return { node, update: (text) => write(node, text) };
    });
    this.sum = el("p", { class: "sub" });
    this.picture = new Picture(open);
    this.node = el("article", { class: "group" },
      el("header", {}, this.name, this.phase, this.steps, this.tags), this.picture.node, this.sum);
  }

  update({ group, strongest }) {
    if (this.group === group && this.strongest === strongest) return;
    this.group = group;
    this.strongest = strongest;
    write(this.name, group.name);
    put(this.node, "aria-label", `Group ${group.name}`);
    put(this.node, "class", `group ${group.phase}`);
    write(this.phase, PHASE_WORDS[group.phase] ?? group.phase);
    put(this.phase, "class", `badge phase ${group.phase}`);
    const step = PHASES.indexOf(group.phase);
    show(this.steps, step >= 0 && group.phase !== "open");
    [...this.steps.children].forEach((dot, at) => put(dot, "class", at < step ? "done" : at === step ? "now" : null));
    const tags = [];
    if (group.strategy) tags.push(["strategy", group.strategy]);
    if (group.canary) tags.push(["canary", `canary ${group.canary} %`]);
    if (group.revision) tags.push(["revision", `revision ${group.revision}`]);
    this.tagged.update(tags);
    this.picture.update(group, strongest);
    const broken = group.links.filter((link) => link.problem).length;
    const busy = group.links.filter((link) => link.bytes_per_s > 0).length;
    const flow = busy ? `KV ${bytes(group.bytes_per_s)}/s over ${counted(busy, "link")}` : "no KV moves";
    const working = (role) => {
      const now = group[role].filter((one) => one.place === "member").length;
      const wanted = group[`${role}s`];
      return now === wanted || group.phase === "closing" ? counted(now, role) : `${now} of ${counted(wanted, role)}`;
    };
    write(this.sum, `${working("prefill")}, ${working("decode")} · ${flow}${broken ? ` · ${counted(broken, "broken link")}` : ""}`);
    this.sum.classList.toggle("bad", broken > 0);
  }
}
