// One line of text; what the server says comes after what ahead.js may have said already.
export default function ({ data, parentElement }) {
  parentElement.querySelector(".coppice-cut b").textContent = data.said;
  document.dispatchEvent(new Event("coppice-told"));
}
