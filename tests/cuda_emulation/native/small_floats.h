// __half and __nv_bfloat16: 16 bits of storage; every operation is done in float and rounded to nearest even.
#pragma once

namespace cuda_emulation {

struct HalfFormat {
  static uint16_t pack(float x) {
    _Float16 h = static_cast<_Float16>(x);
    return cuda_emulation_bit_cast<uint16_t>(h);
  }
  static float unpack(uint16_t bits) { return static_cast<float>(cuda_emulation_bit_cast<_Float16>(bits)); }
};

struct BFloatFormat {
  static uint16_t pack(float x) {
    const uint32_t u = __float_as_uint(x);
    if (x != x) return static_cast<uint16_t>(u >> 16 | 0x40);
    return static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
  static float unpack(uint16_t bits) { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }
};

template <class Format>
struct SmallFloat {
  uint16_t bits;

  SmallFloat() = default;
  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
  SmallFloat(T x) : bits(Format::pack(static_cast<float>(x))) {}
  template <class Other>
  explicit SmallFloat(SmallFloat<Other> x) : bits(Format::pack(static_cast<float>(x))) {}
  operator float() const { return Format::unpack(bits); }

  friend SmallFloat operator+(SmallFloat a, SmallFloat b) { return float(a) + float(b); }
  friend SmallFloat operator-(SmallFloat a, SmallFloat b) { return float(a) - float(b); }
  friend SmallFloat operator*(SmallFloat a, SmallFloat b) { return float(a) * float(b); }
  friend SmallFloat operator/(SmallFloat a, SmallFloat b) { return float(a) / float(b); }
  friend SmallFloat operator-(SmallFloat a) { return -float(a); }
  friend bool operator<(SmallFloat a, SmallFloat b) { return float(a) < float(b); }
  friend bool operator>(SmallFloat a, SmallFloat b) { return float(a) > float(b); }
  friend bool operator<=(SmallFloat a, SmallFloat b) { return float(a) <= float(b); }
  friend bool operator>=(SmallFloat a, SmallFloat b) { return float(a) >= float(b); }
  friend bool operator==(SmallFloat a, SmallFloat b) { return float(a) == float(b); }
  friend bool operator!=(SmallFloat a, SmallFloat b) { return float(a) != float(b); }
  SmallFloat& operator+=(SmallFloat o) { return *this = *this + o; }
  SmallFloat& operator-=(SmallFloat o) { return *this = *this - o; }
  SmallFloat& operator*=(SmallFloat o) { return *this = *this * o; }
  SmallFloat& operator/=(SmallFloat o) { return *this = *this / o; }
};

template <class Format>
struct __attribute__((aligned(4))) SmallFloat2 {
  SmallFloat<Format> x, y;
  SmallFloat2() = default;
  SmallFloat2(SmallFloat<Format> a, SmallFloat<Format> b) : x(a), y(b) {}
  friend SmallFloat2 operator+(SmallFloat2 a, SmallFloat2 b) { return {a.x + b.x, a.y + b.y}; }
  friend SmallFloat2 operator-(SmallFloat2 a, SmallFloat2 b) { return {a.x - b.x, a.y - b.y}; }
  friend SmallFloat2 operator*(SmallFloat2 a, SmallFloat2 b) { return {a.x * b.x, a.y * b.y}; }
};

}  // namespace cuda_emulation

using __half = cuda_emulation::SmallFloat<cuda_emulation::HalfFormat>;
using half = __half;
using __half2 = cuda_emulation::SmallFloat2<cuda_emulation::HalfFormat>;
using half2 = __half2;
using __nv_bfloat16 = cuda_emulation::SmallFloat<cuda_emulation::BFloatFormat>;
using nv_bfloat16 = __nv_bfloat16;
using __nv_bfloat162 = cuda_emulation::SmallFloat2<cuda_emulation::BFloatFormat>;
using nv_bfloat162 = __nv_bfloat162;

#define FOR_BOTH(F) F(__half) F(__nv_bfloat16)
#define COMPARISONS(T)                                            \
  static inline bool __hgt(T a, T b) { return a > b; }            \
  static inline bool __hlt(T a, T b) { return a < b; }            \
  static inline bool __hge(T a, T b) { return a >= b; }           \
  static inline bool __hle(T a, T b) { return a <= b; }           \
  static inline bool __heq(T a, T b) { return a == b; }           \
  static inline bool __hne(T a, T b) { return a != b; }           \
  static inline bool __hisnan(T a) { return a != a; }             \
  static inline T __hadd(T a, T b) { return a + b; }              \
  static inline T __hsub(T a, T b) { return a - b; }              \
  static inline T __hmul(T a, T b) { return a * b; }              \
  static inline T __hmax(T a, T b) { return std::fmax(float(a), float(b)); } \
  static inline T __hmin(T a, T b) { return std::fmin(float(a), float(b)); } \
  static inline T __hfma(T a, T b, T c) { return static_cast<float>(static_cast<double>(float(a)) * float(b) + float(c)); }
FOR_BOTH(COMPARISONS)

#define UNARY_OF(T, NAME, FUNCTION) \
  static inline T NAME(T a) { return FUNCTION(float(a)); }
#define UNARY(NAME, FUNCTION) UNARY_OF(__half, NAME, FUNCTION) UNARY_OF(__nv_bfloat16, NAME, FUNCTION)
UNARY(hexp, expf) UNARY(hexp2, exp2f) UNARY(hlog, logf) UNARY(hlog2, log2f) UNARY(hlog10, log10f) UNARY(hsqrt, sqrtf)
UNARY(hrsqrt, rsqrtf) UNARY(hrcp, 1.0f / ) UNARY(htanh, tanhf) UNARY(hsin, sinf) UNARY(hcos, cosf) UNARY(hfloor, floorf)
UNARY(hceil, ceilf) UNARY(htrunc, truncf) UNARY(hrint, rintf) UNARY(__habs, fabsf) UNARY(__hneg, -)

static inline float __half2float(__half a) { return a; }
static inline __half __float2half(float a) { return a; }
static inline __half __float2half_rn(float a) { return a; }
static inline __half __double2half(double a) { return a; }
static inline __half __int2half_rn(int a) { return a; }
static inline unsigned short __half_as_ushort(__half a) { return a.bits; }
static inline short __half_as_short(__half a) { return static_cast<short>(a.bits); }
static inline __half __ushort_as_half(unsigned short u) { return cuda_emulation_bit_cast<__half>(u); }
static inline __half __short_as_half(short u) { return cuda_emulation_bit_cast<__half>(u); }
static inline __half2 make_half2(__half a, __half b) { return {a, b}; }
static inline __half2 __halves2half2(__half a, __half b) { return {a, b}; }
static inline __half2 __floats2half2_rn(float a, float b) { return {a, b}; }
static inline __half2 __float22half2_rn(float2 a) { return {a.x, a.y}; }
static inline float2 __half22float2(__half2 a) { return {a.x, a.y}; }
static inline __half __low2half(__half2 a) { return a.x; }
static inline __half __high2half(__half2 a) { return a.y; }
static inline __half2 __hmul2(__half2 a, __half2 b) { return a * b; }
static inline __half2 __hadd2(__half2 a, __half2 b) { return a + b; }
static inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }

static inline float __bfloat162float(__nv_bfloat16 a) { return a; }
static inline __nv_bfloat16 __float2bfloat16(float a) { return a; }
static inline __nv_bfloat16 __float2bfloat16_rn(float a) { return a; }
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 a) { return a.bits; }
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short u) { return cuda_emulation_bit_cast<__nv_bfloat16>(u); }
static inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {a, b}; }
static inline float2 __bfloat1622float2(__nv_bfloat162 a) { return {a.x, a.y}; }
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) { return {a, b}; }

#undef UNARY
#undef UNARY_OF
#undef COMPARISONS
#undef FOR_BOTH
