// A pull parser for JSON in place: the caller walks the text, strings are decoded where they stand, nothing is allocated.
//
// Every function returns false after an error and from then on; `error` has the first one's place. The text comes from a file that
// may be anything, so depth and numbers are bounded. SOURCE  RFC 8259.
#ifndef CONVC_JSON_H_
#define CONVC_JSON_H_

#include <stddef.h>
#include <stdint.h>

#include "memory.h"

namespace convc {

class Json {
 public:
  // `text[size]` must be writable as well: a string's closing quote becomes its terminating zero.
  Json(char *text, size_t size) : begin_(text), at_(text), end_(text + size) {}

  // Call `field(key)` for each member; it must consume the value and return true, or return false.
  template <typename Field>
  bool object(Field field) {
    if (!open('{')) return false;
    if (accept('}')) return close();
    do {
      Text key;
      if (!string(key) || !expect(':') || !field(key)) return bad();
    } while (accept(','));
    return expect('}') && close();
  }

  // Call `item()` for each element; it must consume it.
  template <typename Item>
  bool array(Item item) {
    if (!open('[')) return false;
    if (accept(']')) return close();
    do {
      if (!item()) return bad();
    } while (accept(','));
    return expect(']') && close();
  }

  bool string(Text &text);
  bool integer(int64_t &value);
  bool skip();
  // Whether nothing but white space is left.
  bool finished();

  bool failed() const { return failed_; }
  size_t position() const { return static_cast<size_t>(at_ - begin_); }

 private:
  static constexpr int kMaxDepth = 64;

  void space();
  bool accept(char wanted);
  bool expect(char wanted) { return accept(wanted) || bad(); }
  bool open(char bracket) { return expect(bracket) && (++depth_ <= kMaxDepth || bad()); }
  bool close() { return --depth_, true; }
  bool bad() { return failed_ = true, false; }
  bool hex4(uint32_t &value);
  bool number_or_word();

  char *begin_;
  char *at_;
  char *end_;
  int depth_ = 0;
  bool failed_ = false;
};

}  // namespace convc
#endif  // CONVC_JSON_H_
