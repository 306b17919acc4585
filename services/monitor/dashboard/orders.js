// Buttons: what they ask, what the monitor answers. The token is asked for once and stays in this tab.

const TOKEN = "baton-token";
const dialog = byId("dialog");
let opened = null; // the instance whose details are shown

const token = () => sessionStorage.getItem(TOKEN) ?? "";

function lockWord() {
  write(byId("lock"), token() ? "Lock orders" : "Unlock orders");
}

function closeDialog() {
  opened = null;
  dialog.close();
}

// One dialog for all: a title, a body, and buttons; Escape closes it, focus returns to where it was.
function ask(title, body, buttons) {
  opened = null;
  const answer = el("output", { class: "answer", "aria-live": "polite" });
  const row = el("div", { class: "buttons" }, el("button", { type: "button", class: "quiet", onclick: closeDialog }, "Close"), ...buttons(answer));
  const form = el("form", { onsubmit: submitted }, el("h2", { id: "dialog-title" }, title), ...body, answer, row);
  dialog.replaceChildren(form);
  if (!dialog.open) dialog.showModal();
  form.querySelector("input, select, textarea")?.focus();
  return answer;
}

function submitted(event) {
  event.preventDefault();
  event.submitter?.work?.();
}

// A main button is also what Enter presses.
function act(text, work, kind = "main") {
  if (!kind.includes("main")) return el("button", { type: "button", class: kind, onclick: work }, text);
  const button = el("button", { type: "submit", class: kind }, text);
  button.work = work;
  return button;
}

