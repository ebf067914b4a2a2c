// SHA-256. SOURCE  FIPS 180-4, section 6.2.
#ifndef CONVC_SHA256_H_
#define CONVC_SHA256_H_

#include <stddef.h>
#include <stdint.h>

namespace convc {

class Sha256 {
 public:
  static constexpr size_t kBytes = 32;

  void add(const void *data, size_t nbytes);
  void finish(unsigned char (&digest)[kBytes]);

  // The digest as 64 hexadecimal digits and a zero.
  static void hex(const unsigned char (&digest)[kBytes], char (&text)[2 * kBytes + 1]);

 private:
  void block(const unsigned char *data);

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  unsigned char rest_[64];
  size_t used_ = 0;
  uint64_t total_ = 0;
};

}  // namespace convc
#endif  // CONVC_SHA256_H_
