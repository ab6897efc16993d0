// The kernels of `sequence.hpp` for one instruction set: ORGANICS_ISA names it, and the compiler's
// flags choose it. E is what products are made of, see `products.hpp`.
#pragma once

#include "cells/antisymmetric.hpp"
#include "cells/cornn.hpp"
#include "cells/lem.hpp"
#include "cells/lipschitz.hpp"
#include "cells/lstm.hpp"
#include "cells/organics.hpp"
#include "cells/tanh.hpp"

namespace organics {
namespace {

// ---- weights, packed -----------------------------------------------------------------------------

// Where each packed matrix begins: of each receiver, that of its sources, forward and back, and that
// of the input; and that of the input, back.
template <typename E>
struct Packed {
  struct Receiving {
    E *forward, *back, *input;
  } of[4];
  E* input_back;
  E* end;

  template <typename C>
  Packed(const Shape& s, const C& cell, E* base) {
    const Index h = s.hidden;
    for (int i = 0; i < cell.receivers(); ++i) {
      const Receiver r = cell.receiver(i);
      const Index square = elements<E>(r.parts * h * r.sources * h);
      of[i] = {base, base + square, base + 2 * square};
      base = of[i].input + (takes_input<C>(r) ? r.parts * h * elements<E>(s.inputs) : 0);
    }
    input_back = base;
    end = input_back + elements<E>(C::kInputs * h) * round_up(s.inputs);
  }
};

template <typename E, typename C>
Index packed_size(const Shape& s, const Settings& settings) {
  return Packed<E>(s, C(settings), nullptr).end - static_cast<E*>(nullptr);
}

template <typename E, typename C>
void pack(const Shape& s, const Settings& settings, const Weights<Sum<E>>& w, void* base,
          bool backward) {
  using T = Sum<E>;
  const C cell(settings);
  const Index h = s.hidden, m = s.inputs;
  const Packed<E> p(s, cell, static_cast<E*>(base));
  for (int i = 0; i < cell.receivers(); ++i) {
    const Receiver r = cell.receiver(i);
    const Index receives = r.parts * h, sends = r.sources * h;
    if (r.matrix >= 0) {
      const T* const matrix = w.matrix[r.matrix];
      pack_matrix(sends, receives, receives, matrix, 1, sends, p.of[i].forward);
      if (backward) pack_matrix(receives, sends, sends, matrix, sends, 1, p.of[i].back);
    }
    if (takes_input<C>(r))
      pack_matrix(m, receives, receives, w.input + (r.part - C::kInput) * h * m, 1, m,
                  p.of[i].input);
  }
  if (backward) pack_matrix(C::kInputs * h, round_up(m), m, w.input, m, 1, p.input_back);
}

template <typename E, typename C>
Form form(const Settings& settings) {
  const C cell(settings);
  Form f{C::kState, {}, C::kInputs, C::kVectors, cell.kept()};
  for (int i = 0; i < cell.receivers(); ++i) {
    const Receiver r = cell.receiver(i);
    if (r.matrix >= 0) f.matrix[r.matrix] = {r.parts, r.sources};
  }
  return f;
}

// ---- one step ------------------------------------------------------------------------------------

// Few enough samples that a segment of records stays in the cache next to the weights.
constexpr Index kTile = 32;
// So many samples that their products by tiles are quicker.
constexpr Index kEnough = 4;

// All there is of a call, for one cell.
template <typename E, typename C>
struct Call {
  using T = Sum<E>;
  static constexpr Index kState = C::kState, kBoth = C::kState + C::kSeen;

  const Shape& s;
  const C cell;
  const Weights<T>& w;
  const Packed<E> p;
  E* const room;  // of a product
  const Index h, m, record, cotangent;
  const bool tiles;  // not by the number of rows at hand, which is that of threads, too
  Receiver receivers[4];

  Call(const Shape& shape, const Settings& settings, const Weights<T>& weights, const void* packed,
       E* room)
      : s(shape),
        cell(settings),
        w(weights),
        p(shape, cell, static_cast<E*>(const_cast<void*>(packed))),
        room(room),
        h(shape.hidden),
        m(shape.inputs),
        record(C::kRecord * h),
        cotangent(C::kCotangents * h),
        tiles(kTiled<E> && s.batch >= kEnough) {
    for (int i = 0; i < cell.receivers(); ++i) receivers[i] = cell.receiver(i);
  }

