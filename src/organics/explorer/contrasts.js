// The page for several neurons: what Python computed for each contrast of the drive, NaN where it
// found no steady state.
"use strict";

(() => {
  const { contrasts, converged, stable, ...packed } = content.responses;
  const unpacked = (text) =>
    new Float32Array(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer);
  const { y, a, real, imaginary, power } = Object.fromEntries(
    Object.entries(packed).map(([name, text]) => [name, unpacked(text)]),
  );
  const n = y.length / contrasts.length;
  const neurons = [...Array(n).keys()];
  let now = contrasts.indexOf(1);

  const row = (array, i, size) => Array.from(array.subarray(i * size, (i + 1) * size));

  function drawState() {
    shown.value = page.short(contrasts[now]);
    const states = row(y, now, n);
    const places = neurons.map((i) => i + 1);
    const color = content.colors;
    page.fill("state", "state_y", { x: places, y: states, color });
    page.fill("state", "state_a", { x: places, y: row(a, now, n), color });
  }

  function markResponses() {
    const places = neurons.map(() => contrasts[now]);
    page.fill("responses", "responses_now", { x: places, y: row(y, now, n), color: content.colors });
  }

  function drawEigenvalues() {
    const [re, im] = [row(real, now, 2 * n), row(imaginary, now, 2 * n)];
    const points = re.map((x, i) => ({ x, y: im[i], stable: stable[now] }));
    page.fillByStability("eigenvalues", "eigenvalues", points);
  }

  function drawSpectra() {
    page.fill("spectrum", "spectra", {
      xs: neurons.map(() => content.hertz),
      ys: neurons.map((i) => row(power, now * n + i, content.hertz.length)),
      color: content.colors,
    });
    describe();
  }

  function describe() {
    const verdict = stable[now] ? "stable" : "not stable";
    page.by("verdict").textContent =
      `contrast ${page.short(contrasts[now])}: ` +
      (converged[now] ? `steady state, ${verdict}` : "no steady state found");
    const [states, modulators] = [row(y, now, n), row(a, now, n)];
    page.table(
      ["neuron", "y", "a"],
      neurons.map((i) => [i + 1, page.short(states[i]), page.short(modulators[i])]),
    );
  }

  function drawResponses() {
    const course = (i) => contrasts.map((_, k) => y[k * n + i]);
    page.fill("responses", "responses", {
      xs: neurons.map(() => contrasts),
      ys: neurons.map(course),
      color: content.colors,
    });
  }

  function inFileForm() {
    const { z, ...parameters } = content.circuit;
    return { ...parameters, z: z.map((drive) => drive * contrasts[now]) };
  }

  const { STABLE, UNSTABLE } = page.colors;
  page.explain(["●", "inherit", "y"], ["□", "inherit", "a"], ["●", STABLE, "stable"], ["○", UNSTABLE, "unstable"]);
  const changed = page.inFrames(drawState, markResponses, drawEigenvalues, drawSpectra);
  const range = page.element("input", {
    type: "range", id: "slider_contrast", min: 0, max: contrasts.length - 1, step: 1,
  });
  range.value = now;
  const shown = page.element("output");
  range.addEventListener("input", () => {
    now = Number(range.value);
    changed();
  });
  page.open(() => {
    page.by("controls").append(
      page.element("label", { className: "slider" }, "contrast", range, shown),
    );
    page.offerCopies(inFileForm);
    drawResponses();
    changed();
  });
})();