async function place(order, answer) {
  for (const button of dialog.querySelectorAll("button")) button.disabled = true;
  put(answer, "class", "answer");
  write(answer, "asking the monitor …");
  try {
    const reply = await fetch("/orders", {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${token()}` },
      body: JSON.stringify(order),
      signal: AbortSignal.timeout(40000),
    });
    const told = await reply.json();
    put(answer, "class", reply.ok ? "answer good" : "answer bad");
    write(answer, reply.ok ? told.text || "done" : told.error);
    if (reply.status === 401) {
      sessionStorage.removeItem(TOKEN);
      lockWord();
    }
    return reply.ok;
  } catch (error) {
    put(answer, "class", "answer bad");
    write(answer, `The monitor did not answer: ${error.message}`);
    return false;
  } finally {
    for (const button of dialog.querySelectorAll("button")) button.disabled = false;
  }
}

function unlocked(then) {
  if (token()) then();
  else tokenDialog(then);
}

function tokenDialog(then) {
  const input = el("input", { type: "password", autocomplete: "off", required: true, id: "token" });
  ask("Unlock orders", [
    el("p", {}, "Drain, scale and upgrade need the token of the monitor's configuration (monitor.token). It stays in this tab until it is closed."),
    el("label", { for: "token" }, "Token"), input,
  ], () => [act("Unlock", () => {
    const given = input.value.trim();
    if (!given) return;
    sessionStorage.setItem(TOKEN, given);
    lockWord();
    closeDialog();
    then?.();
  })]);
}

function field(label, attributes, hint = "") {
  const input = el("input", attributes);
  const node = el("label", { class: "field" }, el("span", {}, label), input, hint ? el("small", {}, hint) : null);
  return { node, input };
}

const number = (input) => Math.max(0, Math.trunc(Number(input.value) || 0));

function scaleDialog(part) {
  const [prefills, decodes] = part.per_group;
  const options = { type: "number", min: 0, max: 10000, inputmode: "numeric" };
  const prefill = field("Prefills of each group", { ...options, value: prefills });
  const decode = field("Decodes of each group", { ...options, value: decodes });
  const groups = field("Groups", { ...options, max: 1024, value: part.groups.length }, "0 leaves a number as it is");
  const group = el("select", {}, el("option", { value: "" }, "every group"), ...part.groups.map((name) => el("option", { value: name }, name)));
  group.addEventListener("change", () => (groups.input.disabled = group.value !== ""));
  const order = (dry) => ({
    order: "scale", scenario: part.name, prefill: number(prefill.input), decode: number(decode.input),
    groups: group.value ? 0 : number(groups.input), group: group.value, dry_run: dry,
  });
  ask(`Scale ${part.name}`, [
    el("p", {}, "New members come from standby; surplus ones finish what they hold first. No request is lost."),
    el("label", { class: "field" }, el("span", {}, "For"), group), prefill.node, decode.node, groups.node,
  ], (answer) => [act("What would be done?", () => place(order(true), answer), ""), act("Scale", () => place(order(false), answer))]);
}

function upgradeDialog(part) {
  const model = field("Model", { type: "text", placeholder: part.model, autocomplete: "off", spellcheck: "false" }, "empty: as it is");
  const options = field("Engine options, JSON", { type: "text", placeholder: "{}", autocomplete: "off", spellcheck: "false" }, "over those that are");
  const canary = field("Canary, percent of the requests", { type: "number", min: 0, max: 50, value: 10 });
  const trial = field("Trial, seconds", { type: "number", min: 0, max: 86400, value: 30 });
  const give = (answer, more) => {
    let wanted = {};
    try {
      wanted = JSON.parse(options.input.value || "{}");
    } catch (error) {
      put(answer, "class", "answer bad");
      write(answer, `The options are not JSON: ${error.message}`);
      return;
    }
    place({
      order: "upgrade", scenario: part.name, model: model.input.value.trim(), options: wanted,
      canary: number(canary.input), trial_s: Number(trial.input.value) || 0, ...more,
    }, answer);
  };
  ask(`Upgrade ${part.name}`, [
    el("p", {}, "Group after group, at an unchanged ratio. The first group gets the canary's share; when errors or late answers rise, it stops and goes back."),
    model.node, options.node, canary.node, trial.node,
  ], (answer) => [
    act("Roll back", () => rollbackDialog(part), "danger"),
    act("What would be done?", () => give(answer, { dry_run: true }), ""),
    act("Upgrade", () => give(answer, {})),
  ]);
}

function rollbackDialog(part) {
  ask(`Roll ${part.name} back?`, [el("p", {}, `Every group returns from revision ${part.target} to the one before, group after group.`)],
    (answer) => [act("Roll back", () => place({ order: "upgrade", scenario: part.name, back: true }, answer), "main danger")]);
}

function explainDialog(part) {
  const answer = ask(`What the controller of ${part.name} thinks`, [el("p", {}, "Nothing is changed by asking.")], () => []);
  place({ order: "explain", scenario: part.name }, answer);
}

function drainDialog(one) {
  ask(`Drain ${one.id}?`, [
    el("p", {}, `It takes nothing new, finishes the ${counted(one.used, "request")} that it holds, and stops. A standby takes its place where one is free.`),
  ], (answer) => [act("Drain", () => place({ order: "drain", instance: one.id }, answer), "main danger")]);
}

const DETAILS = [
  ["State", (one) => `${one.state}${one.place === "joining" ? ", joining" : ""}`],
  ["Why", (one) => one.reason],
  ["Health", (one) => one.health],
  ["Slots", (one) => (one.slots ? `${one.used} of ${one.slots} used` : "")],
  ["Busy", (one) => (one.slots ? percent(one.busy) : "")],
  ["Requests", (one) => (one.slots ? `${short(one.passed_per_s)}/s` : "")],
  ["Tokens", (one) => (one.slots ? `${short(one.tokens_per_s)}/s` : "")],
  ["KV waiting", (one) => (one.role === "prefill" ? `${short(one.waiting)} on average` : "")],
  ["KV free", (one) => (one.kv_room ? `${bytes(one.kv_free)} of ${bytes(one.kv_room)}` : "")],
  ["Revision", (one) => (one.slots ? String(one.revision) : "")],
  ["Process", (one) => (one.pid ? `${one.pid} on ${one.host}` : "")],
  ["Epoch", (one) => one.epoch],
];

function detailDialog(one, orders) {
  const list = el("dl", { class: "details" });
  const rows = new Keyed(list, (name) => {
    const value = el("dd");
    return { node: el("div", {}, el("dt", {}, name), value), update: (text) => write(value, text) };
  });
  const update = (now) => rows.update(DETAILS.map(([name, say]) => [name, say(now)]).filter(([, text]) => text !== ""));
  update(one);
  const drains = orders && one.role !== "monitor" && ["ready", "starting"].includes(one.state);
  ask(`${one.id}`, [el("p", { class: "sub" }, one.role), list],
    () => (drains ? [act("Drain …", () => unlocked(() => drainDialog(one)), "danger")] : []));
  opened = { id: one.id, update };
}

dialog.addEventListener("close", () => (opened = null));
byId("lock").addEventListener("click", () => {
  if (token()) {
    sessionStorage.removeItem(TOKEN);
    lockWord();
  } else {
    tokenDialog(null);
  }
});
lockWord();
