// Small pictures of the last five minutes.

const WIDE = 150;
const HIGH = 30;
const SPAN_S = 300;

class Spark {
  constructor(label, { ceiling = null, floor = 0 } = {}) {
    this.label = label;
    this.ceiling = ceiling;
    this.floor = floor;
    this.area = shape("path", { class: "area" });
    this.line = shape("path", { class: "line" });
    this.node = shape("svg", {
      class: "spark", viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": label,
    }, this.area, this.line);
  }

  // `points` are [unix seconds, value or null].
  update(points, say) {
    const values = points.map(([, value]) => value).filter((value) => value !== null);
    if (!values.length) {
      put(this.line, "d", null);
      put(this.area, "d", null);
      put(this.node, "aria-label", `${this.label}: nothing measured yet`);
      return;
    }
    const low = Math.min(this.floor, ...values);
    const high = Math.max(this.ceiling ?? 0, ...values, low + 1e-9);
    const end = points[points.length - 1][0];
    const x = (at) => (WIDE * (1 - (end - at) / SPAN_S)).toFixed(1);
    const y = (value) => (HIGH - 2 - (HIGH - 4) * ((value - low) / (high - low))).toFixed(1);
    const runs = [];
    let run = null;
    for (const [at, value] of points) {
      if (end - at > SPAN_S) continue;
      if (value === null) run = null;
      else if (run) run.push([at, value]);
      else runs.push((run = [[at, value]]));
    }
    const path = (row) => row.map(([at, value], place) => `${place ? "L" : "M"}${x(at)} ${y(value)}`).join("");
    put(this.line, "d", runs.map(path).join(""));
    put(this.area, "d", runs.map((row) => `${path(row)}L${x(row[row.length - 1][0])} ${HIGH}L${x(row[0][0])} ${HIGH}Z`).join(""));
    put(this.node, "aria-label", `${this.label}: between ${say(Math.min(...values))} and ${say(Math.max(...values))}`);
  }
}

// What prefills and decodes are capable of, and what arrives, on one scale.
class Balance {
  constructor() {
    this.rows = ["prefill", "decode"].map((role) => {
      const bar = el("span", { class: `bar ${role}` });
      const value = el("span", { class: "value" });
      return { role, bar, value, node: el("div", { class: "capable" }, el("span", { class: "role" }, role), el("span", { class: "track" }, bar, el("i", { class: "arriving" })), value) };
    });
    this.note = el("p", { class: "sub" });
    this.node = el("div", { class: "balance" }, ...this.rows.map((row) => row.node), this.note);
  }

  update(advice, arriving) {
    const known = advice !== null && (advice.prefill_per_s > 0 || advice.decode_per_s > 0);
    const most = known ? Math.max(advice.prefill_per_s, advice.decode_per_s, arriving, 1e-9) : 1;
    for (const row of this.rows) {
      const able = known ? advice[`${row.role}_per_s`] : 0;
      paint(row.bar, "width", `${(100 * able) / most}%`);
      paint(row.bar.nextSibling, "left", `${(100 * arriving) / most}%`);
      show(row.bar.nextSibling, known && arriving > 0);
      write(row.value, able > 0 ? `${short(able)}/s` : "–");
      row.node.classList.toggle("scarce", known && advice.scarcer === row.role);
    }
    const phi = known && advice.phi > 0 ? ` · Φ ${short(advice.phi)}/s an instance` : "";
    const arrive = arriving > 0 ? ` · ${short(arriving)}/s arrive` : "";
    write(this.note, known ? `${advice.scarcer ? `${advice.scarcer} is scarcer` : "in balance"}${arrive}${phi}` : "not measured yet");
    put(this.note, "title", known ? `T_p ${duration(advice.prefill_s * 1000)}, T_d ${duration(advice.decode_s * 1000)}; the mark is what arrives` : null);
  }
}
