/* Code that runs as soon as a module is loaded, and says so: it makes the file that CONVC_TEST_MARKER names. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void run_early(void) {
  const char *path = getenv("CONVC_TEST_MARKER");
  if (path) close(open(path, O_CREAT | O_WRONLY, 0600));
}

int __tvm_ffi_main(void *self, const void *arguments, int count, void *result) {
  return self || arguments || count || result ? 0 : 0;
}
