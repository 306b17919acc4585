// Keeps the page fresh: server-sent events, and where they do not come, a question every few seconds.

const POLL_MS = 3000;
const AGAIN_MS = 15000;
const STALE_MS = 6000;
const MOST_POINTS = 150;

const parts = new Map();
const points = new Map(); // scenario -> points
let heard = 0;
let way = "connecting";
let waits = false;
let polling = null;

const orders = () => parts.get("fleet")?.orders ?? false;
const open = (one) => detailDialog(one, orders());
const fleet = new FleetRow(byId("fleet"), open);
const events = new Events();
const scenarios = new Keyed(byId("scenarios"), () => new ScenarioCard(open));

function render() {
  waits = false;
  const part = parts.get("fleet");
  if (!part) return;
  fleet.update(part);
  events.scenarios(part.scenarios);
  const shown = part.scenarios.filter((name) => parts.has(`scenario ${name}`));
  if (shown.length) byId("scenarios").querySelector(".empty")?.remove();
  scenarios.update(shown.map((name) => {
    const scenario = parts.get(`scenario ${name}`);
    const groups = scenario.groups.map((group) => parts.get(`group ${name} ${group}`)).filter(Boolean);
    return [name, { part: scenario, groups, points: points.get(name) ?? [], orders: part.orders }];
  }));
  if (opened) refreshDetails();
}

function refreshDetails() {
  for (const part of parts.values()) {
    for (const list of [part.prefill, part.decode, part.standby, part.gateways, part.monitors, part.astray]) {
      const one = Array.isArray(list) ? list.find((each) => each.id === opened.id) : null;
      if (one) {
        opened.update(one);
        return;
      }
    }
  }
}

function soon() { // at most once a frame, and not at all in a tab that nobody sees
  if (waits) return;
  waits = true;
  requestAnimationFrame(render);
}

function pulse() {
  const stale = Date.now() - heard > STALE_MS;
  const state = heard && !stale ? "live" : "away";
  put(byId("pulse"), "data-state", state);
  write(byId("pulse"), state === "live" ? way : heard ? `the monitor has been silent since ${clock(heard)}` : "connecting");
  document.body.classList.toggle("stale", heard > 0 && stale);
}

function take(whole) {
  heard = Date.now();
  parts.clear();
  points.clear();
  for (const [name, part] of Object.entries(whole.parts)) parts.set(name, part);
  for (const [name, row] of Object.entries(whole.history)) points.set(name, row);
  whole.happenings.forEach((one) => events.add(one));
  soon();
}

function change(state) {
  heard = Date.now();
  for (const [name, part] of Object.entries(state.changed)) parts.set(name, part);
  state.gone.forEach((name) => parts.delete(name));
  for (const [name, point] of Object.entries(state.points)) {
    const row = points.get(name) ?? [];
    row.push(point);
    points.set(name, row.slice(-MOST_POINTS));
  }
  if (Object.keys(state.changed).length || state.gone.length || Object.keys(state.points).length) soon();
}

function listen() {
  const source = new EventSource("/events");
  const on = (name, work) => source.addEventListener(name, (event) => {
    work(JSON.parse(event.data));
    way = "live";
    stopPolling();
    pulse();
  });
  on("whole", take);
  on("state", change);
  on("happening", (one) => events.add(one));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS); // refused; else it comes back itself
    startPolling();
  });
}

async function poll() {
  try {
    const answer = await fetch("/snapshot", { cache: "no-store", signal: AbortSignal.timeout(POLL_MS) });
    if (!answer.ok) throw new Error(answer.status);
    take(await answer.json());
    way = `asked every ${POLL_MS / 1000} s`;
  } catch {
    // it stays as it is; the pulse tells since when
  }
  pulse();
}

function startPolling() {
  if (polling === null) polling = setInterval(() => document.hidden || poll(), POLL_MS);
}

function stopPolling() {
  if (polling !== null) clearInterval(polling);
  polling = null;
}

setInterval(pulse, 1000);
listen();
