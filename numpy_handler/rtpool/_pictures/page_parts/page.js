// The page of a trace: a timeline that can be brushed, and who made what in the part that is chosen.
// All text goes into the page as text, never as markup: names in a trace are anybody's.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const LEFT = 78; // the width of the curve's axis; lanes stand below its inside
  const METRICS = [
    ["bytes", "bytes asked for", bytes], ["temporary_bytes", "bytes of temporaries", bytes], ["calls", "arrays", count],
    ["misses", "misses", count], ["alive", "bytes alive at the end", bytes],
    ["peak", "bytes alive at the peak of the whole trace", bytes],
  ];

  function node(tag, text, name) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  }
  function bytes(value) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = 0;
    while (Math.abs(value) >= 1024 && unit < units.length - 1) { value /= 1024; unit++; }
    return (unit ? value.toPrecision(Math.abs(value) >= 1000 ? 4 : 3) : value) + " " + units[unit];
  }
  function count(value) { return value.toLocaleString("en"); }
  function seconds(value) {
    const size = Math.abs(value);
    if (size >= 1 || value === 0) return +value.toPrecision(4) + " s";
    if (size >= 1e-3) return +(value * 1e3).toPrecision(4) + " ms";
    if (size >= 1e-6) return +(value * 1e6).toPrecision(4) + " us";
    return +(value * 1e9).toPrecision(3) + " ns";
  }
  function percent(part, whole) { return whole > 0 ? Math.round((100 * part) / whole) + " %" : "-"; }

  // --- the part that is chosen: steps of the cells, from the first up to and without the last ---

  const cellStep = [];
  data.cells.step.reduce((before, more) => { cellStep.push(before + more); return before + more; }, 0);
  const perStep = data.seconds / data.cellSteps || 0;
  const all = { begin: 0, end: data.cellSteps };
  let chosen = all;

  // What each leaf, and from that each expression, comes to in the part that is chosen.
  function sums() {
    const fields = ["calls", "bytes", "temporaries", "temporary_bytes", "misses"];
    const found = data.leaves.map((_, leaf) => ({
      calls: 0, bytes: 0, temporaries: 0, temporary_bytes: 0, misses: 0, alive: 0, peak: data.peak.leaves[leaf],
    }));
    const cells = data.cells;
    for (let i = 0; i < cellStep.length; i++) {
      if (cellStep[i] >= chosen.end) break;
      const leaf = found[cells.leaf[i]];
      leaf.alive += cells.bytes[i] - cells.freed_bytes[i];
      if (cellStep[i] < chosen.begin) continue;
      for (const field of fields) leaf[field] += cells[field][i];
    }
    return found;
  }
  function byExpression(found) {
    const total = data.expressions.map(() => ({ calls: 0, bytes: 0, temporaries: 0, temporary_bytes: 0, misses: 0, alive: 0, peak: 0 }));
    found.forEach((sum, number) => {
      const into = total[data.leaves[number][0]];
      if (into) for (const field in sum) into[field] += sum[field];
    });
    return total;
  }

  // --- facts ---

  $("title").textContent = data.title;
  for (const [name, value, hint] of data.facts) {
    const box = node("div");
    box.append(node("dt", name), node("dd", value));
    if (hint) box.title = hint;
    $("facts").append(box);
  }
  for (const note of data.notes) $("notes").querySelector("ul").append(node("li", note));

  // --- the curve ---

  let curve = null;
  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function drawCurve() {
    if (!data.timed) { $("when").hidden = true; return; }
    const each = data.seconds / data.steps;
    const x = data.alive.map((_, step) => step * each);
    x.push(data.seconds);
    const y = data.alive.concat(data.alive.slice(-1));
    let at = 0;
    const resident = x.map((time) => {
      while (at + 1 < data.resident.length && data.resident[at + 1][0] <= time) at++;
      return data.resident.length && data.resident[at][0] <= time ? data.resident[at][1] : null;
    });
    const old = curve;
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    if (old) old.destroy();
    const width = $("curve").clientWidth;
    curve = new uPlot({
      width, height: width < 600 ? 170 : 210, padding: [8, 12, 0, 0],
      scales: { x: { time: false, range: () => [0, data.seconds || 1] }, y: { range: (_, low, high) => [0, (high || 1) * 1.12] } },
      axes: [
        { ...axis, values: (_, values) => values.map(seconds), space: 70 },
        { ...axis, size: LEFT, values: (_, values) => values.map(bytes), incrs: powers() },
      ],
      series: [
        { label: "time", value: (_, value) => (value === null ? "" : seconds(value)) },
        { label: "alive", stroke: colour("--accent"), fill: colour("--accent-fill"), width: 1.5, points: { show: false },
          paths: uPlot.paths.stepped({ align: 1 }), value: (_, value) => (value === null ? "" : bytes(value)) },
        { label: "resident, whole process", stroke: colour("--dim"), width: 1, show: old ? old.series[2].show : false,
          points: { show: false }, value: (_, value) => (value === null ? "" : bytes(value)) },
      ],
      cursor: { drag: { x: false, y: false, setScale: false }, y: false },
      hooks: {
        ready: [(made) => { curve = made; brushable(made.over); showRange(); drawLanes(); }],
        draw: [markPeak],
      },
    }, [x, y, resident], $("curve"));
  }
  function markPeak(made) {
    const x = made.valToPos(data.peak.time, "x", true), y = made.valToPos(data.peak.bytes, "y", true);
    const size = 5 * (window.devicePixelRatio || 1);
    made.ctx.fillStyle = colour("--warn");
    made.ctx.beginPath();
    made.ctx.moveTo(x, y);
    made.ctx.lineTo(x - size, y - 1.6 * size);
    made.ctx.lineTo(x + size, y - 1.6 * size);
    made.ctx.fill();
  }
  function powers() {
    const steps = [];
    for (let size = 1; size < 2 ** 60; size *= 2) steps.push(size);
    return steps;
  }
  function brushable(over) {
    let begun = null;
    const at = (event) => {
      const box = over.getBoundingClientRect();
      return Math.min(Math.max(event.clientX - box.left, 0), box.width) / box.width * data.seconds;
    };
    over.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      begun = at(event);
      over.setPointerCapture(event.pointerId);
    });
    over.addEventListener("pointermove", (event) => { if (begun !== null) choose(begun, at(event), true); });
    over.addEventListener("pointerup", (event) => {
      if (begun === null) return;
      const end = at(event);
      if (Math.abs(end - begun) * over.clientWidth < 3 * data.seconds) chooseSteps(all); else choose(begun, end);
      begun = null;
    });
    over.addEventListener("pointercancel", () => { begun = null; showRange(); });
  }
  function choose(from, to, moving) {
    const [low, high] = from < to ? [from, to] : [to, from];
    let begin = perStep ? Math.floor(low / perStep + 1e-6) : 0;
    let end = perStep ? Math.ceil(high / perStep - 1e-6) : 1;
    begin = Math.min(Math.max(begin, 0), data.cellSteps - 1);
    end = Math.min(Math.max(end, begin + 1), data.cellSteps);
    chooseSteps({ begin, end }, moving);
  }
  function chooseSteps(part, moving) {
    chosen = part;
    showRange();
    if (!moving) showAll();
  }
  function showRange() {
    if (!curve) return;
    const whole = chosen.begin === 0 && chosen.end === data.cellSteps;
    const low = chosen.begin * perStep, high = chosen.end * perStep;
    const left = curve.valToPos(low, "x"), right = curve.valToPos(high, "x");
    curve.setSelect(whole ? { left: 0, top: 0, width: 0, height: 0 }
      : { left, top: 0, width: right - left, height: curve.over.clientHeight }, false);
    $("chosen").textContent = whole ? "the whole trace, " + seconds(data.seconds) : seconds(low) + " to " + seconds(high);
    $("from").value = +low.toPrecision(6);
    $("to").value = +high.toPrecision(6);
  }
  $("range").addEventListener("change", () => choose(+$("from").value || 0, +$("to").value || 0));
  $("range").addEventListener("submit", (event) => event.preventDefault());
  $("whole").addEventListener("click", () => chooseSteps(all));

  // --- iterations and spans below it ---

  function drawLanes() {
    $("lanes").textContent = "";
    const width = curve.over.clientWidth, ratio = window.devicePixelRatio || 1;
    const left = curve.over.offsetLeft;
    for (const lane of data.lanes) {
      const row = node("div", undefined, "lane"), label = node("span", lane.name), strip = node("canvas");
      label.style.width = left + "px";
      label.title = lane.name + ": " + count(lane.total);
      strip.width = width * ratio;
      strip.height = 16 * ratio;
      strip.style.width = width + "px";
      row.append(label, strip);
      $("lanes").append(row);
      const ink = strip.getContext("2d");
      const shades = [colour("--shade"), colour("--shade-2")];
      lane.items.forEach(([begin, end], number) => {
        const from = (begin / data.seconds) * strip.width, to = (end / data.seconds) * strip.width;
        ink.fillStyle = shades[number % 2];
        ink.fillRect(from, 0, Math.max(to - from, 1), strip.height);
      });
      const under = (event) => {
        const time = (event.offsetX / width) * data.seconds;
        return lane.items.find(([begin, end]) => begin <= time && time <= end);
      };
      strip.addEventListener("pointermove", (event) => {
        const item = under(event);
        $("hovered").textContent = item ? describe(lane, item) : lane.name + ": " + count(lane.total);
      });
      strip.addEventListener("pointerleave", () => { $("hovered").textContent = "\u00a0"; });
      strip.addEventListener("click", (event) => { const item = under(event); if (item) choose(item[0], item[1]); });
    }
  }
  function describe(lane, [begin, end, many, first]) {
    const what = lane.kind === "span" ? lane.name : lane.kind + " " + count(first);
    return (many > 1 ? what + " and " + count(many - 1) + " more, too close to be told apart here: " : what + ": ")
      + seconds(begin) + " to " + seconds(end) + ", " + seconds(end - begin);
  }

  // --- the flame graph ---

  let chart = null, found = [];
  const metric = $("metric");
  for (const [name, text] of METRICS) {
    const option = node("option", text);
    option.value = name;
    metric.append(option);
  }
  function tree(weight) {
    const root = { name: "all", value: 0, children: [], file: "" };
    const inside = new Map();
    found.forEach((sum, number) => {
      const value = Math.max(sum[weight], 0);
      if (!value) return;
      let at = root;
      root.value += value;
      for (const frame of data.leaves[number][1]) {
        if (!inside.has(at)) inside.set(at, new Map());
        let child = inside.get(at).get(frame);
        if (!child) {
          const [name, file] = data.frames[frame];
          child = { name, value: 0, children: [], file: data.files[file] ? data.files[file].name : name };
          inside.get(at).set(frame, child);
          at.children.push(child);
        }
        child.value += value;
        at = child;
      }
    });
    return root;
  }
  // What d3-flame-graph asks of a d3 selection: the element's datum, and to be called with it.
  function selection(element) {
    return {
      datum(value) {
        if (!arguments.length) return element.__data__;
        element.__data__ = typeof value === "function" ? value.call(element, element.__data__) : value;
        return this;
      },
      each(action) { action.call(element, element.__data__, 0, [element]); return this; },
    };
  }
  function drawFlame() {
    const [name, , show] = METRICS.find((entry) => entry[0] === metric.value);
    const root = tree(name);
    const box = $("flame");
    box.textContent = "";
    chart = null;
    if (!root.value) { box.append(node("p", "none in this part", "hint")); return; }
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    chart = flamegraph().width(box.clientWidth).cellHeight(20).inverted(true).transitionDuration(0).minFrameSize(1)
      .tooltip(false).sort((a, b) => b.value - a.value)
      .setLabelHandler((d) => d.data.name + ": " + show(d.data.value) + ", " + percent(d.data.value, root.value))
      .setDetailsHandler((text) => { $("box").textContent = text || "\u00a0"; })
      .setSearchMatch((d, term) => (d.data.name + " " + d.data.file).toLowerCase().includes(term.toLowerCase()))
      .setSearchHandler(() => {})
      .setColorMapper((d) => d.highlight ? (dark ? "#9c3fb0" : "#e7a6f2") : tint(d.data.file, d.depth, dark));
    const place = node("div");
    const depth = (at) => 1 + at.children.reduce((most, child) => Math.max(most, depth(child)), 0);
    place.style.height = 20 * depth(root) + 2 + "px";
    place.style.overflow = "hidden";
    box.append(place);
    place.__data__ = root;
    chart(selection(place));
    if ($("find").value) chart.search($("find").value);
  }
  function tint(text, depth, dark) {
    let hash = 7;
    for (let i = 0; i < text.length; i++) hash = (hash * 31 + text.charCodeAt(i)) >>> 0;
    const light = (dark ? 30 : 78) + (depth % 2 ? 4 : 0);
    return depth ? "hsl(" + (hash % 360) + (dark ? " 38% " : " 52% ") + light + "%)" : dark ? "#3a4148" : "#d5d9dd";
  }
  metric.addEventListener("change", drawFlame);
  $("find").addEventListener("input", () => {
    if (chart) { if ($("find").value) chart.search($("find").value); else chart.clear(); }
  });
  $("unzoom").addEventListener("click", () => { if (chart) chart.resetZoom(); });

  // --- lines ---

  function where(expression) {
    const [file, name, line] = expression;
    return (data.files[file] ? data.files[file].name + ":" + line + " in " : "") + name;
  }
  function drawLines(total) {
    const lines = new Map();
    data.expressions.forEach((expression, number) => {
      const key = expression[0] + ":" + expression[1] + ":" + expression[2];
      if (!lines.has(key)) lines.set(key, { expression, bytes: 0, calls: 0, temporaries: 0, temporary_bytes: 0, misses: 0 });
      const into = lines.get(key);
      for (const field of ["bytes", "calls", "temporaries", "temporary_bytes", "misses"]) into[field] += total[number][field];
    });
    const rows = [...lines.values()].filter((line) => line.calls || line.misses).sort((a, b) => b.bytes - a.bytes);
    const sum = rows.reduce((before, row) => before + row.bytes, 0);
    const table = $("lines").querySelector("table");
    table.tHead.textContent = "";
    table.tBodies[0].textContent = "";
    const head = table.tHead.insertRow();
    for (const name of ["where", "bytes", "", "arrays", "temporaries", "misses"]) head.append(node("th", name));
    for (const row of rows.slice(0, 15)) {
      const line = table.tBodies[0].insertRow(), first = line.insertCell();
      const text = lineText(row.expression);
      if (text) first.append(node("span", text.trim(), "code"));
      first.append(node("span", where(row.expression), text ? "dim" : ""));
      line.insertCell().textContent = bytes(row.bytes);
      const bar = node("span", undefined, "bar");
      bar.style.width = (sum ? (60 * row.bytes) / sum : 0) + "px";
      bar.title = percent(row.bytes, sum);
      line.insertCell().append(bar);
      line.insertCell().textContent = count(row.calls);
      line.insertCell().textContent = data.timed ? count(row.temporaries) + ", " + bytes(row.temporary_bytes) : "-";
      line.insertCell().textContent = count(row.misses);
    }
    if (rows.length > 15) {
      const cell = table.tBodies[0].insertRow().insertCell();
      cell.colSpan = 6;
      cell.className = "dim";
      cell.textContent = "and " + count(rows.length - 15) + " more";
    }
  }
  function lineText([file, , line]) { const of = data.files[file]; return of ? of.lines[line] || "" : ""; }

  // --- source ---

  const opened = new Map();
  function drawSource(total) {
    const box = $("source").querySelector("div");
    box.textContent = "";
    const byLine = data.files.map(() => new Map());
    let sum = 0;
    data.expressions.forEach((expression, number) => {
      const [file, , line] = expression;
      if (!data.files[file] || !total[number].calls) return;
      if (!byLine[file].has(line)) byLine[file].set(line, { bytes: 0, parts: [] });
      const into = byLine[file].get(line);
      into.bytes += total[number].bytes;
      into.parts.push([expression, total[number]]);
      sum += total[number].bytes;
    });
    const files = data.files.map((file, number) => [file, number, [...byLine[number].values()].reduce((a, b) => a + b.bytes, 0)]);
    files.sort((a, b) => b[2] - a[2]);
    let shown = 0;
    for (const [file, number, weight] of files) {
      const lines = Object.keys(file.lines).map(Number).sort((a, b) => a - b);
      if (!byLine[number].size) continue;
      const fold = node("details");
      fold.open = opened.has(number) ? opened.get(number) : shown < 2 && lines.length > 0;
      fold.addEventListener("toggle", () => opened.set(number, fold.open));
      fold.append(node("summary", file.name + ": " + bytes(weight) + ", " + percent(weight, sum)));
      if (file.note) fold.append(node("p", file.note, "hint"));
      const sheet = node("div", undefined, "file code");
      let before = 0;
      for (const line of lines) {
        if (before && line > before + 1) sheet.append(node("div", "⋮", "row gap"));
        sheet.append(sourceRow(line, file.lines[line], byLine[number].get(line), sum));
        before = line;
      }
      if (lines.length) fold.append(sheet);
      box.append(fold);
      shown++;
    }
    if (!shown) box.append(node("p", "none in this part", "hint"));
  }
  function sourceRow(line, text, use, sum) {
    const row = node("div", undefined, "row"), meter = node("span", undefined, "meter"), bar = node("span", undefined, "bar");
    row.append(node("span", line, "number"), node("span", use ? bytes(use.bytes) : "", "weight"));
    bar.style.width = (use && sum ? (100 * use.bytes) / sum : 0) + "%";
    meter.append(bar);
    const code = node("span", undefined, "text");
    row.append(meter, code);
    // What a line is indented by is no text, so that lines which are too long are indented as a whole.
    const indent = text.length - text.trimStart().length;
    code.style.setProperty("--indent", text.slice(0, indent).replaceAll("\t", "        ").length);
    if (!use) { code.textContent = text.slice(indent); return row; }
    // Inner expressions win over those around them.
    const of = new Array(text.length).fill(null);
    const parts = use.parts.filter(([expression]) => expression[3] >= 0).map(([expression, total]) => {
      const end = expression[4] > expression[3] ? expression[4] : text.length;
      return { begin: expression[3], end: Math.min(end, text.length), total };
    }).sort((a, b) => b.end - b.begin - (a.end - a.begin));
    for (const part of parts) of.fill(part, part.begin, part.end);
    for (let begin = indent; begin < text.length;) {
      let end = begin;
      while (end < text.length && of[end] === of[begin]) end++;
      const piece = text.slice(begin, end), part = of[begin];
      if (part) {
        const span = node("span", piece);
        span.title = tell(part.total);
        span.style.setProperty("--heat", (sum ? 10 + (50 * part.total.bytes) / sum : 10) + "%");
        code.append(span);
      } else code.append(piece);
      begin = end;
    }
    if (!parts.length) row.title = use.parts.map((part) => tell(part[1])).join("; ");
    return row;
  }
  function tell(total) {
    return bytes(total.bytes) + " in " + count(total.calls) + " arrays"
      + (data.timed ? ", of these " + count(total.temporaries) + " temporaries" : "")
      + (total.misses ? ", " + count(total.misses) + " misses" : "");
  }

  // --- of the whole trace ---

  function adviceCard(entry) {
    const card = node("div", undefined, "card");
    card.append(node("pre", entry.expression), node("div", entry.where + ": " + bytes(entry.bytes) + " in "
      + count(entry.calls) + " arrays", "dim"));
    for (const [label, text] of [["once, before the loop", entry.before], ["in place of the expression", entry.instead]])
      card.append(node("div", label, "label"), node("pre", text));
    return card;
  }
  function drawAdvice() {
    const box = $("advice").querySelector("div");
    const known = data.advice.filter((entry) => entry.before), rest = data.advice.filter((entry) => !entry.before);
    const own = known.filter((entry) => !entry.installed), others = known.filter((entry) => entry.installed);
    if (!own.length) box.append(node("p", "nothing in files of the program that the trace can tell", "hint"));
    for (const entry of own) box.append(adviceCard(entry));
    if (others.length) {
      const fold = node("details");
      fold.append(node("summary", count(others.length) + " in installed packages, for their authors"));
      for (const entry of others) fold.append(adviceCard(entry));
      box.append(fold);
    }
    if (!rest.length) return;
    const fold = node("details");
    fold.append(node("summary", count(rest.length) + " more expressions, of which the trace cannot tell"));
    for (const entry of rest) {
      const card = node("div", undefined, "card");
      card.append(node("pre", entry.expression), node("div", entry.where + ": " + bytes(entry.bytes) + " in "
        + count(entry.calls) + " arrays: " + entry.reason, "dim"));
      fold.append(card);
    }
    box.append(fold);
  }
  function drawMisses() {
    const box = $("misses").querySelector("div");
    if (!data.misses.length) { box.append(node("p", "none: free memory at hand served every request", "hint")); return; }
    const scroll = node("div", undefined, "scroll"), table = node("table"), head = table.createTHead().insertRow();
    const names = ["size", "misses", "first of its size", "more alive than before", "given back", "refused"];
    for (const name of names) head.append(node("th", name));
    const body = table.createTBody();
    for (const [granted, ...counts] of data.misses) {
      const row = body.insertRow(), pool = counts.pop();
      const size = row.insertCell();
      size.textContent = bytes(granted);
      if (pool) size.append(node("span", "in " + pool, "dim"));
      for (const value of counts) row.insertCell().textContent = count(value);
    }
    scroll.append(table);
    box.append(scroll, node("p", data.fit, "hint"));
  }

  function showAll() {
    found = sums();
    const total = byExpression(found);
    drawFlame();
    drawLines(total);
    drawSource(total);
  }
  function drawAll() { drawCurve(); showAll(); }
  drawAll();
  drawAdvice();
  drawMisses();
  let width = window.innerWidth;
  window.addEventListener("resize", () => { if (window.innerWidth !== width) { width = window.innerWidth; drawAll(); } });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  window.rtpoolTrace = { chosen: () => chosen, sums: () => found, ready: true };
})();
