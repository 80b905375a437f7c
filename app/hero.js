// A sentence and a few figures in large type. Everything is set as text, so nothing in it is read as markup.
export default function ({ data, parentElement }) {
  const make = (tag, text, kind) => Object.assign(document.createElement(tag), { textContent: text, className: kind ?? "" });
  const numbers = make("dl", "", "numbers");
  for (const { value, name, basis } of data.numbers) {
    const one = make("div", "");
    one.append(make("dt", name), make("dd", value, "value"), make("dd", basis, "basis"));
    numbers.append(one);
  }
  const place = parentElement.querySelector(".hero");
  place.replaceChildren(make("p", data.told, "told"), numbers);
}
