// What XLA calls: checks the shapes, chooses the instruction set, and spreads tiles over threads.
#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "sequence.hpp"
#include "xla/ffi/api/ffi.h"

#define ORGANICS_EXPORT __attribute__((visibility("default")))

namespace organics {

extern const Kernel<float> kFloat_base;
extern const Kernel<double> kDouble_base;
// defined is what hatch_build.py has compiled
#if defined(ORGANICS_AVX2)
extern const Kernel<float> kFloat_avx2;
extern const Kernel<double> kDouble_avx2;
#endif
#if defined(ORGANICS_AVX512)
extern const Kernel<float> kFloat_avx512;
extern const Kernel<double> kDouble_avx512;
#endif

namespace {

namespace ffi = xla::ffi;

enum class Isa { kBase, kAvx2, kAvx512 };

constexpr const char* kNames[] = {"base", "avx2", "avx512"};

// Whether the library has it and the processor can run it.
bool supported(Isa isa) {
  bool has = isa == Isa::kBase;
#if defined(ORGANICS_AVX2) || defined(ORGANICS_AVX512)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#endif
#if defined(ORGANICS_AVX2)
  has |= isa == Isa::kAvx2 && avx2;
#endif
#if defined(ORGANICS_AVX512)
  has |= isa == Isa::kAvx512 && avx2 && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
  return has;
}

std::atomic<Isa> chosen{Isa::kBase};

Isa isa() { return chosen.load(std::memory_order_relaxed); }

template <typename T>
const Kernel<T>& kernel();
template <>
const Kernel<float>& kernel() {
#if defined(ORGANICS_AVX512)
  if (isa() == Isa::kAvx512) return kFloat_avx512;
#endif
#if defined(ORGANICS_AVX2)
  if (isa() == Isa::kAvx2) return kFloat_avx2;
#endif
  return kFloat_base;
}
template <>
const Kernel<double>& kernel() {
#if defined(ORGANICS_AVX512)
  if (isa() == Isa::kAvx512) return kDouble_avx512;
#endif
#if defined(ORGANICS_AVX2)
  if (isa() == Isa::kAvx2) return kDouble_avx2;
#endif
  return kDouble_base;
}

Index processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// Asks for large pages for what is to be written for the first time: else that takes longer than
// computing it.
void expect_writing(void* data, std::size_t bytes) {
#if defined(__linux__)
  constexpr std::size_t kPage = std::size_t{1} << 21;
  const auto begin = (reinterpret_cast<std::uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / kPage * kPage;
  if (data && begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Numbers too small for full precision count as zero meanwhile: vanishing gradients are such, and
// processors take many times longer with them.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#endif
};

template <typename T>
class Numbers {  // aligned to the cache line
 public:
  explicit Numbers(Index count)
      : data_(static_cast<T*>(::operator new(sizeof(T) * count, std::align_val_t{64}))) {}
  ~Numbers() { ::operator delete(data_, std::align_val_t{64}); }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

// Calls work() on so many threads, this one among them, or on fewer if no more are to be had.
template <typename Work>
void on_threads(Index count, const Work& work) {
  std::exception_ptr failure;
  std::mutex mutex;
  const auto run = [&] {
    try {
      FlushDenormals flush;
      work();
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(count);
  try {
    while (static_cast<Index>(threads.size()) + 1 < count) threads.emplace_back(run);
  } catch (const std::exception&) {
    // the threads that there are do all of the work
  }
  run();
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

// The batch in shares, which threads take one after the other.
class Shares {
 public:
  Shares(Index batch, Index count) : count(count), batch_(batch) {}

  // Calls work(share, first, last) until there are no shares left.
  template <typename Work>
  void take(const Work& work) {
    for (Index i = next_++; i < count; i = next_++)
      work(i, batch_ * i / count, batch_ * (i + 1) / count);
  }

  const Index count;

 private:
  const Index batch_;
  std::atomic<Index> next_{0};
};

constexpr Index kLeast = 4;  // samples that are worth a thread

Index threads_for(Index batch, Index threads) {
  return std::max<Index>(1, std::min(threads > 0 ? threads : processors(), batch / kLeast));
}

// Gradients are summed over each of so many shares of the batch, and these sums then in order: that
// depends on the batch alone, so the gradients depend neither on the number of threads nor on which
// of them is quicker. Fewer than sixteen samples take longer for each, so there are fewer only if
// there were not four shares else; and no more than 32 shares, as each has sums of its own to keep.
Index shares_of_sums(Index batch) {
  const Index few = std::min<Index>(batch / kLeast, 4), many = std::min<Index>(batch / 16, 32);
  return std::max<Index>({1, few, many});
}

template <typename T>
void run_forward(const Shape& s, const Options& o, const Weights<T>& w, const Forward<T>& f,
                 Index threads) {
  const Kernel<T>& k = kernel<T>();
  const Numbers<T> packed(k.packed_size(s));
  k.pack(s, o, w, packed.get(), false);
  const Index count = threads_for(s.batch, threads);
  Shares shares(s.batch, count);  // their number changes no result, as nothing is summed over them
  on_threads(count, [&] {
    const Numbers<T> scratch(k.scratch_size(s, false));
    shares.take([&](Index, Index first, Index last) {
      k.forward(s, o, w, packed.get(), f, first, last, scratch.get());
    });
  });
}

template <typename T>
void run_backward(const Shape& s, const Options& o, const Weights<T>& w, const Backward<T>& f,
                  const Gradients<T>& out, Index threads) {
  const Kernel<T>& k = kernel<T>();
  const Index h = s.hidden, m = s.inputs, square = h * h;
  const Index size = 6 * square + 3 * h * m + 5 * h;
  Shares shares(s.batch, shares_of_sums(s.batch));
  const Numbers<T> packed(k.packed_size(s));
  k.pack(s, o, w, packed.get(), true);
  const Numbers<T> sums(shares.count * size);
  on_threads(std::min(threads_for(s.batch, threads), shares.count), [&] {
    const Numbers<T> scratch(k.scratch_size(s, true));
    shares.take([&](Index i, Index first, Index last) {
      T* const base = sums.get() + i * size;
      std::fill_n(base, size, T(0));
      const Gradients<T> mine{base,
                              base + square,
                              base + 2 * square,
                              base + 6 * square,
                              base + 6 * square + 3 * h * m,
                              base + 6 * square + 3 * h * m + 4 * h};
      k.backward(s, o, w, packed.get(), f, mine, first, last, scratch.get());
    });
  });
  for (Index i = 1; i < shares.count; ++i)
    for (Index j = 0; j < size; ++j) sums.get()[j] += sums.get()[i * size + j];
  // the kernels' (sends, receives) becomes the (receives, sends) of the weights
  const T* from = sums.get();
  const auto transpose = [&](Index sends, Index receives, T* to) {
    for (Index k = 0; k < sends; ++k)
      for (Index i = 0; i < receives; ++i) to[i * sends + k] = from[k * receives + i];
    from += sends * receives;
  };
  if (o.identity)
    from += square;
  else
    transpose(h, h, out.recurrent);
  transpose(h, h, out.normalization);
  transpose(2 * h, 2 * h, out.gates);
  transpose(m, 3 * h, out.input);
  std::copy_n(from, 4 * h, out.rates);
  std::copy_n(from + 4 * h, h, out.offset);
}

// ---- what XLA hands over -------------------------------------------------------------------------

using In = ffi::AnyBuffer;
using Out = ffi::Result<ffi::AnyBuffer>;

ffi::Error refuse(const std::string& what) { return ffi::Error::InvalidArgument("organics: " + what); }

template <typename Buffer>
bool is(const Buffer& buffer, ffi::DataType type, std::initializer_list<Index> shape) {
  const auto have = buffer.dimensions();
  return buffer.element_type() == type && have.size() == shape.size() &&
         std::equal(shape.begin(), shape.end(), have.begin());
}

// T, B, H and m from the sequence and the state; everything else must agree with them.
ffi::Error shape_of(const In& x, const In& state, int64_t segment, Shape* s) {
  if (x.dimensions().size() != 3) return refuse("`x` must have shape (steps, batch, inputs)");
  if (state.dimensions().size() != 2 || state.dimensions()[1] % (4 * kMultiple) != 0)
    return refuse("the state must have shape (batch, 4 H), H a multiple of 16");
  if (segment < 1) return refuse("`segment` must be at least 1");
  *s = {x.dimensions()[0], x.dimensions()[1], state.dimensions()[1] / 4, x.dimensions()[2], segment};
  if (s->steps < 1 || s->batch < 1 || s->hidden < 1 || s->inputs < 1)
    return refuse("there must be at least one step, sample, neuron and input");
  s->segment = std::min<Index>(s->segment, s->steps);
  return ffi::Error::Success();
}

// The sequences' lengths, if they are given.
ffi::Error check_lengths(const Shape& s, const In& lengths) {
  if (lengths.element_count() && !is(lengths, ffi::DataType::S32, {s.batch}))
    return refuse("the lengths must be (batch,) and of 32 bits");
  return ffi::Error::Success();
}

ffi::Error check_weights(const Shape& s, const Options& o, ffi::DataType type, const In& recurrent,
                         const In& normalization, const In& gates, const In& input, const In& rates,
                         const In& offset) {
  const Index h = s.hidden, none = o.identity ? 0 : h;
  if (!is(recurrent, type, {none, none})) return refuse("the recurrent weights must be (H, H)");
  if (!is(normalization, type, {h, h})) return refuse("the normalization weights must be (H, H)");
  if (!is(gates, type, {2 * h, 2 * h})) return refuse("the gates' weights must be (2 H, 2 H)");
  if (!is(input, type, {3 * h, s.inputs})) return refuse("the input weights must be (3 H, inputs)");
  if (!is(rates, type, {4, h})) return refuse("the rates must be (4, H)");
  if (!is(offset, type, {h})) return refuse("the offset must be (H,)");
  return ffi::Error::Success();
}

template <typename T, typename Buffer>
T* data(Buffer& buffer) {
  return buffer.element_count() ? static_cast<T*>(buffer.untyped_data()) : nullptr;
}

// Runs `work` with a number of the buffers' type, and turns exceptions into errors.
template <typename Work>
ffi::Error with_type(ffi::DataType type, const Work& work) {
  try {
    if (type == ffi::DataType::F32) {
      work(float{});
    } else if (type == ffi::DataType::F64) {
      work(double{});
    } else {
      return refuse("numbers must be float32 or float64");
    }
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "organics: out of memory");
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("organics: ") + error.what());
  }
  return ffi::Error::Success();
}

ffi::Error forward(In x, In initial, In lengths, In recurrent, In normalization, In gates, In input,
                   In rates, In offset, Out final_state, Out kept, Out products, Out outputs,
                   int64_t segment, int64_t threads, bool rectified, bool rectified_after,
                   bool rectified_drive) {
  Shape s;
  if (auto error = shape_of(x, initial, segment, &s); error.failure()) return error;
  const Options o{recurrent.element_count() == 0, rectified, rectified_after, rectified_drive};
  const ffi::DataType type = x.element_type();
  if (auto error = check_weights(s, o, type, recurrent, normalization, gates, input, rates, offset);
      error.failure())
    return error;
  if (auto error = check_lengths(s, lengths); error.failure()) return error;
  const Index h = s.hidden, segments = (s.steps + s.segment - 1) / s.segment;
  if (!is(initial, type, {s.batch, 4 * h}) || !is(*final_state, type, {s.batch, 4 * h}))
    return refuse("the states must be (batch, 4 H)");
  if (kept->element_count() && !is(*kept, type, {segments, s.batch, 4 * h}))
    return refuse("the kept states must be (segments, batch, 4 H)");
  if (products->element_count() && !is(*products, type, {s.steps, s.batch, products_of(s, o)}))
    return refuse("the products must be (steps, batch, 4 H), of the identity 3 H");
  if (outputs->element_count() && !is(*outputs, type, {s.steps, s.batch, h}))
    return refuse("the outputs must be (steps, batch, H)");
  return with_type(type, [&](auto number) {
    using T = decltype(number);
    const Weights<T> w{data<T>(recurrent), data<T>(normalization), data<T>(gates),
                       data<T>(input),     data<T>(rates),         data<T>(offset)};
    const Forward<T> f{data<T>(x),         data<T>(initial),  data<T>(*final_state), data<T>(*kept),
                       data<T>(*products), data<T>(*outputs), data<std::int32_t>(lengths)};
    expect_writing(f.products, products->size_bytes());
    run_forward(s, o, w, f, threads);
  });
}

ffi::Error backward(In x, In kept, In products, In lengths, In recurrent, In normalization, In gates,
                    In input, In rates, In offset, In d_final, In d_outputs, Out d_x, Out d_initial,
                    Out d_recurrent, Out d_normalization, Out d_gates, Out d_input, Out d_rates,
                    Out d_offset, int64_t segment, int64_t threads, bool rectified,
                    bool rectified_after, bool rectified_drive) {
  Shape s;
  if (auto error = shape_of(x, d_final, segment, &s); error.failure()) return error;
  const Options o{recurrent.element_count() == 0, rectified, rectified_after, rectified_drive};
  const ffi::DataType type = x.element_type();
  if (auto error = check_weights(s, o, type, recurrent, normalization, gates, input, rates, offset);
      error.failure())
    return error;
  if (auto error = check_lengths(s, lengths); error.failure()) return error;
  const Index h = s.hidden, segments = (s.steps + s.segment - 1) / s.segment;
  const Index none = o.identity ? 0 : h;
  if (!is(kept, type, {segments, s.batch, 4 * h}))
    return refuse("the kept states must be (segments, batch, 4 H)");
  if (products.element_count() && !is(products, type, {s.steps, s.batch, products_of(s, o)}))
    return refuse("the products must be (steps, batch, 4 H), of the identity 3 H");
  if (!is(d_final, type, {s.batch, 4 * h}) || !is(*d_initial, type, {s.batch, 4 * h}))
    return refuse("the states' cotangents must be (batch, 4 H)");
  if (d_outputs.element_count() && !is(d_outputs, type, {s.steps, s.batch, h}))
    return refuse("the outputs' cotangents must be (steps, batch, H)");
  if (d_x->element_count() && !is(*d_x, type, {s.steps, s.batch, s.inputs}))
    return refuse("the inputs' cotangents must be (steps, batch, inputs)");
  if (!is(*d_recurrent, type, {none, none}) || !is(*d_normalization, type, {h, h}) ||
      !is(*d_gates, type, {2 * h, 2 * h}) || !is(*d_input, type, {3 * h, s.inputs}) ||
      !is(*d_rates, type, {4, h}) || !is(*d_offset, type, {h}))
    return refuse("the gradients must have the shapes of the weights");
  return with_type(type, [&](auto number) {
    using T = decltype(number);
    const Weights<T> w{data<T>(recurrent), data<T>(normalization), data<T>(gates),
                       data<T>(input),     data<T>(rates),         data<T>(offset)};
    const Backward<T> f{data<T>(x),         data<T>(kept),       data<T>(products), data<T>(d_final),
                        data<T>(d_outputs), data<T>(*d_initial), data<T>(*d_x),
                        data<std::int32_t>(lengths)};
    const Gradients<T> g{data<T>(*d_recurrent), data<T>(*d_normalization), data<T>(*d_gates),
                         data<T>(*d_input),     data<T>(*d_rates),         data<T>(*d_offset)};
    run_backward(s, o, w, f, g, threads);
  });
}

}  // namespace

// all else in the library is hidden, and the macro does not say that these are not
extern "C" ORGANICS_EXPORT XLA_FFI_Error* organics_forward(XLA_FFI_CallFrame*);
extern "C" ORGANICS_EXPORT XLA_FFI_Error* organics_backward(XLA_FFI_CallFrame*);

XLA_FFI_DEFINE_HANDLER_SYMBOL(organics_forward, forward,
                              ffi::Ffi::Bind()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("segment")
                                  .Attr<int64_t>("threads")
                                  .Attr<bool>("rectified")
                                  .Attr<bool>("rectified_after")
                                  .Attr<bool>("rectified_drive"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(organics_backward, backward,
                              ffi::Ffi::Bind()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Arg<In>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("segment")
                                  .Attr<int64_t>("threads")
                                  .Attr<bool>("rectified")
                                  .Attr<bool>("rectified_after")
                                  .Attr<bool>("rectified_drive"));

}  // namespace organics

// Has the kernels use these instructions, by name; false, and nothing done, if it cannot. Until then
// they are the base ones.
extern "C" ORGANICS_EXPORT bool organics_use(const char* name) {
  using organics::Isa;
  for (const Isa isa : {Isa::kBase, Isa::kAvx2, Isa::kAvx512}) {
    if (std::string(name) != organics::kNames[static_cast<int>(isa)]) continue;
    if (!organics::supported(isa)) return false;
    organics::chosen = isa;
    return true;
  }
  return false;
}
