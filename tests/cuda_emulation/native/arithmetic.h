// CUDA's built-in functions. The fast approximations (__expf ...) are computed exactly: what they cost in accuracy is not emulated.
#pragma once

// CUDA's max and min of floats are fmax and fmin: a NaN loses.
template <class T, class U, class R = std::common_type_t<T, U>, class = std::enable_if_t<std::is_arithmetic_v<R>>>
static inline R max(T a, U b) {
  if constexpr (std::is_floating_point_v<R>) return std::fmax(static_cast<R>(a), static_cast<R>(b));
  else return static_cast<R>(a) > static_cast<R>(b) ? static_cast<R>(a) : static_cast<R>(b);
}
template <class T, class U, class R = std::common_type_t<T, U>, class = std::enable_if_t<std::is_arithmetic_v<R>>>
static inline R min(T a, U b) {
  if constexpr (std::is_floating_point_v<R>) return std::fmin(static_cast<R>(a), static_cast<R>(b));
  else return static_cast<R>(a) < static_cast<R>(b) ? static_cast<R>(a) : static_cast<R>(b);
}

// glibc has declared these names for itself, so they cannot be functions here.
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __frsqrt_rn(float a) { return 1.0f / sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }

template <class To, class From>
static inline To cuda_emulation_bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
static inline int __float_as_int(float x) { return cuda_emulation_bit_cast<int>(x); }
static inline unsigned __float_as_uint(float x) { return cuda_emulation_bit_cast<unsigned>(x); }
static inline float __int_as_float(int x) { return cuda_emulation_bit_cast<float>(x); }
static inline float __uint_as_float(unsigned x) { return cuda_emulation_bit_cast<float>(x); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __mul24(int a, int b) { return ((a << 8) >> 8) * ((b << 8) >> 8); }
static inline int __mulhi(int a, int b) { return static_cast<int>((static_cast<long long>(a) * b) >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32); }

template <class T>
static inline T __ldg(const T* p) {
  return *p;
}

// One operating-system thread and no preemption: every statement is atomic.
template <class T, class V>
static inline T atomicAdd(T* p, V v) {
  T old = *p;
  *p = old + static_cast<T>(v);
  return old;
}
template <class T>
static inline T atomicMax(T* p, T v) {
  T old = *p;
  *p = old > v ? old : v;
  return old;
}
template <class T>
static inline T atomicMin(T* p, T v) {
  T old = *p;
  *p = old < v ? old : v;
  return old;
}
template <class T>
static inline T atomicExch(T* p, T v) {
  T old = *p;
  *p = v;
  return old;
}
template <class T>
static inline T atomicCAS(T* p, T expected, T v) {
  T old = *p;
  if (old == expected) *p = v;
  return old;
}
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)
