// Numbers as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

function short(value) {
  if (value === 0) return "0";
  if (value >= 10000) return `${Math.round(value / 1000)}k`;
  if (value >= 1000) return `${(value / 1000).toFixed(1)}k`;
  if (value >= 100) return value.toFixed(0);
  if (value >= 10) return value.toFixed(1).replace(/\.0$/, "");
  return value.toFixed(value >= 0.1 ? 1 : 2).replace(/\.?0+$/, "") || "0";
}

function bytes(value) {
  let step = 0;
  while (value >= 1000 && step < UNITS.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${step && value < 100 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value)} ${UNITS[step]}`;
}

function duration(ms) {
  if (ms >= 60000) return `${(ms / 60000).toFixed(1)} min`;
  if (ms >= 10000) return `${(ms / 1000).toFixed(0)} s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(1).replace(/\.0$/, "")} s`;
  return ms >= 10 ? `${Math.round(ms)} ms` : `${ms.toFixed(1).replace(/\.0$/, "")} ms`;
}

function percent(share) {
  if (share >= 1) return "100 %";
  const text = (share * 100).toFixed(share >= 0.9 ? 1 : 0);
  return text === "100.0" ? "> 99.9 %" : `${text} %`; // not all of them
}

function clock(ms) {
  const at = new Date(ms);
  const time = at.toLocaleTimeString([], { hour12: false });
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
}

const counted = (count, one, many) => `${count} ${count === 1 ? one : many ?? `${one}s`}`;
const tail = (name, most = 17) => (name.length > most ? `…${name.slice(1 - most)}` : name); // ends tell names apart

// How a share of requests within their objective is called.
function grade(share) {
  if (share >= 0.99) return "good";
  return share >= 0.95 ? "warn" : "bad";
}
