// The inline PTX that kernels contain: translate.py turns each asm statement into calls of these.
#pragma once

namespace cuda_emulation {
namespace ptx {

// Registers are bits: an operand of any C type, seen as an unsigned integer of its size.
template <class T>
auto bits(const T& x) {
  using B = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, std::conditional_t<sizeof(T) == 2, uint16_t, uint8_t>>>;
  if constexpr (std::is_pointer_v<T>) return reinterpret_cast<uint64_t>(x);
  else return cuda_emulation_bit_cast<B>(x);
}
template <class T, class B>
void assign(T& x, B value) {
  if constexpr (std::is_pointer_v<T>) x = reinterpret_cast<T>(value);
  else if constexpr (std::is_same_v<T, bool>) x = value;
  else {
    auto narrowed = static_cast<decltype(bits(x))>(value);
    memcpy(&x, &narrowed, sizeof x);
  }
}
template <class T>
const void* global(const T& address) { return reinterpret_cast<const void*>(static_cast<uint64_t>(bits(address))); }

enum class Type { f16, bf16, tf32, s8, u8, f32, s32 };

// mma.sync.aligned.m16n8kK.row.col: `a_registers` and `b_registers` follow from K and the type (PTX ISA, warp-level matrix fragments).
void mma_16x8(Type d_type, Type a_type, Type b_type, int a_registers, int b_registers, uint32_t* d, const uint32_t* a,
              const uint32_t* b, const uint32_t* c, int line);
// wgmma.mma_async.sync.aligned.m64nNk16.f32 of 16-bit operands in shared memory without swizzle, K-major or, transposed, MN-major;
// d: N / 2 registers
struct Operand {
  uint64_t descriptor;
  bool transposed;
};
void wgmma_64(Type type, int n, float* const* d, Operand a, Operand b, bool add, int line);
// wgmma.mma_async.sync.aligned.m64nNk32.s32 of bytes, likewise, K-major; sums wrap around
void wgmma_64_bytes(Type a_type, Type b_type, int n, int* const* d, Operand a, Operand b, bool add, int line);
// ldmatrix.sync.aligned.m8n8.xCOUNT[.trans].shared.b16
void ldmatrix(bool transposed, int count, uint32_t address, uint32_t* registers, int line);

// cvt.rna.tf32.f32: round to nearest, ties away from zero, 10 bits of mantissa kept
inline uint32_t round_to_tf32(uint32_t x) {
  return (x & 0x7f800000u) == 0x7f800000u ? x : (x + 0x1000u) & 0xffffe000u;
}
template <class A, class B>
int dot_4(uint32_t a, uint32_t b, int sum) {
  for (int i = 0; i < 4; ++i) sum += static_cast<int>(static_cast<A>(a >> 8 * i)) * static_cast<int>(static_cast<B>(b >> 8 * i));
  return sum;
}

}  // namespace ptx
}  // namespace cuda_emulation

#define __cvta_generic_to_shared(p) static_cast<size_t>(cuda_emulation::shared_address(p))
static inline int __dp4a(int a, int b, int c) { return cuda_emulation::ptx::dot_4<int8_t, int8_t>(a, b, c); }
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) { return cuda_emulation::ptx::dot_4<uint8_t, uint8_t>(a, b, c); }
