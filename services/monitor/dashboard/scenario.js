// One scenario: its figures, why its controller acts, and its groups.

class Stat {
  constructor(label, spark = null) {
    this.value = el("span", { class: "number" });
    this.unit = el("span", { class: "unit" });
    this.sub = el("p", { class: "sub" });
    this.spark = spark;
    this.node = el("div", { class: "stat" }, el("h4", {}, label), el("p", { class: "big" }, this.value, this.unit), this.sub,
      spark ? spark.node : null);
  }

  update(value, unit, sub, kind = "") {
    write(this.value, value);
    write(this.unit, unit);
    write(this.sub, sub);
    put(this.node, "class", `stat ${kind}`);
  }
}

class ScenarioCard {
  constructor(open) {
    this.name = el("h2");
    this.about = el("p", { class: "about" });
    this.progress = el("p", { class: "progress", role: "status", hidden: true });
    this.buttons = el("div", { class: "buttons", hidden: true },
      this.button("Explain", explainDialog), this.button("Scale", scaleDialog), this.button("Upgrade", upgradeDialog));
    this.ratio = el("span", { class: "number" });
    this.wants = el("p", { class: "sub" });
    this.balance = new Balance();
    this.arriving = new Stat("Arriving", new Spark("Arriving in the last five minutes"));
    this.ttft = new Stat("First token", new Spark("First tokens in time", { floor: 0.9, ceiling: 1 }));
    this.tpot = new Stat("Per token", new Spark("Tokens in time", { floor: 0.9, ceiling: 1 }));
    this.waiting = new Stat("Waiting", new Spark("Waiting in the last five minutes", { ceiling: 4 }));
    this.why = el("ul", { class: "why" });
    this.reasons = new Keyed(this.why, () => {
      const node = el("li");
      return { node, update: (text) => write(node, text) };
    });
    this.mode = el("span", { class: "badge mode" });
    this.whyRow = el("div", { class: "why-row" }, this.mode, this.why);
    this.groups = el("div", { class: "groups" });
    this.cards = new Keyed(this.groups, () => new GroupCard(open));
    const ratio = el("div", { class: "stat ratio" },
      el("div", {}, el("h4", {}, "Prefill : decode"), el("p", { class: "big" }, this.ratio), this.wants), this.balance.node);
    this.node = el("section", { class: "scenario" },
      el("header", {}, el("div", { class: "title" }, this.name, this.about), this.buttons), this.progress,
      el("div", { class: "stats" }, ratio, ...[this.arriving, this.ttft, this.tpot, this.waiting].map((stat) => stat.node)),
      this.whyRow, el("h3", { class: "unseen" }, "Groups"), this.groups);
  }

  button(text, dialog) {
    return el("button", { type: "button", onclick: () => unlocked(() => dialog(this.part)) }, text);
  }

  update({ part, groups, points, orders }) {
    this.part = part;
    write(this.name, part.name);
    put(this.node, "aria-label", `Scenario ${part.name}`);
    const revision = part.target ? ` · revision ${part.target}` : "";
    write(this.about, `${part.model || "model unknown"}${part.engine ? ` on ${part.engine}` : ""}${revision} · map ${part.version}`);
    show(this.buttons, orders);
    this.figures(part, points);
    this.advice(part.advice);
    const most = groups.reduce((high, group) => group.links.reduce((top, link) => Math.max(top, link.bytes_per_s), high), 1);
    const strongest = 2 ** Math.ceil(Math.log2(most)); // in steps, so that widths keep still
    this.cards.update(groups.map((group) => [group.name, { group, strongest }]));
  }

  figures(part, points) {
    const { advice } = part;
    write(this.ratio, `${part.prefill} : ${part.decode}`);
    const wanted = advice && (advice.prefill || advice.decode) ? `${advice.prefill} : ${advice.decode}` : "";
    const other = wanted && wanted !== `${part.prefill} : ${part.decode}`;
    write(this.wants, other ? `wants ${wanted}` : wanted ? "as wanted" : `in ${counted(part.groups.length, "group")}`);
    this.wants.classList.toggle("differs", Boolean(other));
    this.balance.update(advice, part.arriving_per_s);
    const row = (name) => points.map((point) => [point.at, point[name]]);
    const known = part.known;
    this.arriving.update(known ? short(part.arriving_per_s) : "–", known ? " /s" : "", known ? `${short(part.finished_per_s)}/s done · ${short(part.tokens_per_s)} tokens/s` : "no gateway has told yet");
    this.arriving.spark.update(row("arriving"), (value) => `${short(value)} a second`);
    this.times(this.ttft, part.ttft, row("ttft"));
    this.times(this.tpot, part.tpot, row("tpot"));
    const ended = part.finished + part.failed + part.refused;
    const outcome = ended ? `${percent(part.success)} well · ${part.open} open` : `${part.open} open`;
    const bad = ended && part.success < 0.99 ? grade(part.success) : "";
    this.waiting.update(known ? String(part.waiting) : "–", "", known ? outcome : "", bad);
    put(this.waiting.node, "title", known ? `in the last minute ${part.finished} went well, ${part.failed} attempts failed, ${part.refused} were refused` : null);
    this.waiting.spark.update(row("waiting"), String);
  }

  times(stat, times, points) {
    if (times.count) {
      const last = `${times.over ? "> " : ""}${duration(times.p99_ms)}`;
      stat.update(percent(times.within), ` ≤ ${duration(times.slo_ms)}`, `p50 ${duration(times.p50_ms)} · p99 ${last}`, grade(times.within));
    } else {
      stat.update("–", ` ≤ ${duration(times.slo_ms)}`, "none in the last minute");
    }
    stat.spark.update(points, percent);
  }

  advice(advice) {
    show(this.whyRow, advice !== null && advice.reasons.length > 0);
    show(this.progress, Boolean(advice?.upgrade));
    write(this.progress, advice?.upgrade ? `Upgrade: ${advice.upgrade}` : "");
    write(this.mode, advice?.mode ? `ratio: ${advice.mode}` : "controller");
    this.reasons.update((advice?.reasons ?? []).slice(0, 4).map((text, at) => [at, text]));
  }
}
