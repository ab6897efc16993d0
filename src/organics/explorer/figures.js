// What both pages share: the content, figures and sliders on the page, texts to copy.
"use strict";

const content = JSON.parse(document.getElementById("content").textContent);

const page = (() => {
  const colors = { Y: "#3b8bc9", A: "#d9822b", STABLE: "#1a9850", UNSTABLE: "#e34a33" };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const by = (id) => document.getElementById(id);
  const figures = {}; // Bokeh's models by name

  // At each paint Bokeh asks the browser for the style of all that it draws, which took half of the
  // time. The styles change with the scheme alone, so each is asked for once. That is an inner part
  // of Bokeh: where it is not found, all is as it was.
  function rememberStyles() {
    let known = new WeakMap();
    const visual = Bokeh.require("core/visuals/visual").VisualProperties.prototype;
    const ask = visual._get_css_value;
    if (!ask) return;
    dark.addEventListener("change", () => (known = new WeakMap()));
    visual._get_css_value = function (name) {
      if (!known.has(this)) known.set(this, {});
      return (known.get(this)[name] ??= ask.call(this, name));
    };
  }

  // Put the figures on the page, then call `ready`. They are drawn again if the scheme changes.
  async function open(ready) {
    by("title").textContent = document.title = content.title || "organics explorer";
    by("comment").textContent = content.comment;
    for (const [name, item] of Object.entries(content.figures)) {
      const [view] = (await Bokeh.embed.embed_item(item, by(name))).roots;
      figures[name] = view.model;
      dark.addEventListener("change", () => view.request_repaint());
    }
    try {
      rememberStyles(); // now that the figures have some
    } catch (error) {
      console.warn(error);
    }
    ready();
  }

  // Replace the data of a glyph; its columns by name.
  function fill(figure, glyph, columns) {
    figures[figure].document.get_model_by_name(glyph).data_source.data = columns;
  }

  // Points, full if they are stable: a list of {x, y, stable}.
  function fillByStability(figure, glyph, points) {
    const color = points.map(({ stable }) => (stable ? colors.STABLE : colors.UNSTABLE));
    fill(figure, glyph, {
      x: points.map(({ x }) => x),
      y: points.map(({ y }) => y),
      color,
      fill: points.map(({ stable }, i) => (stable ? color[i] : "rgba(0, 0, 0, 0)")),
    });
  }

  // A function that asks for drawing: in the next frame `first` and one of the others, which take
  // turns until all are up to date. All in each frame would be too much for a smooth drag; where
  // frames come late even so, the others wait for every fourth while it goes on.
  function inFrames(first, ...others) {
    const [LATE, PATIENCE] = [20, 3]; // ms, of the 16.7 at 60 frames a second; frames
    let [stale, left, turn, waited] = [false, 0, 0, 0];
    let last = 0; // when the frame before began; 0 if there was none
    function frame(now) {
      const wait = stale && last && now - last > LATE && waited < PATIENCE;
      last = now;
      if (stale) first();
      stale = false;
      waited = wait ? waited + 1 : 0;
      if (!wait) {
        others[turn]();
        turn = (turn + 1) % others.length;
        left -= 1;
      }
      if (left > 0) requestAnimationFrame(frame);
      else last = 0;
    }
    return () => {
      if (left === 0) requestAnimationFrame(frame);
      [stale, left] = [true, others.length];
    };
  }

  // An element with properties and children.
  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // A slider with a field for exact values; calls `changed(value)`. A logarithmic one takes values
  // above 0. Only what is typed within `least` and `most` counts.
  function slider(name, { value, low, high, logarithmic = false, least, most }, changed) {
    const place = (x) => (logarithmic ? Math.log10(x) : x);
    const at = (x) => Number((logarithmic ? 10 ** x : x).toPrecision(3));
    const range = element("input", { type: "range", id: `slider_${name}`, step: "any" });
    range.setAttribute("aria-label", name);
    const field = element("input", { type: "number", id: `field_${name}`, step: "any" });
    const show = (x) => {
      range.min = Math.min(place(low), place(x));
      range.max = Math.max(place(high), place(x));
      range.value = place(x);
      field.value = x;
    };
    range.addEventListener("input", () => {
      field.value = at(Number(range.value));
      field.setCustomValidity("");
      changed(Number(field.value));
    });
    field.addEventListener("input", () => {
      const typed = field.valueAsNumber;
      const good = typed >= least && typed <= most;
      field.setCustomValidity(good ? "" : `from ${least} to ${most}`);
      if (good) {
        range.value = place(typed);
        changed(typed);
      }
    });
    show(value);
    by("controls").append(element("label", { className: "slider" }, name, range, field));
  }

  // The legend: [sign, color, meaning] each.
  function explain(...signs) {
    const entries = signs.map(([sign, color, meaning]) => {
      const mark = element("span", {}, sign);
      mark.style.color = color;
      return element("span", { className: "sign" }, mark, ` ${meaning}`);
    });
    by("legend").append(...entries);
  }

  function table(heads, rows) {
    const line = (cells, kind) =>
      element("tr", {}, ...cells.map((cell) => element(kind, { textContent: cell })));
    by("facts").replaceChildren(
      element("table", {}, line(heads, "th"), ...rows.map((row) => line(row, "td"))),
    );
  }

  // Texts of a circuit: an object with the keys of a circuit file.
  function asFile(circuit) {
    const lines = Object.entries(circuit).map(([key, value]) => `  "${key}": ${JSON.stringify(value)}`);
    return `{\n${lines.join(",\n")}\n}\n`;
  }

  function asPython({ z, ...parameters }) {
    const lines = Object.entries(parameters).map(([key, value]) => `    ${key}=${literal(value)},`);
    return `import jax
import organics

jax.config.update("jax_enable_x64", True)
circuit = organics.Circuit(
${lines.join("\n")}
)
point = organics.steady_state(circuit, ${literal(z)})
print(point)
print(organics.stability(point))
`;
  }

  function literal(value) {
    if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
    if (typeof value === "number") return Number.isInteger(value) ? value.toFixed(1) : `${value}`;
    return { true: "True", false: "False", null: "None" }[value];
  }

  // Let the buttons copy the circuit that `current` returns.
  function offerCopies(current) {
    by("copy_file").addEventListener("click", () => copy(asFile(current())));
    by("copy_python").addEventListener("click", () => copy(asPython(current())));
  }

  async function copy(text) {
    const area = by("text");
    area.hidden = false;
    area.value = text;
    area.select();
    try {
      await navigator.clipboard.writeText(text);
      by("copied").textContent = "copied";
    } catch {
      by("copied").textContent = document.execCommand("copy") ? "copied" : "copy it from here:";
    }
  }

  const short = (x) => (Number.isNaN(x) ? "–" : String(Number(x.toPrecision(4))));

  return {
    by, colors, element, explain, figures, fill, fillByStability, inFrames, offerCopies, open, short,
    slider, table,
  };
})();
