#include "error.h"

#include <stdarg.h>
#include <stdio.h>

#include "abi.h"

namespace convc {

// A fixed buffer: reporting that there is no memory must not need any. The first text is "".
static thread_local char message[2048];

convc_status fail(convc_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  // Through a second buffer: an argument may be this thread's last message.
  char text[sizeof message];
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  snprintf(message, sizeof message, "%s", text);
  return status;
}

void raise_from_parts(const char *kind, const char **parts, int32_t count) {
  size_t used = static_cast<size_t>(snprintf(message, sizeof message, "%s: ", kind));
  for (int32_t i = 0; i < count && used < sizeof message; ++i) {
    const int added = snprintf(message + used, sizeof message - used, "%s", parts[i]);
    if (added > 0) used += static_cast<size_t>(added);
  }
}

}  // namespace convc

extern "C" const char *convc_last_error(void) { return convc::message; }
