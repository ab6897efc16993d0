// The circuit with n = 1 in the browser: fixed points, nullclines, trajectories, spectra.
//
// As in organics/planar.py, which derives it: p = b z, k = b0 sigma, s = sqrt(a), and the effective
// gain D(s) = 1 - W_r + W_r s. A circuit is an object of numbers {W, W_r, b, b0, sigma, tau_y,
// tau_a, z} with the flag `rectified`. Time in ms, rates per ms.
"use strict";

const equations = (() => {
  const EPS = Number.EPSILON;

  function scalars(c) {
    const k = c.b0 * c.sigma;
    const gain = 1 - c.W_r + c.W_r * k;
    const rounding = Math.abs(gain) <= 4 * EPS * Math.max(1, c.W_r);
    return { ...c, p: c.b * c.z, k, gain: rounding ? 0 : gain };
  }

  function velocity(c, y, a) {
    const s = Math.sqrt(Math.max(a, 0));
    const q = c.rectified ? Math.max(y, 0) : y;
    const dy = -y + c.b * c.z + (1 - s) * c.W_r * q;
    const da = -a + (c.b0 * c.sigma) ** 2 + c.W * (s * q) ** 2;
    return [dy / c.tau_y, da / c.tau_a];
  }

  // Fixed points ---------------------------------------------------------------------------------

  // {y, a, eigenvalues: [[re, im], [re, im]], stable, kind} by rising y
  function fixedPoints(circuit) {
    const c = scalars(circuit);
    let roots = mainRoots(c);
    if (c.rectified) {
      roots = roots.filter((root) => root.y > 0);
      if (c.p <= 0) roots.push({ y: c.p, s: c.k, gain: 1, saturation: 0, silent: true });
    }
    roots.sort((one, other) => one.y - other.y || one.s - other.s);
    return roots.map((root) => fixedPoint(c, root));
  }

  function mainRoots(c) {
    const { W, W_r, p, k, gain } = c;
    if (W === 0) return gain === 0 ? [] : [{ y: p / gain, s: k, gain, saturation: 0 }];
    if (p === 0) {
      const rest = { y: 0, s: k, gain, saturation: 0 };
      if (gain >= 0) return [rest];
      const [s, saturation] = beyond(c, -gain / W_r);
      const y = Math.sqrt(saturation / W);
      return [rest, { y, s, gain: 0, saturation }, { y: -y, s, gain: 0, saturation }];
    }
    if (W_r === 0) {
      const product = Math.sqrt(W) * Math.abs(p);
      if (product >= 1) return [];
      const s = k / Math.sqrt((1 - product) * (1 + product));
      return [{ y: p, s, gain: 1, saturation: product * product }];
    }
    return [positiveGainRoot(c), ...(gain < 0 ? negativeGainRoots(c) : [])];
  }

  // s = k + excess and 1 - (k/s)^2
  function beyond(c, excess) {
    const s = c.k + excess;
    return [s, (excess / s) * ((excess + 2 * c.k) / s)];
  }

  function positiveGainRoot(c) {
    const drive = Math.sqrt(c.W) * Math.abs(c.p);
    const at = (x) => [
      x + Math.max(c.gain, 0),
      ...beyond(c, (x + Math.max(-c.gain, 0)) / c.W_r),
    ];
    const [gain, s, saturation] = at(crossing(at, drive, Math.max(2 * drive, c.W_r * c.k)));
    return { y: c.p / gain, s, gain, saturation };
  }

  function negativeGainRoots(c) {
    const { W_r, k } = c;
    const drive = Math.sqrt(c.W) * Math.abs(c.p);
    const ratio = (W_r * k) / (W_r - 1);
    const logRatio = ratio < 0.5 ? Math.log(ratio) : Math.log1p(c.gain / (W_r - 1));
    const peakExcess = k * Math.expm1(-logRatio / 3);
    const peakGain = -c.gain - W_r * peakExcess;
    const near = (excess) => [peakGain + W_r * (peakExcess - excess), ...beyond(c, excess)];
    const far = (gain) => [gain, ...beyond(c, peakExcess + (peakGain - gain) / W_r)];
    const peak = peakGain * Math.sqrt(beyond(c, peakExcess)[1]);
    if (drive > peak * (1 + 8 * EPS)) return [];
    const found =
      drive >= peak * (1 - 8 * EPS)
        ? [near(peakExcess)]
        : [near(crossing(near, drive, peakExcess)), far(crossing(far, drive, peakGain))];
    return found.map(([gain, s, saturation]) => ({ y: -c.p / gain, s, gain: -gain, saturation }));
  }

  // where gain sqrt(saturation) of at(x), which rises from 0, equals `drive`; x in (0, top)
  function crossing(at, drive, top) {
    const below = (x) => {
      const [gain, , saturation] = at(x);
      return gain * Math.sqrt(saturation) < drive;
    };
    let low = top;
    while (low > 0 && !below(low)) low *= 1e-3;
    if (low === top) return top;
    let high = low * 1e3;
    for (let i = 0; i < 60; i++) {
      const middle = low * Math.sqrt(high / low);
      if (below(middle)) low = middle;
      else high = middle;
    }
    return high;
  }

  function jacobian(c, { y, s, gain, saturation, silent }) {
    return {
      yy: -gain / c.tau_y,
      ya: silent ? 0 : (-c.W_r * y) / (2 * s * c.tau_y),
      ay: silent ? 0 : (2 * c.W * y * s * s) / c.tau_a,
      aa: -((c.k / s) ** 2) / c.tau_a,
      cross: silent ? 0 : (-c.W_r * s * saturation) / c.tau_y / c.tau_a, // ya * ay
    };
  }

  function fixedPoint(c, root) {
    const J = jacobian(c, root);
    const halfDifference = (J.yy - J.aa) / 2;
    const discriminant = halfDifference * halfDifference + J.cross;
    const silentAtZero = root.silent && c.p === 0 && c.gain <= 0;
    const kind = silentAtZero ? "half-stable" : kindOf(J, discriminant);
    return {
      y: root.y,
      a: root.s * root.s,
      eigenvalues: eigenvalues(J, discriminant),
      stable: kind.startsWith("stable"),
      kind,
      atKink: root.silent && c.p === 0,
      jacobian: J,
    };
  }

  function eigenvalues({ yy, aa, cross }, discriminant) {
    const trace = yy + aa;
    if (discriminant < 0) {
      const frequency = Math.sqrt(-discriminant);
      return [[trace / 2, frequency], [trace / 2, -frequency]];
    }
    const larger = trace / 2 + (trace < 0 ? -1 : 1) * Math.sqrt(discriminant);
    const other = larger === 0 ? 0 : (yy * aa - cross) / larger;
    return [[Math.max(larger, other), 0], [Math.min(larger, other), 0]];
  }

  function kindOf({ yy, aa, cross }, discriminant) {
    const trace = yy + aa;
    const determinant = yy * aa - cross;
    const tolerance = 1e-12;
    if (Math.abs(determinant) <= tolerance * (Math.abs(yy * aa) + Math.abs(cross)))
      return "non-hyperbolic";
    if (determinant < 0) return "saddle";
    if (Math.abs(trace) <= tolerance * (Math.abs(yy) + Math.abs(aa))) return "non-hyperbolic";
    return `${trace < 0 ? "stable" : "unstable"} ${discriminant < 0 ? "focus" : "node"}`;
  }

  // Nullclines -----------------------------------------------------------------------------------

  const grid = ([low, high], count) =>
    Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));

  // curves, each a list of [y, a], on which dy/dt = 0 (`y`) and da/dt = 0 (`a`) in a window
  function nullclines(circuit, yLimits, aLimits, count = 300) {
    const c = scalars(circuit);
    const ys = grid(yLimits, count);
    const as = grid(aLimits, count);
    const within = ([y, a]) =>
      y >= yLimits[0] && y <= yLimits[1] && a >= aLimits[0] && a <= aLimits[1];
    return { y: yNullclines(c, ys, as, within), a: aNullclines(c, ys, as, within) };
  }

  function yNullclines(c, ys, as, within) {
    const curves = [];
    if (c.p === 0 || (c.rectified && c.p < 0)) curves.push(as.map((a) => [c.p, a]));
    if (c.p === 0) {
      const pole = c.W_r > 1 ? ((c.W_r - 1) / c.W_r) ** 2 : Infinity;
      curves.push((c.rectified ? ys.filter((y) => y >= 0) : ys).map((y) => [y, pole]));
    } else {
      const points = as.map((a) => [c.p / (1 - c.W_r + c.W_r * Math.sqrt(Math.max(a, 0))), a]);
      if (c.W_r > 0) {
        for (const y of ys) {
          const s = (c.p / y - 1 + c.W_r) / c.W_r;
          if (y !== 0 && s >= 0) points.push([y, s * s]);
        }
      }
      points.sort((one, other) => one[1] - other[1]);
      for (const sign of [1, -1]) {
        if (!c.rectified || sign * c.p > 0)
          curves.push(points.filter(([y]) => Math.sign(y) === sign * Math.sign(c.p)));
      }
    }
    return curves.map((curve) => curve.filter(within)).filter((curve) => curve.length > 1);
  }

  function aNullclines(c, ys, as, within) {
    const points = [];
    for (const y of ys) {
      const q = c.rectified ? Math.max(y, 0) : y;
      const rest = 1 - c.W * q * q;
      if (rest > 0) points.push([y, (c.k * c.k) / rest]);
    }
    for (const a of c.W > 0 ? as : []) {
      if (a < c.k * c.k) continue;
      const y = Math.sqrt((1 - (c.k * c.k) / a) / c.W);
      points.push([y, a]);
      if (!c.rectified) points.push([-y, a]);
    }
    const curve = points.filter(within).sort((one, other) => one[0] - other[0]);
    return curve.length > 1 ? [curve] : [];
  }

  // Trajectories ---------------------------------------------------------------------------------

  const A = [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
  ];
  const ERROR = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40];

  // {t, y, a} at `samples` equal intervals from `start` = [y, a]; NaN from where it fails.
  // Dormand and Prince's method of order 5(4), J. Comput. Appl. Math. 6, 19 (1980).
  function trajectory(c, start, duration, samples = 300, rtol = 1e-7, mostSteps = 50000) {
    const t = grid([0, duration], samples + 1);
    let x = start;
    let k = velocity(c, ...x);
    let h = Math.min(c.tau_y, c.tau_a) / 100;
    let steps = 0;
    const path = [x];
    for (let i = 1; i < t.length; i++) {
      let now = t[i - 1];
      while (now < t[i] && ++steps <= mostSteps) {
        const last = now + h >= t[i];
        const step = last ? t[i] - now : h;
        const [next, slope, error] = dormandPrince(c, x, k, step, rtol);
        const accepted = error <= 1; // not so if it is NaN
        if (accepted) [x, k, now] = [next, slope, last ? t[i] : now + step];
        if (last && accepted) continue; // cut short, it says nothing about the next step
        const factor = Math.min(Math.max(0.9 * error ** -0.2, 0.2), 5);
        h = step * (Number.isNaN(factor) ? 0.2 : factor);
      }
      if (steps > mostSteps) x = [NaN, NaN];
      path.push(x);
    }
    return { t, y: path.map(([y]) => y), a: path.map(([, a]) => a) };
  }

  function dormandPrince(c, x, k1, h, rtol) {
    const k = [k1];
    let next = x;
    for (const row of A) {
      next = [0, 1].map((i) => x[i] + h * row.reduce((sum, weight, j) => sum + weight * k[j][i], 0));
      k.push(velocity(c, ...next));
    }
    const error = [0, 1].map((i) => {
      const size = rtol * Math.max(Math.abs(x[i]), Math.abs(next[i])) + 1e-3 * rtol;
      return Math.abs(h * ERROR.reduce((sum, weight, j) => sum + weight * k[j][i], 0)) / size;
    });
    return [next, k[6], Math.max(...error)];
  }

  // Spectra --------------------------------------------------------------------------------------

  // two-sided power spectral densities {y, a} per kHz at frequencies in kHz, about a stable fixed
  // point, for additive noise of these levels in y and in a; there is no linear theory of y at a kink
  function power(c, point, frequencies, noise) {
    const { yy, ya, ay, aa } = point.jacobian;
    const qy = noise.y ** 2 / c.tau_y;
    const qa = noise.a ** 2 / c.tau_a;
    const density = { y: [], a: [] };
    for (const f of frequencies) {
      const w = 2 * Math.PI * f;
      const size = (yy * aa - ya * ay - w * w) ** 2 + (w * (yy + aa)) ** 2; // |det(i w - J)|^2
      density.y.push(point.atKink ? NaN : ((w * w + aa * aa) * qy + ya * ya * qa) / size);
      density.a.push((ay * ay * qy + (w * w + yy * yy) * qa) / size);
    }
    return density;
  }

  return { velocity, fixedPoints, nullclines, trajectory, power, grid };
})();
