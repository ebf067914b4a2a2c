#include "file.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sha256.h"

namespace convc {
namespace {

// The seal: convc/runtime/seal.py.
constexpr unsigned char kSealMagic[16] = {'\n', 'c', 'o', 'n', 'v', 'c', ' ', 's', 'e', 'a', 'l', ' ', '1', '\n', 0, 0};
constexpr uint64_t kSealBytes = 64;
constexpr uint64_t kPage = 4096;

convc_status cut(const char *what) {
  return fail(CONVC_ERROR_FORMAT, "module's %s must end within the file; got one that does not. The file is cut short or damaged.", what);
}

bool inside(uint64_t offset, uint64_t size, uint64_t whole) { return offset <= whole && size <= whole - offset; }

}  // namespace

ModuleFile::~ModuleFile() {
  if (data_) munmap(data_, size_);
  if (descriptor_ >= 0) ::close(descriptor_);
  free(path_);
}

convc_status ModuleFile::open(const char *path, const char *expected) {
  path_ = realpath(path, nullptr);
  const int file = path_ ? ::open(path_, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return fail(CONVC_ERROR_FILE, "module file must be readable; got '%s' (%s).", path, strerror(errno));
  if (fstat(file, &identity_) || !S_ISREG(identity_.st_mode) || identity_.st_size <= 0) {
    ::close(file);
    return fail(CONVC_ERROR_FILE, "module must be a file that is not empty; got '%s'.", path);
  }
  size_ = static_cast<uint64_t>(identity_.st_size);
  void *mapped = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
  const int reason = errno;
  ::close(file);
  if (mapped == MAP_FAILED) return fail(CONVC_ERROR_FILE, "module must be a file that can be mapped; got '%s' (%s).", path, strerror(reason));
  data_ = static_cast<unsigned char *>(mapped);
  if (expected) {
    if (convc_status bad = check_expected(expected)) return bad;
  }
  if (convc_status bad = find_sections()) return bad;
  return check_seal();
}

void *ModuleFile::load_code() {
  // NOW: a symbol that is missing is an error here and not the end of the process at the first call.
  constexpr int kMode = RTLD_NOW | RTLD_LOCAL;
  void *known = dlopen(path_, kMode | RTLD_NOLOAD);
  if (!known) return dlopen(path_, kMode);
  // The loader takes a name that it knows for the library that it has: a file made anew at the path of a module that is alive would run
  // the old code on the new weights. By its descriptor, kept as long as the code, the loader looks at the file itself.
  dlclose(known);
  descriptor_ = ::open(path_, O_RDONLY | O_CLOEXEC);
  char name[32];
  snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor_);
  return dlopen(name, kMode);
}

convc_status ModuleFile::check_unchanged() const {
  struct stat now;
  if (stat(path_, &now) || now.st_dev != identity_.st_dev || now.st_ino != identity_.st_ino ||
      now.st_size != identity_.st_size || now.st_mtim.tv_sec != identity_.st_mtim.tv_sec ||
      now.st_mtim.tv_nsec != identity_.st_mtim.tv_nsec) {
    return fail(CONVC_ERROR_FILE, "module file '%s' must stay unchanged while it is loaded; got a new one. Load it again.", path_);
  }
  return CONVC_OK;
}

convc_status ModuleFile::check_expected(const char *expected) const {
  if (strlen(expected) != 64 || strspn(expected, "0123456789abcdefABCDEF") != 64) {
    return fail(CONVC_ERROR_ARGUMENT, "expect_sha256 must be 64 hexadecimal digits; got '%s'.", expected);
  }
  Sha256 sum;
  sum.add(data_, size_);
  unsigned char digest[Sha256::kBytes];
  sum.finish(digest);
  char got[65];
  if (!same_digest(digest, expected, got)) {
    return fail(CONVC_ERROR_CHECKSUM, "module file '%s' must have SHA-256 %s; got %s. It is another file, or was changed.", path_, expected, got);
  }
  return CONVC_OK;
}

// Every number read from the file is compared with the file's size before use. SOURCE  System V ABI, "Object Files".
convc_status ModuleFile::find_sections() {
  Elf64_Ehdr header;
  if (size_ < sizeof header || memcmp(data_, ELFMAG "\2\1\1", 7) != 0) {
    return fail(CONVC_ERROR_FORMAT, "module must be a 64-bit little-endian ELF file; got '%s', which is none.", path_);
  }
  memcpy(&header, data_, sizeof header);
  if (header.e_shentsize != sizeof(Elf64_Shdr)) {
    return fail(CONVC_ERROR_FORMAT, "module's section headers must have %zu bytes; got %u.", sizeof(Elf64_Shdr), unsigned{header.e_shentsize});
  }
  // A module has about 30 sections; the overflow form for 65280 and more is not one that a linker writes here.
  const uint64_t count = header.e_shnum;
  if (!inside(header.e_shoff, count * sizeof(Elf64_Shdr), size_)) return cut("section table");
  if (header.e_shstrndx >= count) {
    return fail(CONVC_ERROR_FORMAT, "module's section name table must be one of %llu sections; got index %u.",
                static_cast<unsigned long long>(count), unsigned{header.e_shstrndx});
  }
  const auto section = [&](uint64_t index) {
    Elf64_Shdr read;
    memcpy(&read, data_ + header.e_shoff + index * sizeof read, sizeof read);
    return read;
  };
  const Elf64_Shdr names = section(header.e_shstrndx);
  if (!inside(names.sh_offset, names.sh_size, size_)) return cut("section name table");
  struct Wanted {
    const char *name;
    Section *place;
    bool found;
  } wanted[] = {{".convc.manifest", &manifest, false}, {".convc.weights", &weights, false}};
  for (uint64_t index = 0; index < count; ++index) {
    const Elf64_Shdr read = section(index);
    for (Wanted &one : wanted) {
      const size_t length = strlen(one.name) + 1;
      if (one.found || !inside(read.sh_name, length, names.sh_size) ||
          memcmp(data_ + names.sh_offset + read.sh_name, one.name, length) != 0) {
        continue;
      }
      if (read.sh_type == SHT_NOBITS || !inside(read.sh_offset, read.sh_size, size_)) return cut(one.name);
      *one.place = {read.sh_offset, read.sh_size};
      one.found = true;
    }
  }
  for (const Wanted &one : wanted) {
    if (!one.found) return fail(CONVC_ERROR_FORMAT, "module must have a section %s; got none. '%s' is not a convc module.", one.name, path_);
  }
  if (weights.offset % kPage) {
    return fail(CONVC_ERROR_FORMAT, "module's weights must start at a multiple of %llu bytes; got %llu.",
                static_cast<unsigned long long>(kPage), static_cast<unsigned long long>(weights.offset));
  }
  return CONVC_OK;
}

convc_status ModuleFile::check_seal() const {
  struct {
    unsigned char magic[16];
    uint64_t sealed_bytes;
    uint64_t zero;
    unsigned char digest[Sha256::kBytes];
  } seal;
  static_assert(sizeof seal == kSealBytes, "convc/runtime/seal.py's layout");
  const uint64_t sealed = size_ - kSealBytes;  // the ELF header alone is as long
  memcpy(&seal, data_ + sealed, sizeof seal);
  if (memcmp(seal.magic, kSealMagic, sizeof kSealMagic) != 0) {
    return fail(CONVC_ERROR_CHECKSUM, "module must end with its seal; got '%s' without. The file is cut short, damaged, or was changed by another program.", path_);
  }
  if (seal.sealed_bytes != sealed || seal.zero || !inside(weights.offset, weights.size, sealed)) {
    return fail(CONVC_ERROR_CHECKSUM, "module must have the %llu bytes that its seal names; got %llu. The file is damaged.",
                static_cast<unsigned long long>(seal.sealed_bytes), static_cast<unsigned long long>(sealed));
  }
  Sha256 sum;
  sum.add(data_, weights.offset);
  sum.add(data_ + weights.offset + weights.size, sealed - weights.offset - weights.size);
  unsigned char digest[Sha256::kBytes];
  sum.finish(digest);
  if (memcmp(digest, seal.digest, sizeof digest) != 0) {
    return fail(CONVC_ERROR_CHECKSUM, "module must have the SHA-256 in its seal; got another for '%s'. The file is damaged, or was changed by another program.", path_);
  }
  return CONVC_OK;
}

bool same_digest(const unsigned char (&digest)[32], const char *expected, char (&got)[65]) {
  Sha256::hex(digest, got);
  return strcasecmp(got, expected) == 0;
}

}  // namespace convc
