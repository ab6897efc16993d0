// The page for n = 1: everything is computed here, at each move of a slider.
"use strict";

(() => {
  const { W, W_r, b, b0, sigma, tau_y, tau_a, rectified, z } = content.circuit;
  const circuit = {
    W: W[0][0], W_r: W_r[0][0], b: b[0], b0: b0[0], sigma: sigma[0],
    tau_y: tau_y[0], tau_a: tau_a[0], z: z[0], rectified,
  };
  const kilohertz = content.hertz.map((f) => f / 1000);
  const starts = [[0, (circuit.b0 * circuit.sigma) ** 2]];
  const MOST_STARTS = 6;
  let duration = 30 * Math.max(circuit.tau_y, circuit.tau_a);
  let limits = null; // of the portrait, {y, a}

  let points = []; // all fixed points
  let paths = [];

  function drawPortrait() {
    points = equations.fixedPoints(circuit);
    paths = starts.map((start) => equations.trajectory(circuit, start, duration));
    keepInView();
    drawFlow();
    drawNullclines();
    const curves = paths.map(({ y, a }) => y.map((value, i) => [value, a[i]]));
    page.fill("portrait", "trajectories", joined(curves));
    page.fill("portrait", "starts", { x: starts.map(([y]) => y), y: starts.map(([, a]) => a) });
    const places = points.map(({ y, a, stable }) => ({ x: y, y: a, stable }));
    page.fillByStability("portrait", "fixed_points", places);
  }

  function drawCourse() {
    const { t, y, a } = paths.at(-1);
    page.fill("course", "course_y", { x: t, y });
    page.fill("course", "course_a", { x: t, y: a });
  }

  function drawEigenvalues() {
    const places = points.flatMap(({ eigenvalues, stable }) =>
      eigenvalues.map(([x, y]) => ({ x, y, stable })),
    );
    page.fillByStability("eigenvalues", "eigenvalues", places);
  }

  function drawSpectra() {
    const stable = points.filter((point) => point.stable);
    const spectra = stable.map((point) => equations.power(circuit, point, kilohertz, content.noise));
    page.fill("spectrum", "spectra", {
      xs: stable.map(() => content.hertz),
      ys: spectra.map(({ y }) => y.map((density) => density / 1000)),
    });
    page.by("verdict").textContent = points.length
      ? `${points.length} fixed point${points.length > 1 ? "s" : ""}, ${stable.length} stable`
      : "no fixed point";
    page.table(
      ["y", "a", "eigenvalues, 1/ms", "kind"],
      points.map(({ y, a, eigenvalues, kind }) => [
        page.short(y), page.short(a), inWords(eigenvalues), kind,
      ]),
    );
  }

  function inWords([[re, im], [other]]) {
    return `${page.short(re)}${im === 0 ? `, ${page.short(other)}` : ` ± ${page.short(im)}i`}`;
  }

  // The window stays unless a fixed point leaves it, or it has become far too large.
  function keepInView() {
    const around = (values, least) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const margin = least + 0.4 * (high - low);
      return [low - margin, high + margin];
    };
    const y = around([0, ...points.map((point) => point.y)], 1);
    const [, top] = around([0, ...points.map((point) => point.a)], 1);
    const wanted = { y, a: [-0.04 * top, top] };
    const fits = (kept, [low, high]) =>
      kept[0] <= low + 0.3 && kept[1] >= high - 0.3 && kept[1] - kept[0] < 3 * (high - low);
    if (limits && fits(limits.y, wanted.y) && fits(limits.a, wanted.a)) return;
    limits = wanted;
    const { x_range, y_range } = page.figures.portrait;
    x_range.setv({ start: limits.y[0], end: limits.y[1] });
    y_range.setv({ start: limits.a[0], end: limits.a[1] });
  }

  function drawFlow() {
    const [columns, rows] = [15, 9];
    const [width, height] = [limits.y, limits.a].map(([low, high]) => high - low);
    const { inner_width, inner_height } = page.figures.portrait; // in pixels
    const [perY, perA] = [inner_width / width, inner_height / height];
    const length = (0.6 * inner_width) / columns;
    const flow = { x0: [], y0: [], x1: [], y1: [] };
    const angle = [];
    for (let i = 0; i < columns; i++) {
      for (let j = 0; j < rows; j++) {
        const y = limits.y[0] + (width * (i + 0.5)) / columns;
        const a = limits.a[0] + (height * (j + 0.5)) / rows;
        if (a <= 0) continue;
        const [dy, da] = equations.velocity(circuit, y, a);
        const [right, up] = [dy * perY, da * perA];
        const scale = length / (Math.hypot(right, up) || 1);
        flow.x0.push(y);
        flow.y0.push(a);
        flow.x1.push(y + dy * scale);
        flow.y1.push(a + da * scale);
        angle.push(Math.atan2(up, right) - Math.PI / 2); // a triangle points up
      }
    }
    page.fill("portrait", "flow", flow);
    page.fill("portrait", "flow_heads", { x: flow.x1, y: flow.y1, angle });
  }

  function drawNullclines() {
    const curves = equations.nullclines(circuit, limits.y, [Math.max(limits.a[0], 0), limits.a[1]]);
    page.fill("portrait", "y_nullcline", joined(curves.y));
    page.fill("portrait", "a_nullcline", joined(curves.a));
  }

  // curves in one line, with gaps between them
  function joined(curves) {
    const points = curves.flatMap((curve) => [...curve, [NaN, NaN]]);
    return { x: points.map(([x]) => x), y: points.map(([, y]) => y) };
  }

  function addControls(changed) {
    const put = (name) => (value) => {
      circuit[name] = value;
      changed();
    };
    const positive = { logarithmic: true, least: 1e-6, most: 1e6 };
    const add = (name, options) => page.slider(name, { value: circuit[name], ...options }, put(name));
    add("z", { low: -3, high: 3, least: -1e6, most: 1e6 });
    for (const name of ["W", "W_r"]) add(name, { low: 0, high: 5, least: 0, most: 1e6 });
    for (const name of ["b", "b0"]) add(name, { low: 0.01, high: 10, ...positive });
    add("sigma", { low: 0.001, high: 10, ...positive });
    for (const name of ["tau_y", "tau_a"]) add(name, { low: 0.1, high: 100, ...positive });
    page.slider("duration", { value: duration, low: 1, high: 10000, ...positive }, (value) => {
      duration = value;
      changed();
    });
    const box = page.element("input", { type: "checkbox", id: "rectified", checked: rectified });
    box.addEventListener("change", () => put("rectified")(box.checked));
    const clear = page.element("button", { type: "button", textContent: "clear trajectories" });
    clear.addEventListener("click", () => {
      starts.splice(0, starts.length - 1);
      changed();
    });
    page.by("controls").append(
      page.element("label", {}, box, " rectified model"),
      page.element("p", {}, "z is the contrast; times are in ms. A click in the portrait starts a trajectory."),
      clear,
    );
  }

  function inFileForm() {
    const { W, W_r, z, ...others } = circuit;
    return { W: [[W]], W_r: [[W_r]], ...others, z: [z] };
  }

  const { Y, A, STABLE, UNSTABLE } = page.colors;
  page.explain(["—", Y, "dy/dt = 0, y"], ["—", A, "da/dt = 0, a"], ["●", STABLE, "stable"], ["○", UNSTABLE, "unstable"]);
  const changed = page.inFrames(drawPortrait, drawCourse, drawEigenvalues, drawSpectra);
  page.open(() => {
    addControls(changed);
    page.offerCopies(inFileForm);
    const start = ({ x, y }) => {
      starts.push([x, Math.max(y, 0)]);
      starts.splice(0, starts.length - MOST_STARTS);
      changed();
    };
    for (const click of ["tap", "doubletap"]) page.figures.portrait.on_event(click, start);
    changed();
  });
})();
