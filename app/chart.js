// A Plotly chart that is updated in place: zoom, hover and hidden series survive new data, which Streamlit's own chart loses.
// Where the page asks for it, a click or a box tells the page what part of the chart was meant.
const library = (window.__coppicePlotly ??= new Promise((resolve, reject) => {
  if (window.Plotly) return resolve(window.Plotly);
  const script = document.createElement("script");
  script.src = new URL("app/static/plotly.min.js", document.baseURI).href;
  script.onload = () => resolve(window.Plotly);
  script.onerror = reject;
  document.head.appendChild(script);
}));

function themed(layout, element, data) {
  const style = getComputedStyle(element);
  const value = (name) => style.getPropertyValue(name).trim();
  const line = value("--st-border-color");
  const axes = Object.keys(layout).filter((key) => /^[xy]axis/.test(key));
  const axis = (own) => ({ gridcolor: line, linecolor: line, ...own, title: { font: { size: 13 }, ...own.title } });
  const look = Object.fromEntries(axes.map((key) => [key, axis(layout[key])]));
  return {
    uirevision: data.name, selectionrevision: performance.now(), ...layout, ...look, template: undefined, autosize: true, dragmode: data.selectable ? "select" : layout.dragmode,
    clickanywhere: data.selectable,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    colorway: layout.colorway ?? value("--st-chart-categorical-colors").split(/,(?![^(]*\))/),
    font: { family: value("--st-font"), color: value("--st-text-color"), size: 13 },
    hoverlabel: { bgcolor: value("--st-background-color"), bordercolor: line, font: { color: value("--st-text-color") } },
  };
}

function listen(chart, Plotly) {
  const ends = (pair) => [Math.min(...pair), Math.max(...pair)];
  chart.on("plotly_click", ({ points: [point], xvals, yvals }) => {
    const [x, y] = point ? [point.x, point.y] : [Math.round(xvals[0]), yvals[0]]; // beside a bar or a curve: what stands there
    chart.tell([x, x, y, y]);
  });
  chart.on("plotly_selected", (event) => {
    if (!event?.range) return;
    const [x, y] = Object.keys(event.range).sort().map((axis) => ends(event.range[axis]));
    Plotly.relayout(chart, { selections: [] }); // what is selected is drawn by the page itself
    chart.tell([...x, ...y]);
  });
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const chart = parentElement.querySelector(".coppice-chart");
  let mounted = true;
  chart.setAttribute("aria-label", data.alt);
  chart.setAttribute("aria-busy", "true");
  if (!chart.data) chart.textContent = "Loading the chart …";
  chart.tell = (area) => setTriggerValue("area", area);
  chart.style.height = `${data.figure.layout.height}px`;
  library.then(
    async (Plotly) => {
      if (!mounted) return;
      const layout = themed(data.figure.layout, chart, data);
      const wanted = JSON.stringify([data.figure.data, { ...layout, selectionrevision: 0 }]);
      if (!chart.data) chart.textContent = "";
      // Most ticks of a live page change one chart of several, and drawing one anew takes the browser some 50 ms.
      if (!chart.data || wanted !== chart.drawn) await (chart.drawing = Plotly.react(chart, data.figure.data, layout, data.config));
      chart.drawn = wanted;
      if (data.selectable && !chart.listens) listen(chart, Plotly);
      chart.listens = data.selectable;
      chart.setAttribute("aria-busy", "false");
    },
    () => (chart.textContent = `The chart could not be loaded. ${data.alt}`),
  );
  return () => {
    mounted = false;
    // Not before it is drawn: Plotly ends a drawing by hovering again, over a chart that must still be there.
    Promise.resolve(chart.drawing).then(() => window.Plotly?.purge(chart));
  };
}