  Parts<T> parameters(Index i) const { return {const_cast<T*>(w.vectors) + i, h}; }

  // Puts the states of `rows` samples into their records.
  void begin(Index rows, const T* states, T* records) const {
    copy_rows(rows, kState * h, states, kState * h, records, record);
    if constexpr (C::kSeen > 0)
      for (Index r = 0; r < rows; ++r)
        for (Index i = 0; i < h; i += kLanes<T>) cell.see({records + r * record + i, h});
  }

  // The records of `rows` samples in which the state stands are completed from the input `x` and, if
  // they are `given`, from what was kept of the products; the states one step later begin `next`.
  void step(const T* x, const T* given, Index rows, T* records, T* next) const {
    const Index count = cell.kept() * h;
    if (given) copy_rows(rows, count, given, count, records + C::kKept * h, record);
    stage<0>(x, given, rows, records, next);
  }

  template <int number>
  void stage(const T* x, const T* given, Index rows, T* records, T* next) const {
    for (int i = 0; i < cell.receivers(); ++i) {
      const Receiver& r = receivers[i];
      if (r.stage != number || (given && !r.again)) continue;
      Factors<E> sources, input;
      E* free = room;
      if (r.matrix >= 0)
        sources = factors(rows, r.sources * h, records + r.source * h, record, p.of[i].forward, free);
      if (takes_input<C>(r)) input = factors(rows, m, x, m, p.of[i].input, free);
      multiply(rows, r.parts * h, sources, input, records + r.part * h, record, false, tiles);
    }
    for (Index r = 0; r < rows; ++r) {
      for (Index i = 0; i < h; i += kLanes<T>) {
        const Parts<T> e{records + r * record + i, h}, n{next + r * record + i, h};
        if (!given) cell.template open<number>(parameters(i), e);
        cell.template move<number>(parameters(i), e, n);
      }
    }
    if constexpr (number + 1 < C::kStages) stage<number + 1>(x, given, rows, records, next);
  }

  // Whether sample `r` has ended before step `t`.
  static bool ended(const std::int32_t* lengths, Index r, Index t) {
    return lengths && t >= lengths[r];
  }

  // The samples of the records `now` that have ended are to have the same state in `next`.
  void hold(const std::int32_t* lengths, Index rows, Index t, const T* now, T* next) const {
    for (Index r = 0; r < rows; ++r)
      if (ended(lengths, r, t))
        copy_rows(1, kBoth * h, now + r * record, record, next + r * record, record);
  }

  // From the cotangents `d` of the state after a step those of its products, `g`, and of the state
  // before; and gradients of the cell's further parameters. Of a sample that has ended `d` passes as
  // it is.
  template <int number = C::kStages - 1>
  void pull_back(const Gradients<T>& gradient, const std::int32_t* lengths, Index t, Index rows,
                 T* records, T* cotangents, T* d) const {
    for (Index r = 0; r < rows; ++r) {
      T* const g = cotangents + r * cotangent;
      if (ended(lengths, r, t)) {
        for (Index i = 0; i < cotangent; ++i) g[i] = 0;
        continue;
      }
      for (Index i = 0; i < h; i += kLanes<T>)
        cell.template pull_back<number>(parameters(i), {gradient.vectors + i, h},
                                        {records + r * record + i, h}, {g + i, h},
                                        {d + r * kBoth * h + i, h});
    }
    for (int i = 0; i < cell.receivers(); ++i) {
      const Receiver& r = receivers[i];
      if (r.stage != number || r.matrix < 0) continue;
      E* free = room;
      const Factors<E> from = factors(rows, r.parts * h, cotangents + r.cotangent * h, cotangent,
                                      p.of[i].back, free);
      multiply<E>(rows, r.sources * h, from, {}, d + r.back * h, kBoth * h, r.back < kState, tiles);
    }
    if constexpr (number > 0)
      pull_back<number - 1>(gradient, lengths, t, rows, records, cotangents, d);
    else if constexpr (C::kSeen > 0)
      for (Index r = 0; r < rows; ++r)
        for (Index i = 0; i < h; i += kLanes<T>)
          cell.unsee({records + r * record + i, h}, {cotangents + r * cotangent + i, h},
                     {d + r * kBoth * h + i, h});
  }

