// Shows what a slider's place comes to before the server has heard of it, out of answers that the server gave beforehand. It computes nothing.
const DWELL_MS = 80;
const place = (axis) => document.querySelector(`.st-key-w_${axis} input[type=range]`)?.getAttribute("aria-valuetext");
const seen = () => document.querySelector(".coppice-board");

// Whether the answers hold for what is shown: the same draft but for the place of their own slider.
function fits({ axes, axis, base }, board) {
  if (!axis || base.draft !== board.said.draft) return false;
  return axes.every((other) => other === axis || [undefined, base.sizes[other]].includes(place(other)));
}

function follow(root) {
  const board = seen(), { data } = root;
  if (!board || !fits(data, board)) return;
  const answer = data.answers[place(data.axis)];
  if (!answer) return;
  const { axes, base } = data, all = { ...base, ...answer, strip: { ...base.strip, ...answer.strip }, sizes: { ...base.sizes, ...answer.sizes } };
  if (axes.some((axis) => all.sizes[axis] !== board.said.sizes[axis])) board.show(all);
  for (const line of document.querySelectorAll(".coppice-cut b")) if (line.textContent !== all.cut) line.textContent = all.cut;
}

function ask(root, target) {
  const board = seen(), axis = root.data.axes.find((one) => target.closest?.(`.st-key-w_${one}`));
  if (!axis || !board || (root.data.axis === axis && fits(root.data, board))) return;
  root.tell(axis);
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".coppice-ahead"), leave = new AbortController(), { signal } = leave;
  // A page that is drawn anew was not asked anything; what it answered before may still hold.
  root.data = data.axis || !root.data?.axis ? data : { ...root.data, axes: data.axes };
  root.tell = (axis) => setTriggerValue("axis", axis);
  const moves = new MutationObserver(() => follow(root));
  moves.observe(document.body, { subtree: true, attributeFilter: ["aria-valuetext"] });
  let dwell;
  document.addEventListener("focusin", ({ target }) => ask(root, target), { signal });
  document.addEventListener("pointerdown", ({ target }) => ask(root, target), { signal, capture: true });
  document.addEventListener("pointerover", ({ target }) => (clearTimeout(dwell), (dwell = setTimeout(() => ask(root, target), DWELL_MS))), { signal });
  document.addEventListener("coppice-told", () => follow(root), { signal });
  follow(root);
  return () => {
    moves.disconnect();
    clearTimeout(dwell);
    leave.abort();
  };
}
