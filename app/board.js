// What a draft comes to, beside the sliders: its numbers, the importance that stays, and its layers before and after the cut.
// A slider waits for this at every step, so it is one element of a dozen paths: Plotly took 50 ms, and as many elements of Streamlit as many more.
const LEFT = 64, RIGHT = 16, TALL = 180, GAP = 20, LOW = 104, FOOT = 44;
const make = (tag, text, kind) => Object.assign(document.createElement(tag), { textContent: text ?? "", className: kind ?? "" });
const box = (x, y, wide, high) => `M${x.toFixed(1)} ${y.toFixed(1)}h${wide.toFixed(1)}v${high.toFixed(1)}h${(-wide).toFixed(1)}z`;

function listed(entries) {
  const list = make("dl");
  for (const parts of entries) {
    const one = make("div");
    one.append(...parts);
    list.append(one);
  }
  return list;
}

function figures(numbers) {
  return listed(numbers.map(({ name, value, change, before }) => {
    const basis = make("dd");
    basis.append(make("b", change), `of ${before}`);
    return [make("dt", name), make("dd", value, "value"), basis];
  }));
}

function shares(kept) {
  return listed(kept.map(({ name, part, said }) => {
    const bar = make("dd", "", "bar");
    bar.append(Object.assign(make("i"), { style: `width: ${100 * part}%` }));
    bar.ariaHidden = "true";
    return [make("dt", name), make("dd", said), bar];
  }));
}

// Where the marks lie: columns of `step` pixels; a removed layer, and a head that goes, is an outline only.
function marks({ layers, heads, ffn, hidden }, width) {
  const step = (width - LEFT - RIGHT) / layers.length, wide = 0.86 * step, many = heads[0].length, row = LOW / many;
  const side = Math.max(1, Math.min(8, 0.8 * row, wide)), top = TALL + GAP;
  const middle = (layer) => LEFT + (layer + 0.5) * step;
  const column = (layer, share, high) => box(middle(layer) - (share * wide) / 2, TALL - high, share * wide, high);
  const head = (layer, index, rim) => box(middle(layer) - side / 2 + rim, top + (index + 0.5) * row - side / 2 + rim, side - 2 * rim, side - 2 * rim);
  const all = layers.map((_, layer) => layer), each = (kept) => all.flatMap((layer) => [...heads[layer]].flatMap((mark, index) => (mark === kept ? [[layer, index]] : [])));
  const before = all.map((layer) => column(layer, 1, TALL)).concat(each("0").map(([layer, index]) => head(layer, index, 0.5)));
  const after = all.filter((layer) => layers[layer]).map((layer) => column(layer, hidden[0] / hidden[1], (TALL * ffn[0]) / ffn[1]));
  const label = (x, y, text, anchor, turn) => `<text x="${x}" y="${y}" text-anchor="${anchor}"${turn ? ` transform="rotate(-90 ${x} ${y})"` : ""}>${text}</text>`;
  const labels = [
    label(LEFT - 8, 10, ffn[1], "end"), label(LEFT - 8, TALL, 0, "end"), label(14, TALL / 2, "FFN neurons", "middle", true),
    label(LEFT - 8, top + row / 2 + 4, 0, "end"), label(LEFT - 8, top + LOW - row / 2 + 5, many - 1, "end"), label(14, top + LOW / 2, "heads", "middle", true),
    ...all.filter((layer) => layer % Math.ceil(22 / step) === 0).map((layer) => label(middle(layer), top + LOW + 18, layer, "middle")), label(LEFT + (width - LEFT - RIGHT) / 2, top + LOW + FOOT - 6, "layer", "middle"),
  ];
  return `<path class="after" d="${after.concat(each("1").map(([layer, index]) => head(layer, index, 0))).join("")}"/><path class="before" d="${before.join("")}"/>${labels.join("")}`;
}

function draw(svg, strip) {
  const width = svg.clientWidth, high = TALL + GAP + LOW + FOOT;
  if (!width) return; // not laid out yet; the observer tells when it is
  svg.setAttribute("viewBox", `0 0 ${width} ${high}`);
  svg.style.height = `${high}px`;
  svg.innerHTML = marks(strip, width); // numbers only
}

// What stands under the pointer, in words.
function told({ layers, heads, ffn, hidden }, width, x, y) {
  const layer = Math.floor(((x - LEFT) / (width - LEFT - RIGHT)) * layers.length), many = heads[0].length, head = Math.floor(((y - TALL - GAP) / LOW) * many);
  if (!(layer in layers) || y > TALL + GAP + LOW) return "";
  if (head >= 0) return `layer ${layer}, head ${head}: ${heads[layer][head] === "1" ? "kept" : "cut"}`;
  const count = [...heads[layer]].filter((mark) => mark === "1").length;
  return layers[layer] ? `layer ${layer}: ${ffn[0]} of ${ffn[1]} neurons, ${count} of ${many} heads, ${hidden[0]} of ${hidden[1]} channels` : `layer ${layer}: removed`;
}

function point(board, svg, tip, event) {
  const [frame, outer] = [svg, board].map((one) => one.getBoundingClientRect());
  const text = told(board.said.strip, frame.width, event.clientX - frame.x, event.clientY - frame.y);
  tip.hidden = !text;
  tip.textContent = text;
  tip.style.top = `${event.clientY - outer.y - 36}px`;
  tip.style.left = `${Math.min(event.clientX - outer.x + 12, outer.width - tip.offsetWidth)}px`;
}

// The same numbers to read or copy; made while the fold is open.
function tabulate(board) {
  const { layers, heads, ffn } = board.said.strip;
  const row = (cells, tag) => {
    const one = make("tr");
    one.append(...cells.map((cell) => make(tag, String(cell))));
    return one;
  };
  const kept = (layer) => [...heads[layer]].flatMap((mark, head) => (mark === "1" ? [head] : [])).join(", ");
  const rows = layers.map((stays, layer) => row([layer, stays ? "yes" : "no", stays ? ffn[0] : 0, kept(layer)], "td"));
  board.querySelector("details").lastChild.replaceChildren(row(["layer", "kept", "FFN neurons", "heads kept"], "th"), ...rows);
}

function show(board, said) {
  board.dataset.ahead = Object.keys(said.sizes).some((axis) => said.sizes[axis] !== board.told.sizes[axis]); // whether the server has yet to say so
  const svg = board.querySelector("svg"), fold = board.querySelector("details");
  board.said = said;
  const kept = said.kept ? [make("p", "Importance that stays", "title"), shares(said.kept)] : [];
  board.querySelector(".numbers").replaceChildren(figures(said.numbers), make("p", said.basis, "said"), ...kept);
  board.querySelector(".strip-said").textContent = said.alt;
  svg.setAttribute("aria-label", said.alt);
  draw(svg, said.strip);
  if (fold.open) tabulate(board);
}

export default function ({ data, parentElement }) {
  const board = parentElement.querySelector(".coppice-board"), svg = board.querySelector("svg"), tip = board.querySelector(".tip");
  board.told = data;
  board.show = (said) => show(board, said);
  show(board, data);
  board.querySelector("details").ontoggle = () => tabulate(board);
  svg.onmousemove = (event) => point(board, svg, tip, event);
  svg.onmouseleave = () => (tip.hidden = true);
  board.watch ??= new ResizeObserver(() => draw(svg, board.said.strip));
  board.watch.observe(svg);
  document.dispatchEvent(new Event("coppice-told")); // a slider may stand elsewhere by now: ahead.js
  return () => board.watch.disconnect();
}