  // The gradients of the weights by the records and cotangents of so many samples and steps.
  void accumulate_all(Index samples, const T* records, const T* inputs, const T* cotangents,
                      const Gradients<T>& gradient) const {
    for (int i = 0; i < cell.receivers(); ++i) {
      const Receiver& r = receivers[i];
      if (r.matrix >= 0)
        accumulate(r.sources * h, r.parts * h, samples, records + r.source * h, record,
                   cotangents + r.cotangent * h, cotangent, gradient.matrix[r.matrix],
                   room);
    }
    accumulate(m, C::kInputs * h, samples, inputs, m, cotangents + C::kCInput * h, cotangent,
               gradient.input, room);
  }
};

// ---- the sequence --------------------------------------------------------------------------------

// Elements that are in the way of a product for a while.
template <typename E, typename C>
Index room_of_products(const Shape& s, bool backward) {
  static_assert(Index{C::kRecord} >= Index{C::kCotangents});
  const Index most = C::kRecord * s.hidden + s.inputs;
  const Index made = kMade<E> ? kTile * (elements<E>(most) + 1) : 0;
  const Index gradients = backward ? accumulating_room<E>(most) : 0;
  return made < gradients ? gradients : made;
}

template <typename E, typename C>
Index scratch_size(const Shape& s, bool backward) {
  const Index h = s.hidden, room = room_of_products<E, C>(s, backward);
  if (!backward) return 2 * kTile * C::kRecord * h + room;
  return kTile * ((s.segment + 1) * C::kRecord * h + s.segment * (C::kCotangents * h + s.inputs) +
                  Call<E, C>::kBoth * h + round_up(s.inputs)) +
         room;
}

template <typename E, typename C>
void forward(const Shape& s, const Settings& settings, const Weights<Sum<E>>& w, const void* packed,
             const Forward<Sum<E>>& f, Index first, Index last, Sum<E>* scratch) {
  using T = Sum<E>;
  const Index h = s.hidden, record = C::kRecord * h, state = C::kState * h;
  const Tiles tiles;
  const Call<E, C> call(s, settings, w, packed, reinterpret_cast<E*>(scratch + 2 * kTile * record));
  const Index count = call.cell.kept() * h;
  for (Index start = first; start < last; start += kTile) {
    const Index rows = smaller(kTile, last - start);
    const std::int32_t* const lengths = f.lengths ? f.lengths + start : nullptr;
    T* now = scratch;
    T* next = scratch + kTile * record;
    call.begin(rows, f.initial + start * state, now);
    for (Index t = 0; t < s.steps; ++t) {
      const Index at = t * s.batch + start;
      if (f.kept && t % s.segment == 0)
        copy_rows(rows, state, now, record, f.kept + (t / s.segment * s.batch + start) * state,
                  state);
      call.step(f.x + at * s.inputs, nullptr, rows, now, next);
      if (lengths) call.hold(lengths, rows, t, now, next);
      if (f.products)
        stream_rows(rows, count, now + C::kKept * h, record, f.products + at * count);
      if (f.outputs) copy_rows(rows, h, next, record, f.outputs + at * h, h);
      T* const done = now;
      now = next;
      next = done;
    }
    copy_rows(rows, state, now, record, f.final_state + start * state, state);
  }
#if defined(__SSE2__)
  _mm_sfence();  // what was streamed is there for other threads
#endif
}

template <typename E, typename C>
void backward(const Shape& s, const Settings& settings, const Weights<Sum<E>>& w,
              const void* packed, const Backward<Sum<E>>& f, const Gradients<Sum<E>>& gradient,
              Index first, Index last, Sum<E>* scratch) {
  using T = Sum<E>;
  const Index h = s.hidden, m = s.inputs, record = C::kRecord * h, cotangent = C::kCotangents * h;
  const Index state = C::kState * h, both = Call<E, C>::kBoth * h;
  T* const records = scratch;
  T* const cotangents = records + kTile * (s.segment + 1) * record;
  T* const inputs = cotangents + kTile * s.segment * cotangent;
  T* const d = inputs + kTile * s.segment * m;
  T* const d_input = d + kTile * both;
  E* const room = reinterpret_cast<E*>(d_input + kTile * round_up(m));
  const Tiles tiles;
  const Call<E, C> call(s, settings, w, packed, room);
  const Index count = call.cell.kept() * h;
  const Index segments = (s.steps + s.segment - 1) / s.segment;
  for (Index begins = first; begins < last; begins += kTile) {
    const Index rows = smaller(kTile, last - begins);
    const std::int32_t* const lengths = f.lengths ? f.lengths + begins : nullptr;
    copy_rows(rows, state, f.d_final + begins * state, state, d, both);
    for (Index segment = segments - 1; segment >= 0; --segment) {
      const Index start = segment * s.segment;
      const Index steps = smaller(s.segment, s.steps - start);
      call.begin(rows, f.kept + (segment * s.batch + begins) * state, records);
      for (Index t = 0; t < steps; ++t) {
        const Index at = (start + t) * s.batch + begins;
        T* const here = records + t * rows * record;
        T* const x = inputs + t * rows * m;
        copy_rows(rows, m, f.x + at * m, m, x, m);
        call.step(x, f.products ? f.products + at * count : nullptr, rows, here,
                  here + rows * record);
        if (lengths) call.hold(lengths, rows, start + t, here, here + rows * record);
      }
      for (Index t = steps - 1; t >= 0; --t) {
        const Index at = (start + t) * s.batch + begins;
        T* const g = cotangents + t * rows * cotangent;
        if (f.d_outputs)
          for (Index r = 0; r < rows; ++r)
            for (Index i = 0; i < h; ++i) d[r * both + i] += f.d_outputs[(at + r) * h + i];
        call.pull_back(gradient, lengths, start + t, rows, records + t * rows * record, g, d);
        if (f.d_x) {
          const Index wide = round_up(m);
          E* free = room;
          const Factors<E> from = factors(rows, C::kInputs * h, g + C::kCInput * h, cotangent,
                                          call.p.input_back, free);
          multiply<E>(rows, wide, from, {}, d_input, wide, false, call.tiles);
          copy_rows(rows, m, d_input, wide, f.d_x + at * m, m);
        }
      }
      call.accumulate_all(steps * rows, records, inputs, cotangents, gradient);
    }
    copy_rows(rows, state, d, both, f.d_initial + begins * state, state);
  }
}

template <typename E, typename C>
constexpr Kernel<Sum<E>> kernel() {
  return {form<E, C>, packed_size<E, C>, scratch_size<E, C>, pack<E, C>, forward<E, C>,
          backward<E, C>};
}

}  // namespace

#define ORGANICS_JOIN(a, b) a##b
#define ORGANICS_NAME(a, b) ORGANICS_JOIN(a, b)
// The kernels of all cells for products of elements E and other numbers T.
#define ORGANICS_KERNELS(E, T, name)                                                           \
  extern const Kernel<T> ORGANICS_NAME(name, ORGANICS_ISA)[kCellCount];                        \
  const Kernel<T> ORGANICS_NAME(name, ORGANICS_ISA)[kCellCount] = {                            \
      kernel<E, Organics<T, 0>>(),   kernel<E, Lstm<T>>(),                                     \
      kernel<E, Antisymmetric<T>>(), kernel<E, AntisymmetricGated<T>>(),                       \
      kernel<E, Cornn<T>>(),         kernel<E, Lipschitz<T>>(),                                \
      kernel<E, Tanh<T>>(),          kernel<E, Lem<T>>(),                                      \
      kernel<E, Organics<T, 1>>(),   kernel<E, Organics<T, 4>>(),                              \
      kernel<E, Organics<T, 4, 1>>(),                                                          \
  };

}  // namespace organics
