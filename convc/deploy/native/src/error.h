// One sentence per failure, kept for the thread that failed. Form: "X must be ...; got ...." and a way out.
#ifndef CONVC_ERROR_H_
#define CONVC_ERROR_H_

#include "../include/convc.h"

namespace convc {

// Set the calling thread's message and return `status`.
convc_status fail(convc_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace convc
#endif  // CONVC_ERROR_H_
