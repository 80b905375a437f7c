// A Plotly chart that is updated in place: zoom, hover and hidden series survive new data, which Streamlit's own chart loses.
const library = (window.__coppicePlotly ??= new Promise((resolve, reject) => {
  if (window.Plotly) return resolve(window.Plotly);
  const script = document.createElement("script");
  script.src = new URL("app/static/plotly.min.js", document.baseURI).href;
  script.onload = () => resolve(window.Plotly);
  script.onerror = reject;
  document.head.appendChild(script);
}));

function themed(layout, element) {
  const style = getComputedStyle(element);
  const value = (name) => style.getPropertyValue(name).trim();
  const line = value("--st-border-color");
  const axes = Object.keys(layout).filter((key) => /^[xy]axis/.test(key));
  const look = Object.fromEntries(axes.map((key) => [key, { gridcolor: line, linecolor: line, ...layout[key] }]));
  return {
    ...layout, ...look, template: undefined, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: value("--st-font"), color: value("--st-text-color"), size: 13 },
    hoverlabel: { bgcolor: value("--st-background-color"), bordercolor: line, font: { color: value("--st-text-color") } },
  };
}

export default function (component) {
  const { data, parentElement } = component;
  const chart = parentElement.querySelector(".live-chart");
  let mounted = true;
  chart.setAttribute("aria-label", data.alt);
  chart.style.height = `${data.figure.layout.height}px`;
  library.then((Plotly) => mounted && Plotly.react(chart, data.figure.data, themed(data.figure.layout, chart), data.config));
  return () => {
    mounted = false;
    if (window.Plotly) window.Plotly.purge(chart);
  };
}
