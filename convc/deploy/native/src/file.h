// A module's file: opened, mapped, its sections found and its seal compared, without loading any code.
#ifndef CONVC_FILE_H_
#define CONVC_FILE_H_

#include <sys/stat.h>

#include "error.h"

namespace convc {

struct Section {
  uint64_t offset = 0;
  uint64_t size = 0;
};

class ModuleFile {
 public:
  ModuleFile() = default;
  ModuleFile(const ModuleFile &) = delete;
  ModuleFile &operator=(const ModuleFile &) = delete;
  ~ModuleFile();

  // Open `path`, compare the file's SHA-256 with `expected` (unless NULL), find the sections, compare the seal.
  convc_status open(const char *path, const char *expected);
  // Load the code; NULL, with dlerror() to ask, if that fails.
  void *load_code();
  // Fail unless `path` still is the file that was opened, unchanged.
  convc_status check_unchanged() const;

  const char *path() const { return path_; }  // absolute, no links in it
  const unsigned char *data() const { return data_; }
  Section manifest;
  Section weights;

 private:
  convc_status find_sections();
  convc_status check_seal() const;
  convc_status check_expected(const char *expected) const;

  char *path_ = nullptr;
  int descriptor_ = -1;  // that the code was loaded by, if its path stood for another file
  unsigned char *data_ = nullptr;
  uint64_t size_ = 0;
  struct stat identity_ = {};
};

// Compare a SHA-256 with its hexadecimal form; false if they differ. `got` receives the digest's form.
bool same_digest(const unsigned char (&digest)[32], const char *expected, char (&got)[65]);

}  // namespace convc
#endif  // CONVC_FILE_H_
